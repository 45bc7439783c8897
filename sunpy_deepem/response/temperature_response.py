"""What AIA sees of plasma at each temperature: `TemperatureResponse`."""

import hashlib
from importlib import resources
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.table import QTable

from sunpy_deepem.calibrate import photometry as calibration
from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.temperature import LogTBins
from sunpy_deepem.units import RESPONSE_UNIT
from sunpy_deepem.utils.checks import one_time
from sunpy_deepem.utils.files import atomic_path, checked_path

__all__ = ["TemperatureResponse"]

_FORMAT = "sunpy_deepem response 1"
_PACKAGED_TABLE = "aia_v10_temperature_response.ecsv"
# Points inside a bin at which K is evaluated before averaging; more change the matrix by less than 1e-5.
_POINTS_PER_BIN = 100


class TemperatureResponse:
    r"""
    Temperature response K_i(log T) of the six channels, folded onto bins of log T.

    The intensity of channel i is :math:`g_i = \sum_j K_{ij} \mathrm{EM}_j`, where :math:`K_{ij}` is K_i averaged over
    bin j with the emission measure uniform per dex inside the bin.

    Parameters
    ----------
    temperature : `~astropy.units.Quantity`
        Temperatures, ascending, shape ``(n,)``.
    response : `~astropy.units.Quantity`
        Response in units of cm5 DN / (pix s), shape ``(6, n)``, channels in the order of `sunpy_deepem.CHANNELS`.
    bins : `LogTBins`, optional
        The bins onto which ``matrix`` is folded.
    channels : sequence of `int`, optional
        The channels along the first axis, by default all six.
    meta : `dict`, optional
        Where the response comes from.

    Raises
    ------
    ValueError
        If the shapes do not fit, temperatures do not ascend, a value is not finite, or the bins reach beyond the
        temperatures.
    TypeError
        If an argument has no unit.
    astropy.units.UnitsError
        If an argument has another unit than expected.

    References
    ----------
    Boerner et al. (2012), Solar Phys. 275, 41, https://doi.org/10.1007/s11207-011-9804-8

    Examples
    --------
    >>> from sunpy_deepem import TemperatureResponse
    >>> response = TemperatureResponse.default()
    >>> response.matrix.shape
    (6, 18)
    """

    @u.quantity_input
    def __init__(self, temperature: u.K, response: RESPONSE_UNIT, *, bins=None, channels=CHANNELS, meta=None):
        temperature, response = np.atleast_1d(temperature.to(u.K)), response.to(RESPONSE_UNIT)
        if temperature.ndim != 1 or temperature.size < 2 or not (np.diff(temperature) > 0).all():
            msg = f"temperature must be one-dimensional and ascending, found shape {temperature.shape}. Sort it first."
            raise ValueError(msg)
        self.channels = _checked_channels(channels, CHANNELS)
        if response.shape != (len(self.channels), temperature.size):
            msg = (
                f"response must have shape {(len(self.channels), temperature.size)} (channels {self.channels} by "
                f"temperatures), found {response.shape}."
            )
            raise ValueError(msg)
        if not np.isfinite(response.value).all():
            msg = (
                f"response must be finite, found {np.count_nonzero(~np.isfinite(response.value))} values that are not."
            )
            raise ValueError(msg)
        if not (temperature[0] > 0 and np.isfinite(temperature[-1])):
            msg = f"temperature must be positive and finite, found {temperature[0]:g} to {temperature[-1]:g}."
            raise ValueError(msg)
        self._temperature, self._response = temperature, response
        self.bins = LogTBins() if bins is None else bins
        if not isinstance(self.bins, LogTBins):
            msg = f"bins must be LogTBins, found {type(bins).__name__}. The default is LogTBins(5.5, 0.1, 18)."
            raise TypeError(msg)
        self.meta = dict(meta or {})
        log_t = np.log10(temperature.value)
        if self.bins.edges[0] < log_t[0] or self.bins.edges[-1] > log_t[-1]:
            msg = (
                f"bins reach from log T {self.bins.edges[0]} to {self.bins.edges[-1]}, but the response is known from "
                f"{log_t[0]:.2f} to {log_t[-1]:.2f} only. Use narrower bins or a response on more temperatures."
            )
            raise ValueError(msg)
        self._matrix = _fold(log_t, response.value, self.bins)

    @classmethod
    def default(
        cls, *, eve: bool = True, chiantifix: bool = True, obstime=None, bins: LogTBins | None = None
    ) -> "TemperatureResponse":
        """
        The packaged response: SolarSoft's V10, EVE-normalised, with chiantifix, at launch or at a date.

        Parameters
        ----------
        eve : `bool`, optional
            Scale each channel to agree with SDO/EVE.
        chiantifix : `bool`, optional
            Add the empirical correction for lines that CHIANTI lacks in the 94 Å band (Boerner et al. 2014), without
            which quiet Sun seems to hold plasma at log T above 6.6. It is meant for an EVE-normalised response.
        obstime : `~astropy.time.Time`, optional
            Time at which the response holds: the channels are degraded by the packaged table. At launch by default,
            which is the one for intensities that were themselves corrected for degradation.
        bins : `LogTBins`, optional
            Bins of log T, by default 18 with centres from 5.5 to 7.2.

        Returns
        -------
        `TemperatureResponse`

        Raises
        ------
        ValueError
            If ``obstime`` is not one time, or is not covered by the table of degradation.

        References
        ----------
        Boerner et al. (2014), Solar Phys. 289, 2377, https://doi.org/10.1007/s11207-013-0452-z
        """
        table = _packaged_table()
        obstime, degraded_by = _one_time(obstime), None
        response = u.Quantity([table[f"response_{channel}"] for channel in CHANNELS])
        if eve:
            factors = np.array([table.meta["eve_factors"][str(channel)] for channel in CHANNELS])
            response = response * factors[:, np.newaxis]
        if chiantifix:
            response[CHANNELS.index(94)] += table["chiantifix_94"]
        if obstime is not None:
            correction, degraded_by = calibration.correction_table()
            degraded = [calibration.degradation_factor(channel, obstime, table=correction) for channel in CHANNELS]
            response = response * np.array(degraded)[:, np.newaxis]
        meta = {
            "origin": f"packaged table {_PACKAGED_TABLE}",
            "source": table.meta["source"],
            "version": table.meta["version"],
            "eve": bool(eve),
            "chiantifix": bool(chiantifix),
            "obstime": _isot(obstime),
            "correction_table": degraded_by,
        }
        return cls(10 ** table["log_temperature"] * u.K, response, bins=bins, meta=meta)

    @classmethod
    def from_aiapy(
        cls,
        obstime=None,
        *,
        eve=True,
        chiantifix=True,
        crosstalk=True,
        wavelength_range=None,
        instrument_file=None,
        correction_table=None,
        emissivity=None,
        bins=None,
    ):
        """
        Compute the response: `aiapy.response.Channel` times a spectral emissivity, integrated over wavelength.

        With SolarSoft's V9 emissivity this is its V10 response, to better than 1e-4 in every channel.

        Parameters
        ----------
        obstime : `~astropy.time.Time`, optional
            Time at which the response holds: degradation and the epoch of EVE's factors. At launch by default, which is
            the one for intensities that were themselves corrected for degradation.
        eve : `bool`, optional
            Scale each channel to agree with SDO/EVE.
        chiantifix : `bool`, optional
            Add SolarSoft's empirical correction for lines that CHIANTI lacks in the 94 Å band. It was made for an
            EVE-normalised response, with SolarSoft's emissivity. It degrades along with its channel.
        crosstalk : `bool`, optional
            Add what 304 and 335 Å shed on 94 and 131 Å, and 131 on 335 Å.
        wavelength_range : `~astropy.units.Quantity`, optional
            Lower and upper limit of the integral, by default all that channels and emissivity have in common.
        instrument_file : `str`, `pathlib.Path` or `dict`, optional
            SolarSoft's ``aia_V*_all_fullinst.genx``, an IDL save of its parts as in the package pyeuvtools, or what
            `sunpy.io.special.read_genx` makes of the former; by default aiapy downloads it.
        correction_table : `None`, `str`, `pathlib.Path` or `~astropy.table.Table`, optional
            As in `sunpy_deepem.calibrate.correction_table`.
        emissivity : `~sunpy_deepem.response.Emissivity`, `str` or `pathlib.Path`, optional
            The emissivity or its file. By default the V9 one is downloaded, `Emissivity.download`.
        bins : `LogTBins`, optional
            Bins of log T, by default 18 with centres from 5.5 to 7.2.

        Returns
        -------
        `TemperatureResponse`
            On the temperatures of the emissivity.

        Raises
        ------
        ConnectionError
            If a file could not be downloaded; the message names what can be passed instead.
        FileNotFoundError
            If a file that was named is not there.
        TypeError
            If ``emissivity`` is something else.
        ValueError
            If a file holds something else, ``wavelength_range`` is not a range of the emissivity, or ``obstime`` is not
            one time or is not covered by the table of degradation.

        Warns
        -----
        sunpy.util.exceptions.SunpyUserWarning
            If the emissivity ends before the channels do, as xrtpy's at 400 Å, and ``wavelength_range`` says nothing.

        Notes
        -----
        AIA's filters let through light up to 900 Å, where the transition region is bright. Integrated up to 413 Å only,
        335 Å falls to 0.35 of its value at log T 5.5, 211 Å to 0.78, 171 and 193 Å to 0.9.

        References
        ----------
        Boerner et al. (2012), Solar Phys. 275, 41, https://doi.org/10.1007/s11207-011-9804-8

        Examples
        --------
        >>> from sunpy_deepem import TemperatureResponse
        >>> whole = TemperatureResponse.from_aiapy()  # doctest: +SKIP
        >>> short = TemperatureResponse.from_aiapy(wavelength_range=[1, 413] * u.angstrom)  # doctest: +SKIP
        >>> (short.matrix / whole.matrix)[5, 0]  # 335 Å at log T 5.5  # doctest: +SKIP
        """
        # Here, because reading spectra and instrument data needs much that the packaged response does not.
        from sunpy_deepem.response.instrument import aiapy_response

        obstime = _one_time(obstime)
        table, table_origin = calibration.correction_table(correction_table)
        temperature, response, meta = aiapy_response(
            emissivity,
            instrument_file,
            table,
            obstime=obstime,
            eve=eve,
            crosstalk=crosstalk,
            wavelength_range=wavelength_range,
        )
        if chiantifix:
            factor = 1 if obstime is None else calibration.degradation_factor(94, obstime, table=table)
            response[CHANNELS.index(94)] += _chiantifix(temperature) * factor
        meta |= {"chiantifix": bool(chiantifix), "obstime": _isot(obstime), "correction_table": table_origin}
        return cls(temperature, response, bins=bins, meta=meta)

    @property
    def temperature(self) -> u.Quantity:
        """Temperatures of the curves, `~astropy.units.Quantity` in K, shape ``(n,)``."""
        return self._temperature

    @property
    def response(self) -> u.Quantity:
        """The curves, `~astropy.units.Quantity` in cm5 DN / (pix s), shape ``(6, n)``."""
        return self._response

    @property
    def matrix(self) -> u.Quantity:
        """K folded onto the bins, `~astropy.units.Quantity` in cm5 DN / (pix s), shape ``(6, number of bins)``."""
        return u.Quantity(self._matrix, RESPONSE_UNIT)

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that tell two folded responses apart, to five significant figures."""
        figures = " ".join(f"{value:.4e}" for value in self._matrix.ravel())
        return hashlib.sha256(f"{self.bins!r} {figures}".encode()).hexdigest()[:16]

    def with_bins(self, bins: LogTBins) -> "TemperatureResponse":
        """Return the same response folded onto other ``bins`` (`LogTBins`)."""
        return type(self)(self.temperature, self.response, bins=bins, channels=self.channels, meta=self.meta)

    def with_channels(self, channels) -> "TemperatureResponse":
        """
        Return the response of some of the channels, for the forward model.

        Parameters
        ----------
        channels : sequence of `int`
            Wavelengths in Å, each one of ``channels``.

        Returns
        -------
        `TemperatureResponse`

        Raises
        ------
        ValueError
            If a channel is not there, such as 304 Å, which is optically thick, or 1600 Å.
        """
        channels = _checked_channels(channels, self.channels)
        rows = [self.channels.index(channel) for channel in channels]
        return type(self)(self.temperature, self.response[rows], bins=self.bins, channels=channels, meta=self.meta)

    def write(self, path: str | Path, *, overwrite: bool = False) -> None:
        """
        Write the curves, with units and origin, to an ECSV file, atomically.

        Parameters
        ----------
        path : `str` or `pathlib.Path`
        overwrite : `bool`, optional
            Whether a file that is there may be replaced.

        Raises
        ------
        FileExistsError
            If there is a file and ``overwrite`` is `False`.
        """
        table = QTable({"temperature": self.temperature}, meta={"format": _FORMAT, "origin": self.meta})
        for channel, curve in zip(self.channels, self.response, strict=True):
            table[f"response_{channel}"] = curve
        with atomic_path(path, overwrite=overwrite) as partial:
            table.write(partial, format="ascii.ecsv")

    @classmethod
    def read(cls, path, *, bins: LogTBins | None = None) -> "TemperatureResponse":
        """
        Read curves that `write` wrote.

        Parameters
        ----------
        path : `str` or `pathlib.Path`
        bins : `LogTBins`, optional
            The bins onto which to fold them.

        Returns
        -------
        `TemperatureResponse`

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is not ECSV or holds no response.
        """
        path = checked_path(path)
        if not path.is_file():
            msg = f"There is no file {path}."
            raise FileNotFoundError(msg)
        try:
            table = QTable.read(path, format="ascii.ecsv")
        except Exception as error:  # astropy lets through whatever its readers raise
            msg = f"{path} cannot be read as ECSV ({type(error).__name__}: {error})."
            raise ValueError(msg) from error
        if table.meta.get("format") != _FORMAT:
            msg = f"{path} holds no response: it lacks format: {_FORMAT}. Responses are written by their write method."
            raise ValueError(msg)
        try:
            channels = tuple(int(name.removeprefix("response_")) for name in table.colnames if name != "temperature")
            curves = u.Quantity([table[f"response_{channel}"] for channel in channels])
            facts = {"channels": channels, "meta": table.meta["origin"]}
            temperature = table["temperature"]
        except (KeyError, ValueError, TypeError) as error:
            msg = f"{path} holds no whole response ({type(error).__name__}: {error}). Write it again."
            raise ValueError(msg) from error
        return cls(temperature, curves, bins=bins, **facts)

    def plot(self, axes=None):
        """
        Draw the six curves against log T.

        Parameters
        ----------
        axes : `~matplotlib.axes.Axes`, optional
            Where to draw, by default the current axes.

        Returns
        -------
        `~matplotlib.axes.Axes`
        """
        from sunpy_deepem.visualization.figures import plot_response

        return plot_response(self, axes=axes)

    def __eq__(self, other):
        if not isinstance(other, TemperatureResponse):
            return NotImplemented
        return self.fingerprint == other.fingerprint

    def __hash__(self):
        return hash(self.fingerprint)

    def __repr__(self):
        told = ", ".join(
            f"{key}={self.meta[key]}" for key in ("version", "eve", "chiantifix", "obstime") if key in self.meta
        )
        return f"<TemperatureResponse {self.fingerprint}: {len(self.channels)} channels, {self.bins!r}, {told}>"


def _checked_channels(channels, known):
    """Return ``channels`` as a tuple, or raise where one is not ``known`` or is there twice."""
    given = channels
    try:
        channels = tuple(int(channel) for channel in np.atleast_1d(channels))
        whole = np.array_equal(channels, np.atleast_1d(given))
    except (TypeError, ValueError, OverflowError):
        channels, whole = (), False
    if not whole or not channels or len(set(channels)) != len(channels) or not set(channels) <= set(known):
        msg = (
            f"channels must be some of {tuple(known)} Å, each once, found {given}. 304 Å is optically thick and the "
            "ultraviolet channels are not coronal, so that no emission measure gives their intensity."
        )
        raise ValueError(msg)
    return channels


def _packaged_table():
    with resources.as_file(resources.files("sunpy_deepem.data") / _PACKAGED_TABLE) as path:
        return QTable.read(path)


def _chiantifix(temperature):
    """Return SolarSoft's correction of the 94 Å response at other temperatures, zero outside its own."""
    table = _packaged_table()
    log_t, fix = np.log10(temperature.to_value(u.K)), table["chiantifix_94"].to_value(RESPONSE_UNIT)
    return np.interp(log_t, table["log_temperature"].value, fix, left=0, right=0) * RESPONSE_UNIT


def _one_time(obstime):
    if obstime is None:
        return None
    return one_time(obstime, "obstime")


def _isot(obstime):
    return None if obstime is None else obstime.utc.isot


def _fold(log_t, response, bins):
    """Average K over each bin: interpolated linearly in log T, at the midpoints of a fine grid."""
    offsets = (np.arange(_POINTS_PER_BIN) + 0.5) / _POINTS_PER_BIN * bins.step
    fine = bins.edges[:-1, np.newaxis] + offsets
    return np.stack([np.interp(fine, log_t, curve).mean(axis=1) for curve in response])
