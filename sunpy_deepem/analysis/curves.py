"""EM curves of pixels and regions."""

from dataclasses import dataclass
from functools import partial

import astropy.units as u
import numpy as np
from astropy.table import QTable

from sunpy_deepem.analysis.derived import band_em, em_weighted_log_t, thermal_width
from sunpy_deepem.analysis.intervals import quantiles
from sunpy_deepem.analysis.loci import em_loci
from sunpy_deepem.forward import synthetic_intensity
from sunpy_deepem.quality import Quality
from sunpy_deepem.response.temperature_response import TemperatureResponse
from sunpy_deepem.temperature import BANDS, LogTBins
from sunpy_deepem.units import COVERAGE, EM_UNIT, INTENSITY_UNIT, MIN_CHANNELS
from sunpy_deepem.utils.regions import resolve_region
from sunpy_deepem.utils.uncertainty import common_error, sigma_of_mean
from sunpy_deepem.utils.wcs import sky_wcs

__all__ = ["EMCurve", "em_curve"]


# Quantities that do not depend on the unit of the EM.
_SHAPE = {"log_t": em_weighted_log_t, "width": thermal_width}


@dataclass(frozen=True, eq=False)
class EMCurve:
    """
    Mean EM of a region against log T, with its observed and synthetic intensities, as returned by `DEMCube.curve`.

    Attributes
    ----------
    bins : `LogTBins`
    em : `~astropy.units.Quantity`
        Mean EM per bin in cm^-5, shape ``(number of bins,)``.
    draws : `~astropy.units.Quantity` or `None`
        Draws from the joint posterior of the mean EM in cm^-5, shape ``(n, number of bins)``; `None` without a
        posterior.
    intensity, intensity_uncertainty : `~astropy.units.Quantity`
        Mean observed intensity and its σ, DN s^-1 pix^-1, shape ``(6,)``. The intensity is NaN in channels that some of
        the pixels lack.
    synthetic : `~astropy.units.Quantity`
        Synthetic intensity of ``em``, same unit and shape.
    n_pixels : `int`
        Number of pixels averaged.
    response : `TemperatureResponse`
        The response of the cube, on its bins.
    """

    bins: LogTBins
    em: u.Quantity
    draws: u.Quantity | None
    intensity: u.Quantity
    intensity_uncertainty: u.Quantity
    synthetic: u.Quantity
    n_pixels: int
    response: TemperatureResponse

    @property
    def median(self):
        """Median of the posterior of each bin in cm^-5, or `None` without a posterior."""
        return self._quantile(0.5)

    @property
    def lower(self):
        """Lower limit of the 68 % interval of each bin in cm^-5, or `None` without a posterior."""
        return self._quantile((1 - COVERAGE) / 2)

    @property
    def upper(self):
        """Upper limit of the 68 % interval of each bin in cm^-5, or `None` without a posterior."""
        return self._quantile((1 + COVERAGE) / 2)

    @property
    def uncertainty(self):
        """Half the 68 % interval of each bin in cm^-5, or `None` without a posterior."""
        return None if self.draws is None else (self.upper - self.lower) / 2

    def _quantile(self, fraction):
        return None if self.draws is None else self.quantiles(fraction)

    def quantiles(self, q):
        """
        Return quantiles of the posterior of each bin.

        Parameters
        ----------
        q : `float` or sequence of `float`
            Quantiles between 0 and 1.

        Returns
        -------
        `~astropy.units.Quantity`
            In cm^-5, shape ``(number of bins,)`` for one quantile, ``(len(q), number of bins)`` for several.

        Raises
        ------
        ValueError
            If the curve has no posterior, or a quantile is not between 0 and 1.
        """
        return quantiles(self._draws_or_error().value, q) << EM_UNIT

    def synthetic_quantiles(self, q):
        """
        Return quantiles of the synthetic intensities over the posterior.

        Parameters
        ----------
        q : `float` or sequence of `float`
            Quantiles between 0 and 1.

        Returns
        -------
        `~astropy.units.Quantity`
            In DN s^-1 pix^-1, shape ``(6,)`` for one quantile, ``(len(q), 6)`` for several.

        Raises
        ------
        ValueError
            As of `quantiles`.
        """
        synthetic = synthetic_intensity(self._draws_or_error().T, self.response)
        return quantiles(synthetic.value.T, q) << INTENSITY_UNIT

    def _draws_or_error(self):
        if self.draws is None:
            msg = "The curve has no posterior, so no quantiles. Pass method= to DEMCube.curve, such as DeepEM.load()."
            raise ValueError(msg)
        return self.draws

    def products(self, bands=BANDS):
        """
        Return quantities that are derived from the curve, with their 68 % intervals.

        Parameters
        ----------
        bands : sequence of pairs of `float`, optional
            Ranges of log10(T/K), as for `DEMCube.band_maps`.

        Returns
        -------
        `dict`
            Value and limits of the interval, NaN without a posterior, of ``total_em`` and the EM of each band, such as
            ``em_6.6_7.0``, in cm^-5; of ``log_t``, the EM-weighted log10(T/K); and of ``width`` in dex.

        Raises
        ------
        ValueError
            If a band is empty or exceeds the bins.
        """
        functions = {"total_em": partial(band_em, bins=self.bins)}
        functions |= {f"em_{low}_{high}": partial(band_em, bins=self.bins, low=low, high=high) for low, high in bands}
        functions |= {name: partial(each, bins=self.bins) for name, each in _SHAPE.items()}
        found = {}
        for name, function in functions.items():
            limits = np.full(2, np.nan)
            if self.draws is not None:
                limits = quantiles(function(self.draws.value.T), ((1 - COVERAGE) / 2, (1 + COVERAGE) / 2))
            values = function(self.em.value), *limits
            found[name] = values if name in _SHAPE else tuple(values << EM_UNIT)
        return found

    def to_table(self):
        """
        Return the curve as a table.

        Returns
        -------
        `~astropy.table.QTable`
            Columns ``log_t``, ``em``, the mean, and, with a posterior, ``median``, ``lower`` and ``upper``; the number
            of pixels is in its meta.
        """
        table = QTable({"log_t": self.bins.centers, "em": self.em}, meta={"n_pixels": self.n_pixels})
        if self.draws is not None:
            table["median"], table["lower"], table["upper"] = self.median, self.lower, self.upper
        return table

    def intensity_table(self):
        """
        Return observed and synthetic intensities of the channels as a table.

        Returns
        -------
        `~astropy.table.QTable`
            Columns ``channel``, ``observed``, ``uncertainty``, ``synthetic`` and ``residual``, (observed − synthetic)
            over the uncertainty; with a posterior also ``lower`` and ``upper``, the 68 % interval of the synthetic
            intensity.
        """
        columns = {"observed": self.intensity, "uncertainty": self.intensity_uncertainty, "synthetic": self.synthetic}
        table = QTable({"channel": self.response.channels} | columns)
        table["residual"] = ((self.intensity - self.synthetic) / self.intensity_uncertainty).to_value(u.one)
        if self.draws is not None:
            table["lower"], table["upper"] = self.synthetic_quantiles(((1 - COVERAGE) / 2, (1 + COVERAGE) / 2))
        return table

    def plot(self, axes=None, *, n_draws=0, label="EM", color="black"):
        """
        Plot the EM with its 68 % interval; `DEMCube.plot_profile` adds the EM loci.

        With a posterior the thick line is the median, which is inside the interval, and the dotted line the mean.

        Parameters
        ----------
        axes : `~matplotlib.axes.Axes`, optional
            Axes to draw on, by default the current ones.
        n_draws : `int`, optional
            Number of single draws to show.
        label : `str`, optional
            Name of the curve in the legend.
        color : optional
            Color of the curve and its interval.

        Returns
        -------
        `~matplotlib.axes.Axes`
        """
        if axes is None:
            import matplotlib.pyplot as plt

            axes = plt.gca()
        edges, line = self.bins.edges, {"baseline": None, "color": color}
        if self.draws is None:
            axes.stairs(self.em.value, edges, **line, linewidth=2, label=label)
        else:
            low, high = self.lower.value, self.upper.value
            band = f"{label}, {100 * COVERAGE:.0f} % interval"
            axes.stairs(high, edges, baseline=low, fill=True, color=color, alpha=0.25, linewidth=0, label=band)
            for draw in self.draws[:n_draws].value:
                axes.stairs(draw, edges, **line, alpha=0.4, linewidth=0.5)
            axes.stairs(self.median.value, edges, **line, linewidth=2, label=f"{label}, median")
            axes.stairs(self.em.value, edges, **line, linewidth=1, linestyle=":", label=f"{label}, mean")
        axes.set(xlabel=r"$\log_{10}$ (T / K)", ylabel="EM per bin (cm$^{-5}$)", xlim=edges[[0, -1]])
        return axes

    def loci(self, response=None):
        """
        Return the EM loci of the mean intensities, see `em_loci`.

        Parameters
        ----------
        response : `TemperatureResponse`, optional
            By default that of the cube.

        Returns
        -------
        `~astropy.units.Quantity`
            EM in cm^-5 at ``response.temperature``, shape ``(6, n)``.
        """
        return em_loci(self.intensity, self.response if response is None else response)


