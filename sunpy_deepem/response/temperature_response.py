"""The temperature response of the channels: `TemperatureResponse`."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.table import QTable

from sunpy_deepem.calibrate.degradation import correction_table as get_correction_table
from sunpy_deepem.calibrate.degradation import degradation_factor, known_until
from sunpy_deepem.channels import CHANNELS, named_channels, some_channels
from sunpy_deepem.response.packaged import PACKAGED_TABLE, chiantifix_94, packaged_table
from sunpy_deepem.temperature import LogTBins
from sunpy_deepem.units import RESPONSE_UNIT
from sunpy_deepem.utils.checks import one_time
from sunpy_deepem.utils.files import atomic_path, checked_path

__all__ = ["TemperatureResponse"]

_FORMAT = "sunpy_deepem response 1"
# Points per bin at which K is averaged; more points change the matrix by less than 1e-5.
_POINTS_PER_BIN = 100


class TemperatureResponse:
    r"""
    Temperature response K_i(log T) of the channels, folded onto bins of log T.

    The intensity of channel i is :math:`g_i = \sum_j K_{ij} \mathrm{EM}_j`, where :math:`K_{ij}` is K_i averaged over
    bin j with the emission measure uniform per dex inside the bin.

    Parameters
    ----------
    temperature : `~astropy.units.Quantity`
        Temperatures, ascending, shape ``(n,)``.
    curves : `~astropy.units.Quantity`
        Response in cm5 DN / (pix s), shape ``(number of channels, n)``.
    bins : `LogTBins`, optional
        Bins of ``matrix``.
    channels : sequence of `int` or `str`, optional
        Channels along the first axis, by default `sunpy_deepem.CHANNELS`: wavelengths of AIA's channels in Å, and names
        of any others.
    meta : `dict`, optional
        Origin of the response.

    Raises
    ------
    ValueError
        If shapes do not match, temperatures do not ascend, values are not finite, or the bins extend beyond the
        temperatures.
    TypeError
        If an argument has no unit.
    astropy.units.UnitsError
        If an argument has an incompatible unit.

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
    def __init__(self, temperature: u.K, curves: RESPONSE_UNIT, *, bins=None, channels=CHANNELS, meta=None):
        temperature, curves = np.atleast_1d(temperature.to(u.K)), curves.to(RESPONSE_UNIT)
        if temperature.ndim != 1 or temperature.size < 2 or not (np.diff(temperature) > 0).all():
            msg = f"temperature must be one-dimensional and ascending, found shape {temperature.shape}. Sort it first."
            raise ValueError(msg)
        self.channels = named_channels(channels)
        if curves.shape != (len(self.channels), temperature.size):
            msg = (
                f"curves must have shape {(len(self.channels), temperature.size)} (channels {self.channels} by "
                f"temperatures), found {curves.shape}."
            )
            raise ValueError(msg)
        if bad := np.count_nonzero(~np.isfinite(curves.value)):
            msg = f"curves must be finite, found {bad} values that are not. Replace them, for example by zero."
            raise ValueError(msg)
        if not (temperature[0] > 0 and np.isfinite(temperature[-1])):
            msg = f"temperature must be positive and finite, found {temperature[0]:g} to {temperature[-1]:g}."
            raise ValueError(msg)
        self._temperature, self._curves = temperature, curves
        self.bins = LogTBins() if bins is None else bins
        if not isinstance(self.bins, LogTBins):
            msg = f"bins must be LogTBins, found {type(bins).__name__}. The default is LogTBins(5.5, 0.1, 18)."
            raise TypeError(msg)
        self.meta = dict(meta or {})
        log_t = np.log10(temperature.value)
        if self.bins.edges[0] < log_t[0] or self.bins.edges[-1] > log_t[-1]:
            msg = (
                f"bins extend from log T {self.bins.edges[0]} to {self.bins.edges[-1]}, but the response only from "
                f"{log_t[0]:.2f} to {log_t[-1]:.2f}. Use narrower bins or a response on more temperatures."
            )
            raise ValueError(msg)
        self._matrix = _fold(log_t, curves.value, self.bins)

    @classmethod
    def default(
        cls, *, eve: bool = True, chiantifix: bool = True, obstime=None, correction_table=None, bins=None
    ) -> "TemperatureResponse":
        """
        Read the packaged response: SolarSoft's V10, by default EVE-normalised and with chiantifix.

        Parameters
        ----------
        eve : `bool`, optional
            Scale each channel to agree with SDO/EVE.
        chiantifix : `bool`, optional
            Add the empirical correction for lines missing from CHIANTI in the 94 Å band (Boerner et al. 2014). Without
            it, fits of quiet Sun put emission above log T 6.6. It is meant for an EVE-normalised response.
        obstime : `~astropy.time.Time`, optional
            Time of the response, to which the channels are degraded. The default is launch, which suits intensities
            that are corrected for degradation.
        correction_table : optional
            As for `sunpy_deepem.calibrate.correction_table`, by default the packaged table.
        bins : `LogTBins`, optional
            Bins of log T, by default 18 with centers from 5.5 to 7.2.

        Returns
        -------
        `TemperatureResponse`

        Raises
        ------
        ValueError
            If ``obstime`` is not a single time, or lies outside the degradation table.

        Warns
        -----
        sunpy.util.exceptions.SunpyUserWarning
            If the degradation at ``obstime`` is an extrapolation.

        References
        ----------
        Boerner et al. (2014), Solar Phys. 289, 2377, https://doi.org/10.1007/s11207-013-0452-z
        """
        table = packaged_table()
        obstime, degraded_by = _checked_time(obstime), None
        curves = u.Quantity([table[f"response_{channel}"] for channel in CHANNELS])
        if eve:
            factors = np.array([table.meta["eve_factors"][str(channel)] for channel in CHANNELS])
            curves = curves * factors[:, np.newaxis]
        if chiantifix:
            curves[CHANNELS.index(94)] += table["chiantifix_94"]
        if obstime is not None:
            correction, degraded_by = get_correction_table(correction_table)
            known_until(correction, obstime)
            degraded = [degradation_factor(channel, obstime, table=correction) for channel in CHANNELS]
            curves = curves * np.array(degraded)[:, np.newaxis]
        meta = {
            "origin": f"packaged table {PACKAGED_TABLE}",
            "source": table.meta["source"],
            "version": table.meta["version"],
            "eve": bool(eve),
            "chiantifix": bool(chiantifix),
            "obstime": _isot(obstime),
            "correction_table": degraded_by,
        }
        return cls(10 ** table["log_temperature"] * u.K, curves, bins=bins, meta=meta)

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
        Compute the response from `aiapy.response.Channel` and a spectral emissivity.

        With SolarSoft's V9 emissivity this agrees with its V10 response to better than 1e-4 in every channel.

        Parameters
        ----------
        obstime : `~astropy.time.Time`, optional
            Time of the response, for degradation and EVE's factors. The default is launch, which suits intensities
            that are corrected for degradation.
        eve : `bool`, optional
            Scale each channel to agree with SDO/EVE.
        chiantifix : `bool`, optional
            Add SolarSoft's empirical correction for lines missing from CHIANTI in the 94 Å band. It is made for an
            EVE-normalised response with SolarSoft's emissivity, and is degraded with its channel.
        crosstalk : `bool`, optional
            Add the light of 304 Å in 94 Å, of 335 Å in 131 Å and of 131 Å in 335 Å.
        wavelength_range : `~astropy.units.Quantity`, optional
            Lower and upper limit of the integral, by default the range common to channels and emissivity.
        instrument_file : `str`, `pathlib.Path` or `dict`, optional
            SolarSoft's ``aia_V*_all_fullinst.genx``, its contents as `sunpy.io.special.read_genx` returns them, or an
            IDL save of its parts as in the package pyeuvtools; by default aiapy downloads it.
        correction_table : `None`, `str`, `pathlib.Path` or `~astropy.table.Table`, optional
            As in `sunpy_deepem.calibrate.correction_table`.
        emissivity : `~sunpy_deepem.response.Emissivity`, `str` or `pathlib.Path`, optional
            The emissivity or its file, by default V9 by `Emissivity.download`.
        bins : `LogTBins`, optional
            Bins of log T, by default 18 with centers from 5.5 to 7.2.

        Returns
        -------
        `TemperatureResponse`
            At the temperatures of the emissivity.

        Raises
        ------
        ConnectionError
            If a download fails; the message names an alternative.
        FileNotFoundError
            If a given file does not exist.
        TypeError
            If ``emissivity`` has another type.
        ValueError
            If a file has other contents, ``wavelength_range`` does not overlap the emissivity, or ``obstime`` is not a
            single time or lies outside the degradation table.

        Warns
        -----
        sunpy.util.exceptions.SunpyUserWarning
            If the emissivity ends before the channels do, as xrtpy's at 400 Å, and ``wavelength_range`` is not given,
            or if the degradation at ``obstime`` is an extrapolation.

        Notes
        -----
        AIA's filters transmit up to 900 Å, where the transition region is bright. Integrated up to 413 Å only, the
        response at log T 5.5 falls to 0.35 of its value in 335 Å, 0.78 in 211 Å, and 0.9 in 171 and 193 Å.

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
        # Imported late, because the packaged response needs no reader of spectra and instrument data.
        from sunpy_deepem.response.instrument import aiapy_response

        obstime = _checked_time(obstime)
        table, table_origin = get_correction_table(correction_table)
        temperature, curves, meta = aiapy_response(
            emissivity,
            instrument_file,
            table,
            obstime=obstime,
            eve=eve,
            crosstalk=crosstalk,
            wavelength_range=wavelength_range,
        )
        known_until(table, obstime)
        if chiantifix:
            factor = 1 if obstime is None else degradation_factor(94, obstime, table=table)
            curves[CHANNELS.index(94)] += chiantifix_94(temperature) * factor
        meta |= {"chiantifix": bool(chiantifix), "obstime": _isot(obstime), "correction_table": table_origin}
        return cls(temperature, curves, bins=bins, meta=meta)

    @classmethod
    def from_curves(cls, temperature, curves, *, bins: LogTBins | None = None, meta=None) -> "TemperatureResponse":
        """
        Create the response of channels of any instruments.

        Methods, training and networks accept it, for intensities in the order of ``curves``. Only `sunpy_deepem.invert`
        needs AIA's channels, as it reads AIA maps.

        Parameters
        ----------
        temperature : `~astropy.units.Quantity`
            Temperatures, ascending, shape ``(n,)``.
        curves : `dict`
            Response in cm5 DN / (pix s), shape ``(n,)``, by channel: the wavelength in Å of a channel of AIA, or the
            name of another, such as ``"XRT Be-thin"``. Intensities must be per the same pixel.
        bins : `LogTBins`, optional
            Bins of ``matrix``.
        meta : `dict`, optional
            Origin of the response.

        Returns
        -------
        `TemperatureResponse`

        Raises
        ------
        TypeError, ValueError
            If an argument is invalid, as for `TemperatureResponse`.

        See Also
        --------
        join : Append the channels of another response.

        Examples
        --------
        >>> from sunpy_deepem import TemperatureResponse
        >>> temperature = np.logspace(5, 8, 61) * u.K
        >>> flat = np.full(61, 1e-26) * u.Unit("cm5 DN / (pix s)")
        >>> TemperatureResponse.from_curves(temperature, {"first": flat, "second": 2 * flat}).channels
        ('first', 'second')
        """
        if not isinstance(curves, Mapping) or not curves:
            msg = f"curves must be a dict with the response of each channel, found {type(curves).__name__}."
            raise TypeError(msg)
        return cls(temperature, u.Quantity(list(curves.values())), bins=bins, channels=tuple(curves), meta=meta)

    def join(self, other: "TemperatureResponse") -> "TemperatureResponse":
        """
        Return the response of the channels of this and another response.

        Parameters
        ----------
        other : `TemperatureResponse`
            Interpolated in log T onto the temperatures of this response; its channels must have other names.

        Returns
        -------
        `TemperatureResponse`
            On the bins of this response and the temperatures that both cover.

        Raises
        ------
        ValueError
            If a channel is in both, or the temperatures do not cover the bins.

        Examples
        --------
        >>> from sunpy_deepem import TemperatureResponse
        >>> temperature = np.logspace(5, 8, 61) * u.K
        >>> flat = np.full(61, 1e-26) * u.Unit("cm5 DN / (pix s)")
        >>> TemperatureResponse.default().join(TemperatureResponse.from_curves(temperature, {"mine": flat})).channels
        (94, 131, 171, 193, 211, 335, 'mine')
        """
        log_t, theirs = np.log10(self.temperature.value), np.log10(other.temperature.value)
        both = (log_t >= theirs[0]) & (log_t <= theirs[-1])
        added = [np.interp(log_t[both], theirs, curve) for curve in other.curves.value]
        return type(self)(
            self.temperature[both],
            np.concatenate([self.curves[:, both], added * RESPONSE_UNIT]),
            bins=self.bins,
            channels=self.channels + other.channels,
            meta={"joined": [self.meta, other.meta]},
        )

    @property
    def temperature(self) -> u.Quantity:
        """Temperatures of the curves, `~astropy.units.Quantity` in K, shape ``(n,)``."""
        return self._temperature

    @property
    def curves(self) -> u.Quantity:
        """Response at ``temperature`` in cm5 DN / (pix s), shape ``(number of channels, n)``."""
        return self._curves

    @property
    def matrix(self) -> u.Quantity:
        """Response folded onto the bins in cm5 DN / (pix s), shape ``(number of channels, number of bins)``."""
        return u.Quantity(self._matrix, RESPONSE_UNIT)

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that identify the folded response to five significant figures."""
        figures = " ".join(f"{value:.4e}" for value in self._matrix.ravel())
        named = f" {self.channels}" if any(isinstance(channel, str) for channel in self.channels) else ""
        return hashlib.sha256(f"{self.bins!r} {figures}{named}".encode()).hexdigest()[:16]

    def with_bins(self, bins: LogTBins) -> "TemperatureResponse":
        """Return the same response folded onto other ``bins`` (`LogTBins`)."""
        return type(self)(self.temperature, self.curves, bins=bins, channels=self.channels, meta=self.meta)

    def with_channels(self, channels) -> "TemperatureResponse":
        """
        Return the response of some of the channels.

        Parameters
        ----------
        channels : sequence of `int` or `str`
            A subset of ``channels``.

        Returns
        -------
        `TemperatureResponse`

        Raises
        ------
        ValueError
            If a channel is unknown, such as 304 Å, which is optically thick, or 1600 Å.
        """
        channels = some_channels(channels, self.channels)
        rows = [self.channels.index(channel) for channel in channels]
        return type(self)(self.temperature, self.curves[rows], bins=self.bins, channels=channels, meta=self.meta)

    def write(self, path: str | Path, *, overwrite: bool = False) -> None:
        """
        Write the curves with units and origin to an ECSV file, atomically.

        Parameters
        ----------
        path : `str` or `pathlib.Path`
        overwrite : `bool`, optional
            Whether to replace an existing file.

        Raises
        ------
        FileExistsError
            If the file exists and ``overwrite`` is `False`.
        """
        table = QTable({"temperature": self.temperature}, meta={"format": _FORMAT, "origin": self.meta})
        for channel, curve in zip(self.channels, self.curves, strict=True):
            table[f"response_{channel}"] = curve
        with atomic_path(path, overwrite=overwrite) as partial:
            table.write(partial, format="ascii.ecsv")

    @classmethod
    def read(cls, path, *, bins: LogTBins | None = None) -> "TemperatureResponse":
        """
        Read a response from a file written by `write`.

        Parameters
        ----------
        path : `str` or `pathlib.Path`
        bins : `LogTBins`, optional
            Bins of the matrix.

        Returns
        -------
        `TemperatureResponse`

        Raises
        ------
        FileNotFoundError
            If the file does not exist.
        ValueError
            If the file is not ECSV or contains no response.
        """
        path = checked_path(path)
        if not path.is_file():
            msg = f"path must be an existing file, found {path}."
            raise FileNotFoundError(msg)
        try:
            table = QTable.read(path, format="ascii.ecsv")
        except Exception as error:  # astropy's readers raise many types
            msg = f"{path} cannot be read as ECSV ({type(error).__name__}: {error}). Write it again."
            raise ValueError(msg) from error
        if table.meta.get("format") != _FORMAT:
            msg = f"{path} contains no response (no format: {_FORMAT}). Use a file of TemperatureResponse.write."
            raise ValueError(msg)
        try:
            names = [name for name in table.colnames if name != "temperature"]
            channels = tuple(_channel_of_column(name) for name in names)
            curves = u.Quantity([table[name] for name in names])
            temperature, meta = table["temperature"], table.meta["origin"]
        except (KeyError, ValueError, TypeError) as error:
            msg = f"{path} contains no complete response ({type(error).__name__}: {error}). Write it again."
            raise ValueError(msg) from error
        return cls(temperature, curves, bins=bins, channels=channels, meta=meta)

    def __eq__(self, other):
        if not isinstance(other, TemperatureResponse):
            return NotImplemented
        return self.fingerprint == other.fingerprint

    def __hash__(self):
        return hash(self.fingerprint)

    def __repr__(self):
        shown = [f"{key}={self.meta[key]}" for key in ("version", "eve", "chiantifix", "obstime") if key in self.meta]
        facts = ", ".join([f"{len(self.channels)} channels", repr(self.bins), *shown])
        return f"<TemperatureResponse {self.fingerprint}: {facts}>"


def _channel_of_column(name):
    """Return the channel of a column of a file: AIA's are numbers."""
    channel = name.removeprefix("response_")
    return int(channel) if channel.isdigit() else channel


def _checked_time(obstime):
    return None if obstime is None else one_time(obstime, "obstime")


def _isot(obstime):
    return None if obstime is None else obstime.utc.isot


def _fold(log_t, curves, bins):
    """Average K over each bin, interpolated linearly in log T at the midpoints of a fine grid."""
    offsets = (np.arange(_POINTS_PER_BIN) + 0.5) / _POINTS_PER_BIN * bins.step
    fine = bins.edges[:-1, np.newaxis] + offsets
    return np.stack([np.interp(fine, log_t, curve).mean(axis=1) for curve in curves])
