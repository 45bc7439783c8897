"""
One check of all header cards of AIA maps that the package reads: `checked_map`.

SunPy and wcslib report bad cards late, by errors that name neither card nor channel, or replace them by assumptions: a
missing date by today's, missing coordinates by the center of the image, an unknown unit by none.
"""

import re
from numbers import Real
from typing import NoReturn

import astropy.units as u
import numpy as np
from astropy.time import Time
from sunpy.coordinates.frames import SunPyBaseCoordinateFrame
from sunpy.map.sources import AIAMap
from sunpy.time import parse_time

from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.utils.messages import warn_user

__all__ = ["check_header", "checked_map", "header_channel", "observation_time"]

# Where AIA can see and how long it exposes, with a generous margin.
_MAX_FIELD, _USUAL_EXPOSURE, _LEVELS = 3600 * u.arcsec, (1e-3, 60.0), (1, 3)
# Largest difference of two cards for the same exposure time, as a fraction.
_SAME_EXPOSURE = 0.01
# DATE-OBS is the start of the exposure, T_OBS its middle, both to 0.01 s if they have fractions of seconds.
_MAX_TIME_DIFFERENCE, _TIME_PRECISION, _FRACTION = 60 * u.s, 0.0101 * u.s, re.compile(r":\d\d\.\d")
# Largest deviation of a matrix from a rotation.
_MAX_SKEW = 0.02
# No spacecraft is further from the Sun, in m.
_MAX_DISTANCE = 1e13
# AIA sees the Sun's radius from the Earth's orbit at 944 to 976 arcsec.
_RADIUS = (850 * u.arcsec, 1100 * u.arcsec)

# Times of an observation in SunPy's order of preference; the last is AIA's own.
_DATES = ("date-obs", "date_obs", "date-beg", "date-avg", "date-end")
_TEXTS = (
    *("instrume", "telescop", "obsrvtry", "detector", "content", "bunit", "pixlunit", "waveunit", "timeunit"),
    *("timesys", "ctype1", "ctype2", "cunit1", "cunit2"),
)
_MATRICES = tuple(f"{kind}{i}_{j}" for kind in ("pc", "cd") for i in (1, 2) for j in (1, 2))
_NUMBERS = ("crota2", "rsun_ref", "rsun_obs", "solar_r", "radius", "lonpole", *_MATRICES)
# Positions of the observer in SunPy's order of preference; it uses the first that is complete.
_OBSERVERS = (
    ("haex_obs", "haey_obs", "haez_obs"),
    ("hgln_obs", "hglt_obs", "dsun_obs"),
    ("crln_obs", "crlt_obs", "dsun_obs"),
)
_COORDINATES = re.compile(r"[A-Z]{4}-[A-Z]{3}|solar[-_][xy]", re.IGNORECASE)
# Distortions and parameters of projections, which SunPy's maps or resampling ignore.
_DISTORTIONS = re.compile(r"(a|b|ap|bp)_order|(cpdis|cqdis|d2imdis)[12]|pv[1-9]\d?_\d+", re.IGNORECASE)
_ZENITHAL = ("TAN", "SIN", "ARC", "STG", "ZEA")


class _Cards:
    """Cards of a header, with errors that name the source, the card, its value and what was expected."""

    def __init__(self, header, source):
        self._header, self.source = header, source

    def get(self, name):
        """Return the value of a card, `None` if it is missing or empty."""
        value = self._header.get(name)
        # Undefined values of astropy have no public type.
        empty = value is None or type(value).__name__ == "Undefined" or (isinstance(value, str) and value == "")
        return None if empty else value

    def names(self):
        """Return the names of all cards in lower case."""
        return [str(name).lower() for name in self._header.keys()]  # noqa: SIM118 - not a dict

    def reject(self, name, expected, advice="Correct the header") -> NoReturn:
        """Raise the error of a card."""
        value = self._header.get(name)
        found = "none" if value is None else repr(value.item() if isinstance(value, np.generic) else value)
        msg = f"maps: {self.source}: {name.upper()} must be {expected}, found {found}. {advice}."
        raise ValueError(msg)

    def text(self, name, expected="text"):
        """Return the text of a card, `None` if it is missing; raise if it is no text."""
        value = self.get(name)
        if value is not None and not isinstance(value, str):
            self.reject(name, expected)
        return value

    def number(self, name, expected="a finite number", *, required=False):
        """Return the number of a card, `None` if it is missing and not required; raise if it is no finite number."""
        value = self.get(name)
        if value is None and not required:
            return None
        try:
            # Logical values and numbers in quotes are no numbers.
            number = float(value) if isinstance(value, Real) and not isinstance(value, bool | np.bool_) else np.nan
        except OverflowError:
            number = np.inf
        if not np.isfinite(number):
            self.reject(name, expected)
        return number

    def unit(self, name, physical, default=None):
        """Return the unit of a card; raise unless it is equivalent to ``physical``."""
        text = self.text(name, f"a unit such as {str(physical)!r}")
        if text is None:
            return default
        for spelling in (text, text.lower()):
            try:
                unit = u.Unit(spelling)
            except ValueError:
                continue
            if unit.is_equivalent(physical):
                return unit
        return self.reject(name, f"a unit such as {str(physical)!r}")

    def time(self, name):
        """Return the time of a card, `None` if it is missing; raise if it is no time."""
        text = self.text(name, "a time such as '2014-01-01T00:00:00'")
        if text is None:
            return None
        scale = (self.text("timesys") or "utc").lower()
        if scale not in Time.SCALES:
            self.reject("timesys", "a time scale such as 'UTC' or 'TAI'")
        try:
            # As in SunPy, JSOC's "TAI" in the text comes before TIMESYS.
            return parse_time(text, scale="tai" if "TAI" in text else scale)
        except (ValueError, TypeError):
            return self.reject(name, "a time such as '2014-01-01T00:00:00'")