def em_curve(cube, region=None, *, n=500, seed=0, method=None):
    """
    Return the mean EM curve of a region of a cube; same as `DEMCube.curve`.

    Intensity is linear in EM, so the mean EM is inferred from the mean intensities of all unmasked pixels with their
    center in the region. The noise of the intensities is independent from pixel to pixel and averages out; their
    systematic error does not. Of a cube without a posterior, the curve is the mean of the pixels' EM.

    Pixels that lack a channel are left out. If a channel is saturated in some of the pixels, its mean is a lower limit;
    if saturation has spilled into other pixels, the channel is left out.

    Parameters
    ----------
    cube : `DEMCube`
    region : `~astropy.coordinates.SkyCoord`, `~regions.Region`, `~numpy.ndarray` or `None`, optional
        A coordinate, which selects the pixel that contains it; a sky or pixel region of the package ``regions``
        (``pip install regions``); a boolean mask, `True` inside, shape ``(ny, nx)``; a field of view as for `invert`;
        or, by default, the whole cube.
    n : `int`, optional
        Number of posterior draws.
    seed : `int`, optional
        Seed of their random numbers.
    method : optional
        Method of the posterior, as for `DEMCube.posterior`.

    Returns
    -------
    `EMCurve`

    Raises
    ------
    TypeError
        If ``region`` has another type, or ``method`` no posterior.
    ValueError
        If ``region`` lies outside the cube, holds only masked pixels, or is a mask of another shape; or if its pixels
        have fewer than three channels in common.

    Examples
    --------
    >>> from astropy.coordinates import SkyCoord
    >>> from sunpy_deepem.analysis import em_curve
    >>> maps = sample_maps((64, 64))
    >>> curve = em_curve(invert(maps), SkyCoord(0 * u.arcsec, 0 * u.arcsec, frame=maps[0].coordinate_frame))
    >>> curve.em.shape, curve.draws.shape, curve.n_pixels
    ((18,), (500, 18), 1)
    """
    rows, columns, inside = resolve_region(region, sky_wcs(cube.sky_header), cube.data.shape[1:])
    cube = cube[:, rows, columns].compute()
    inside = np.ones(cube.data.shape[1:], dtype=bool) if inside is None else inside
    pixels = _complete(cube, inside & np.isfinite(cube.data).all(axis=0) & ~cube.sky_mask)
    n_pixels = int(pixels.sum())
    if n_pixels == 0:
        flags = Quality(int(np.bitwise_or.reduce(cube.quality[inside], initial=0)))
        msg = (
            f"region holds {inside.sum()} pixels of the cube, all without data (flags: {flags!r}). Choose another "
            "place or a larger region."
        )
        raise ValueError(msg)

    def mean(image):
        return image[..., pixels].mean(axis=-1, dtype=float)

    values, lower_limit = cube.with_limits()
    intensity = mean(values)
    common = common_error(cube.meta["provenance"])
    sigma = sigma_of_mean(values, cube.intensity_uncertainty.value, common, mean, n_pixels)
    limited = np.zeros(len(intensity), dtype=bool) if lower_limit is None else lower_limit[:, pixels].any(axis=1)
    draws = None
    if method is None and not cube.has_posterior:
        em = (mean(cube.data) * cube.unit).to(EM_UNIT)
    else:
        measured = int((np.isfinite(intensity) & ~limited).sum())
        if measured < MIN_CHANNELS:
            msg = f"region must have {MIN_CHANNELS} or more channels in all its pixels, found {measured}."
            raise ValueError(msg)
        draws = cube.sample(intensity, sigma, n, seed, lower_limit=limited, method=method) << EM_UNIT
        em = draws.mean(axis=0, dtype=float)
    return EMCurve(
        bins=cube.bins,
        em=em,
        draws=draws,
        intensity=np.where(limited, np.nan, intensity) * INTENSITY_UNIT,
        intensity_uncertainty=sigma * INTENSITY_UNIT,
        synthetic=synthetic_intensity(em, cube.response),
        n_pixels=n_pixels,
        response=cube.response,
    )


def _complete(cube, pixels):
    """Return those of the pixels that have all channels or are saturated; all of them if there are none."""
    finite = np.isfinite(cube.intensity.value)
    observed = finite[:, pixels].any(axis=1)
    complete = pixels & (finite[observed].all(axis=0) | ((cube.quality & Quality.SATURATED) != 0))
    return complete if complete.any() else pixels
