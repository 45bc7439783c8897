"""What AIA sees of plasma at each temperature: `TemperatureResponse`."""

import hashlib
from importlib import resources

import astropy.units as u
import numpy as np
from astropy.table import QTable

from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.temperature import LogTBins

__all__ = ["RESPONSE_UNIT", "TemperatureResponse"]

#: Unit of the temperature response; the pixel is AIA's native 0.6 arcsec one.
RESPONSE_UNIT = u.cm**5 * u.DN / (u.pix * u.s)

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
    meta : `dict`, optional
        Where the response comes from.

    Raises
    ------
    ValueError
        If the shapes do not fit, temperatures do not ascend, a value is not finite, or the bins reach beyond the
        temperatures.
    astropy.units.UnitsError
        If an argument has no unit or another than expected.

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
    def __init__(self, temperature: u.K, response: RESPONSE_UNIT, *, bins=None, meta=None):
        temperature, response = np.atleast_1d(temperature.to(u.K)), response.to(RESPONSE_UNIT)
        if temperature.ndim != 1 or temperature.size < 2 or not (np.diff(temperature) > 0).all():
            msg = f"temperature must be one-dimensional and ascending, found shape {temperature.shape}. Sort it first."
            raise ValueError(msg)
        if response.shape != (len(CHANNELS), temperature.size):
            msg = (
                f"response must have shape {(len(CHANNELS), temperature.size)} (channels {CHANNELS} by temperatures), "
                f"found {response.shape}."
            )
            raise ValueError(msg)
        if not np.isfinite(response.value).all():
            msg = (
                f"response must be finite, found {np.count_nonzero(~np.isfinite(response.value))} values that are not."
            )
            raise ValueError(msg)
        self._temperature, self._response = temperature, response
        self.bins = LogTBins() if bins is None else bins
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
    def default(cls, *, eve=True, chiantifix=True, bins=None):
        """
        The packaged response: SolarSoft's V10 at launch, EVE-normalised, with chiantifix.

        Parameters
        ----------
        eve : `bool`, optional
            Scale each channel to agree with SDO/EVE.
        chiantifix : `bool`, optional
            Add the empirical correction for lines that CHIANTI lacks in the 94 Å band (Boerner et al. 2014), without
            which quiet Sun seems to hold plasma at log T above 6.6. It is meant for an EVE-normalised response.
        bins : `LogTBins`, optional
            Bins of log T, by default 18 with centres from 5.5 to 7.2.

        Returns
        -------
        `TemperatureResponse`

        References
        ----------
        Boerner et al. (2014), Solar Phys. 289, 2377, https://doi.org/10.1007/s11207-013-0452-z
        """
        with resources.as_file(resources.files("sunpy_deepem.data") / _PACKAGED_TABLE) as path:
            table = QTable.read(path)
        response = u.Quantity([table[f"response_{channel}"] for channel in CHANNELS])
        if eve:
            factors = np.array([table.meta["eve_factors"][str(channel)] for channel in CHANNELS])
            response = response * factors[:, np.newaxis]
        if chiantifix:
            response[CHANNELS.index(94)] += table["chiantifix_94"]
        meta = {
            "origin": f"packaged table {_PACKAGED_TABLE}",
            "source": table.meta["source"],
            "version": table.meta["version"],
            "eve": bool(eve),
            "chiantifix": bool(chiantifix),
            "obstime": None,
        }
        return cls(10 ** table["log_temperature"] * u.K, response, bins=bins, meta=meta)

    @property
    def temperature(self):
        """Temperatures of the curves, `~astropy.units.Quantity` in K, shape ``(n,)``."""
        return self._temperature

    @property
    def response(self):
        """The curves, `~astropy.units.Quantity` in cm5 DN / (pix s), shape ``(6, n)``."""
        return self._response

    @property
    def matrix(self):
        """K folded onto the bins, `~astropy.units.Quantity` in cm5 DN / (pix s), shape ``(6, number of bins)``."""
        return self._matrix << RESPONSE_UNIT

    @property
    def fingerprint(self):
        """Sixteen hexadecimal digits that tell two folded responses apart, to five significant figures."""
        figures = " ".join(f"{value:.4e}" for value in self._matrix.ravel())
        return hashlib.sha256(f"{self.bins!r} {figures}".encode()).hexdigest()[:16]

    def with_bins(self, bins):
        """Return the same response folded onto other ``bins`` (`LogTBins`)."""
        return type(self)(self.temperature, self.response, bins=bins, meta=self.meta)

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
        from sunpy_deepem.visualization import plot_response

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
        return f"<TemperatureResponse {self.fingerprint}: {len(CHANNELS)} channels, {self.bins!r}, {told}>"


def _fold(log_t, response, bins):
    """Average K over each bin: interpolated linearly in log T, at the midpoints of a fine grid."""
    offsets = (np.arange(_POINTS_PER_BIN) + 0.5) / _POINTS_PER_BIN * bins.step
    fine = bins.edges[:-1, np.newaxis] + offsets
    return np.stack([np.interp(fine, log_t, curve).mean(axis=1) for curve in response])