def header_channel(header, source):
    """
    Return the wavelength of an AIA header.

    Parameters
    ----------
    header : `dict` or `~astropy.io.fits.Header`
    source : `str`
        Name of the map in messages.

    Returns
    -------
    `int` or `None`
        In Å; `None` if the header is not AIA's.

    Raises
    ------
    ValueError
        If a card is bad.
    """
    if not str(header.get("instrume", "")).startswith("AIA"):
        return None
    cards = _Cards(header, source)
    wavelength = cards.number("wavelnth", f"a wavelength such as one of {CHANNELS}", required=True)
    unit = cards.unit("waveunit", u.angstrom)
    if unit is None:  # SunPy cannot make a map
        cards.reject("waveunit", "a unit such as 'Angstrom'")
    return round((wavelength * unit).to_value(u.angstrom))


def observation_time(header, source):
    """
    Return the start of an exposure: DATE-OBS or another of SunPy's cards, or T_OBS less half the exposure time.

    Parameters
    ----------
    header, source
        As for `header_channel`.

    Returns
    -------
    `~astropy.time.Time`

    Raises
    ------
    ValueError
        If a date is bad, there is none, or T_OBS differs from it by more than a minute.
    """
    cards = _Cards(header, source)
    dates = [time for time in map(cards.time, _DATES) if time is not None]
    middle = cards.time("t_obs")
    if not (dates or middle):
        cards.reject("date-obs", "the start of the exposure such as '2014-01-01T00:00:00'", "Degradation needs it")
    start = dates[0] if dates else middle - _exposure(cards) / 2
    if middle is not None and abs(middle - start) > _MAX_TIME_DIFFERENCE:
        expected = f"within {_MAX_TIME_DIFFERENCE:g} of DATE-OBS, {start.utc.isot}"
        cards.reject("t_obs", expected, "Correct one of them, or delete T_OBS")
    return start


def checked_map(smap, source=None):
    """
    Check all cards of an AIA map that the package reads.

    Parameters
    ----------
    smap : `~sunpy.map.GenericMap`
        Maps of other instruments and channels are not checked.
    source : `str`, optional
        Name of the map in messages, for instance of its file.

    Returns
    -------
    `~sunpy.map.GenericMap`
        The map itself, or a copy without empty cards, and with DATE-OBS if that was missing.

    Raises
    ------
    ValueError
        If a card is bad. The message names source, channel, card, value and expectation.

    Warns
    -----
    sunpy.util.exceptions.SunpyUserWarning
        If the exposure time is not usual for AIA.
    """
    if not isinstance(smap, AIAMap):
        return smap
    instrument = str(smap.meta.get("instrume")).replace("_", " ")
    channel = header_channel(smap.meta, f"the {instrument} map" if source is None else source)
    if channel not in CHANNELS:
        return smap
    cards = _Cards(smap.meta, f"the {instrument} {channel} Å map" if source is None else f"{source} ({channel} Å)")
    start = _check_cards(cards, smap.meta, smap.data.shape)
    smap = _completed(smap, cards, start)
    _check_derived(cards, smap)
    return smap


def _completed(smap, cards, start):
    """Return a map without empty cards, which SunPy takes as values, and with the date, which it would assume."""
    header = {name: value for name, value in smap.meta.items() if cards.get(name) is not None}
    if not any(name in header for name in _DATES):
        # SunPy would take today's date.
        header["date-obs"] = start.utc.isot
    if header.keys() == smap.meta.keys():
        return smap
    return type(smap)(smap.data, header, mask=smap.mask, uncertainty=smap.uncertainty)


def check_header(header, source):
    """Raise `ValueError` if a card of the header of an AIA file of one of the six channels is bad."""
    channel = header_channel(header, source)
    if channel in CHANNELS:
        cards = _Cards(header, f"{source} ({channel} Å)")
        _check_cards(cards, header, None)


# ---------------------------------------------------------------------------------------------------------------------
# Checks
# ---------------------------------------------------------------------------------------------------------------------


def _check_cards(cards, header, shape):
    """Check each card by itself; return the start of the exposure."""
    for name in _TEXTS:
        cards.text(name)
    for name in _NUMBERS:
        cards.number(name)
    level = cards.number("lvl_num")
    if level is not None and not _LEVELS[0] <= level <= _LEVELS[1]:
        cards.reject("lvl_num", f"a level from {_LEVELS[0]} to {_LEVELS[1]}", "Use level 1 or 1.5")
    exposure = _exposure(cards)
    if not _USUAL_EXPOSURE[0] <= exposure.value <= _USUAL_EXPOSURE[1]:
        warn_user(f"{cards.source}: an exposure time of {exposure:g} is not usual for AIA. Check EXPTIME and TIMEUNIT.")
    start = observation_time(header, cards.source)
    _check_middle(cards, exposure)
    _check_coordinates(cards, shape)
    _check_observer(cards)
    return start


def _exposure(cards):
    """Return the exposure time."""
    # As in SunPy, XPOSURE comes first unless it is zero.
    name = "xposure" if cards.get("xposure") else "exptime"
    expected = "a positive exposure time"
    unit = cards.unit("timeunit", u.s, default=u.s)
    value = cards.number(name, expected, required=True) * unit
    # Intensities are divided in single precision.
    if not np.finfo(np.float32).tiny < value.to_value(u.s) < np.finfo(np.float32).max:
        cards.reject(name, expected, "Intensity and noise need it, even if the data are per second")
    other = cards.number("exptime") if name == "xposure" else None
    if other and not np.isclose(value.value, other, rtol=_SAME_EXPOSURE):
        warn_user(f"{cards.source}: XPOSURE = {value.value:g} is used, but EXPTIME = {other:g} differs. Check both.")
    return value.to(u.s)


def _check_middle(cards, exposure):
    """Warn unless T_OBS is the middle of the exposure, which reveals wrong exposure times."""
    start, middle = cards.time("date-obs"), cards.time("t_obs")
    # The package's own maps have the same time in both.
    if start is None or middle is None or middle == start or not _FRACTION.search(cards.text("t_obs")):
        return
    half = (middle - start).to(u.s)
    if abs(half - exposure / 2) > _TIME_PRECISION:
        warn_user(
            f"{cards.source}: the exposure time {exposure:g} is used, but T_OBS is {half:.3g} after DATE-OBS, half of "
            f"{2 * half:.3g}. Check EXPTIME, and BUNIT if the map was divided by it; or delete T_OBS."
        )


def _check_coordinates(cards, shape):
    """Check the cards of the WCS; ``shape`` of the image may be `None`."""
    for name in cards.names():
        if _DISTORTIONS.fullmatch(name) and cards.get(name) not in (0, None):
            cards.reject(name, "zero or missing", "Distortions are not applied; reproject the map first")
    for axis in "12":
        kind = cards.text(f"ctype{axis}")
        if kind is not None and not _COORDINATES.fullmatch(kind):
            cards.reject(f"ctype{axis}", "a coordinate such as 'HPLN-TAN' or 'HPLT-TAN'")
        if cards.unit(f"cunit{axis}", u.arcsec) is None:
            cards.reject(f"cunit{axis}", "a unit such as 'arcsec'")
        for name in (f"crpix{axis}", f"crval{axis}"):
            cards.number(name, required=True)
    pole = cards.get("lonpole")
    if pole not in (None, 180) and (cards.get("ctype1") or "")[-3:].upper() in _ZENITHAL:
        cards.reject("lonpole", "180 or missing", "It is not applied; reproject the map first")
    on_sky = (cards.get("ctype1") or "HPLN").upper().startswith(("HPLN", "SOLAR"))
    for axis, n in zip("21", shape if on_sky and shape is not None else (None, None), strict=True):
        _check_scale(cards, axis, n)


def _check_scale(cards, axis, n):
    """Check the size of a pixel along an axis of ``n`` pixels, or of unknown length."""
    by_matrix = cards.get("cd1_1") is not None and cards.get("cdelt1") is None and cards.get("cdelt2") is None
    names = [f"cd{axis}_1", f"cd{axis}_2"] if by_matrix else [f"cdelt{axis}"]
    scale = float(np.hypot(*[cards.number(name, required=True) for name in names], *[0] * (2 - len(names))))
    scale = scale * cards.unit(f"cunit{axis}", u.arcsec)
    if not scale > 0 * u.arcsec:
        cards.reject(names[0], "the size of a pixel, not zero")
    if n is not None and n * scale > _MAX_FIELD:
        cards.reject(names[0], f"at most {(_MAX_FIELD / n).to(scale.unit):.3g} for {n} pixels", "AIA sees 41'")


def _check_observer(cards):
    """Check the position of the observer and the radius of the Sun."""
    for names in _OBSERVERS:
        if all(name in cards.names() for name in names):
            numbers = [cards.number(name, required=True) for name in names]
            by_distance = names[2] == "dsun_obs"
            if by_distance and not abs(numbers[1]) <= 90:
                cards.reject(names[1], "a latitude in degrees")
            if not 0 < (numbers[2] if by_distance else np.hypot.reduce(numbers)) < _MAX_DISTANCE:
                cards.reject(names[2], "the distance of the Sun in m")
            break
    if (radius := cards.number("rsun_ref")) is not None and not 6.5e8 < radius < 7.5e8:
        cards.reject("rsun_ref", "the radius of the Sun in m")
    # As in SunPy, the first that is there.
    for name in ("rsun_obs", "solar_r", "radius"):
        if (radius := cards.number(name)) is not None:
            if not _RADIUS[0] < radius * u.arcsec < _RADIUS[1]:
                cards.reject(name, f"the radius of the Sun, between {_RADIUS[0]:g} and {_RADIUS[1]:g}")
            break


def _check_derived(cards, smap):
    """Check the unit and WCS that SunPy derives from the cards."""
    name = "bunit" if cards.get("bunit") is not None else "pixlunit"
    unit = cards.get(name)
    if unit is not None and (not _is_unit(unit) or smap.unit is None):
        cards.reject(name, "a unit such as 'DN'")
    ny, nx = smap.data.shape
    wrong = ""
    try:
        center = smap.wcs.wcs_pix2world([[(nx - 1) / 2, (ny - 1) / 2]], 0)[0]
        smap.observer_coordinate  # noqa: B018 - it is computed when it is used
    except Exception as error:  # of SunPy, astropy and wcslib
        center, wrong = np.full(2, np.nan), f" ({' '.join(str(error).split())})"
    if wrong or not (np.isfinite(center).all() and isinstance(smap.coordinate_frame, SunPyBaseCoordinateFrame)):
        msg = (
            f"maps: {cards.source} must have a valid solar WCS (CTYPE, CRPIX, CRVAL, CDELT, PC), found "
            f"{smap.coordinate_system.axis1}, {smap.coordinate_system.axis2}{wrong}. Correct its header."
        )
        raise ValueError(msg)
    _check_rotation(cards, smap)
    distance = np.hypot(*((center + 180) % 360 - 180)) * u.deg
    if smap.coordinate_system.axis1.startswith("HPLN") and not distance < _MAX_FIELD:
        msg = (
            f"maps: {cards.source} must show the Sun, but the center of its image is {distance.to(u.arcsec):.3g} from "
            "that of the Sun. Correct CRPIX and CRVAL in its header."
        )
        raise ValueError(msg)


def _check_rotation(cards, smap):
    """Raise unless pixels are rectangles of the size of CDELT."""
    axes = smap.rotation_matrix * u.Quantity(smap.scale).value[:, np.newaxis]
    lengths, area = np.linalg.norm(axes, axis=0), np.abs(np.prod(u.Quantity(smap.scale).value))
    if abs(axes[:, 0] @ axes[:, 1]) > _MAX_SKEW * np.prod(lengths) or abs(np.prod(lengths) / area - 1) > _MAX_SKEW:
        msg = (
            f"maps: {cards.source} must have rectangular pixels of the size of CDELT, but PCi_j or CDi_j are no "
            f"rotation: {smap.rotation_matrix.tolist()}. Correct its header."
        )
        raise ValueError(msg)


def _is_unit(text):
    # SunPy knows one more spelling, and takes what it does not know as no unit.
    try:
        return text.lower() == "counts / pixel" or u.Unit(text) is not None
    except ValueError:
        return False
