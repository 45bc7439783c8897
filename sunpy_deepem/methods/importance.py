"""The exact posterior of single pixels by importance sampling of a prior: `Importance`."""

from dataclasses import dataclass

import numpy as np

from sunpy_deepem.methods.base import Solution, SolveStatus
from sunpy_deepem.methods.factors import checked_factors, draw_factors
from sunpy_deepem.methods.weighing import (
    QUANTILES,
    UNIT,
    PriorDraws,
    draw,
    pixels_of,
    resampled,
    resampled_factors,
    summary,
    weigh_all,
)
from sunpy_deepem.temperature import LogTBins
from sunpy_deepem.units import RESPONSE_UNIT, TRACE
from sunpy_deepem.utils.checks import whole_number

__all__ = ["QUANTILES", "Importance", "Posterior"]


@dataclass(frozen=True, eq=False)
class Posterior(Solution):
    """
    The `Solution` of `Importance.solve`: posterior mean and half the 68 % interval of the EM.

    Attributes
    ----------
    quantiles : `~numpy.ndarray`
        `QUANTILES` of the EM in cm^-5, shape ``(5, bins, ...)``.
    ess : `~numpy.ndarray`
        Effective number of prior draws that explain the pixel, shape ``(...)``.
    """

    quantiles: np.ndarray | None = None
    ess: np.ndarray | None = None


class Importance:
    """
    Exact posterior of each pixel under any prior, without training.

    Every draw of the prior is weighted by its likelihood. The cost per pixel grows with the number of draws (about
    50 ms for a million), so this is a yardstick for networks and a method for single pixels and regions. A region's
    mean intensity is one pixel with the uncertainty of the mean.

    Parameters
    ----------
    prior : callable or object
        ``prior(n, seed)`` returns ``n`` EM distributions in cm^-5, shape ``(bins, n)``; an object has such a method
        ``sample(n, seed=seed)``. The total EM of a `~sunpy_deepem.training.DEMPrior` is log-uniform and independent of
        the shape; it is integrated over, which makes the effective number of draws much larger.
    draws : `int`, optional
        Number of draws of the prior. A million take 100 MB.
    seed : `int`, optional
        Seed of these draws.
    response : `TemperatureResponse`, optional
        Response for calls that pass none. `sunpy_deepem.invert` passes its own.
    min_ess : `float`, optional
        Pixels with fewer effective draws get the status `SolveStatus.FEW_DRAWS`.
    factors : `dict`, optional
        Uncertainty of the absolute calibration: the standard deviation of the natural logarithm of an unknown constant
        factor of a channel's response, by channel. The posterior is averaged over the factors, and `sample_factors`
        draws them. Unlike ``uncertainty``, they may be large, and the intensities may determine them.
    noise : callable, optional
        Variance of an intensity as a function of the true intensity, ``(channels, ...)`` to the same shape. By default
        the stated uncertainty holds for every EM.

    Raises
    ------
    TypeError
        If ``prior`` is neither callable nor has a method ``sample``.
    ValueError
        If ``draws`` is not a positive integer.

    References
    ----------
    Tokdar & Kass (2010), WIREs Comp. Stat. 2, 54, https://doi.org/10.1002/wics.56

    Examples
    --------
    >>> from sunpy_deepem import TemperatureResponse
    >>> from sunpy_deepem.methods import Importance
    >>> from sunpy_deepem.training import DEMPrior
    >>> prior, response = DEMPrior(), TemperatureResponse.default()
    >>> method = Importance(prior, draws=20_000, response=response)
    >>> g = response.matrix.value @ prior.sample(4, seed=1)
    >>> method.sample(g, 0.2 * g, n=100).shape
    (100, 18, 4)
    """

    name = "importance"

    def __init__(self, prior, *, draws=1_000_000, seed=0, response=None, min_ess=50, noise=None, factors=None):
        if not callable(prior) and not hasattr(prior, "sample"):
            msg = (
                f"prior must be callable as prior(n, seed) or have a method sample(n, seed=seed), found "
                f"{type(prior).__name__}. Pass DEMPrior() for the default prior."
            )
            raise TypeError(msg)
        self.prior, self.seed, self.min_ess, self.noise = prior, seed, min_ess, noise
        self.draws, self.factors = whole_number(draws, "draws"), checked_factors(factors)
        self.response = response
        self.bins = getattr(prior, "bins", None) or (LogTBins() if response is None else response.bins)
        self._shapes = self._folded = None

    @property
    def provenance(self):
        """Parameters, for the provenance of a cube."""
        facts = {"prior": type(self.prior).__name__, "draws": self.draws, "seed": self.seed}
        return facts | ({"factors": self.factors} if self.factors else {})

    @property
    def prior_log_std(self):
        """Standard deviation of ln(EM of a bin / total EM + ``TRACE``) over the prior, shape ``(bins,)``."""
        return np.log(self._prior_draws()[0] + np.float32(TRACE)).std(axis=1)

    def solve(self, intensity, uncertainty, response=None, *, lower_limit=None):
        """
        Return the `Posterior` of pixels.

        Parameters
        ----------
        intensity, uncertainty : array-like
            DN s^-1 pix^-1, shape ``(channels, ...)``. A channel is not used in a pixel where its intensity is NaN or
            its uncertainty is not finite.
        response : `TemperatureResponse`, optional
            By default the one given to `Importance`. Its bins are the prior's.
        lower_limit : array-like of `bool`, optional
            Where `True`, the channel is saturated and its intensity a lower limit; shape of ``intensity``.

        Returns
        -------
        `Posterior`

        Raises
        ------
        ValueError
            If there is no response, shapes do not match, or the prior returns something other than positive EM on the
            response's bins.
        """
        response = self._checked(response)
        draws = self._draws_for(response)
        pixels, shape = pixels_of(intensity, uncertainty, lower_limit, response)
        bins, n = len(response.bins), len(pixels)
        em, quantiles = np.full((bins, n), np.nan), np.full((len(QUANTILES), bins, n), np.nan)
        ess = np.zeros(n)
        for index, weighted in weigh_all(pixels, draws, self.noise, self.seed):
            em[:, index], quantiles[:, :, index] = summary(draws, weighted, np.random.default_rng(self.seed))
            ess[index] = weighted.ess
        usable = np.array([pixel is not None for pixel in pixels], dtype=bool)
        status = np.where(ess >= self.min_ess, SolveStatus.SOLVED, SolveStatus.FEW_DRAWS).astype(np.int8)
        status[~usable] = SolveStatus.INVALID
        em[:, status != 0] = quantiles[:, :, status != 0] = np.nan
        em_std = (quantiles[3] - quantiles[1]) / 2
        return Posterior(
            em.reshape(bins, *shape),
            em_std.reshape(bins, *shape),
            status.reshape(shape),
            quantiles=quantiles.reshape(len(QUANTILES), bins, *shape),
            ess=ess.reshape(shape),
        )

    def sample(self, intensity, uncertainty, n=64, seed=0, *, response=None, lower_limit=None):
        """
        Draw EM distributions from the posterior of each pixel.

        Parameters
        ----------
        intensity, uncertainty, response, lower_limit
            As for `solve`.
        n : `int`, optional
            Draws per pixel.
        seed : `int`, optional
            All pixels use the same random numbers, so that slices of an image give the same draws as the whole. The
            first draws do not depend on ``n``.

        Returns
        -------
        `~numpy.ndarray`
            EM in cm^-5, ``float32``, shape ``(n, bins, ...)``; NaN where no channel is usable. Pixels with few
            effective draws are sampled all the same, so many of their draws share one shape.
        """
        return self._sample(resampled, len(self.bins), intensity, uncertainty, n, seed, response, lower_limit)

    def sample_factors(self, intensity, uncertainty, n=64, seed=0, *, response=None, lower_limit=None):
        """
        Draw the factors of the channels from the posterior of each pixel.

        They belong to the draws of `sample` with the same arguments.

        Parameters
        ----------
        intensity, uncertainty, n, seed, response, lower_limit
            As for `sample`.

        Returns
        -------
        `~numpy.ndarray`
            Factors of the response of each channel, one for channels that are not in ``factors``, ``float32``, shape
            ``(n, channels, ...)``.
        """
        channels = len(self._checked(response).channels)
        return self._sample(resampled_factors, channels, intensity, uncertainty, n, seed, response, lower_limit)

    def _sample(self, resample, rows, intensity, uncertainty, n, seed, response, lower_limit):
        """Return what ``resample`` takes from weighted draws, shape ``(n, rows, ...)``."""
        n, response = whole_number(n, "n"), self._checked(response)
        draws = self._draws_for(response)
        pixels, shape = pixels_of(intensity, uncertainty, lower_limit, response)
        result = np.full((n, rows, len(pixels)), np.nan, dtype=np.float32)
        uniform = np.random.default_rng(seed).random((n, 2))
        for index, weighted in weigh_all(pixels, draws, self.noise, self.seed):
            result[:, :, index] = resample(draws, weighted, *uniform.T).T
        return result.reshape(n, rows, *shape)

    def _checked(self, response):
        response = self.response if response is None else response
        if response is None:
            msg = "response is missing. Pass it here or to Importance(prior, response=TemperatureResponse.default())."
            raise ValueError(msg)
        if response.bins != self.bins:
            msg = f"response must have the bins of the prior, {self.bins!r}, found {response.bins!r}."
            raise ValueError(msg)
        return response

    def _draws_for(self, response):
        """Return the prior's draws with their intensities for a response; the last response's are kept."""
        if self._folded is None or self._folded[0] != response.fingerprint:
            matrix = (response.matrix.to_value(RESPONSE_UNIT) * UNIT).astype(np.float32)
            shape, limits = self._prior_draws()
            factor = draw_factors(self.factors, response.channels, shape.shape[1], [self.seed, 1])
            self._folded = response.fingerprint, PriorDraws(shape, factor * (matrix @ shape), limits, factor)
        return self._folded[1]

    def _prior_draws(self):
        """Return shapes ``(bins, draws)`` and limits of the total of the prior's draws, which are kept."""
        if self._shapes is None:
            self._shapes = draw(self.prior, len(self.bins), self.draws, self.seed)
        return self._shapes

    def __repr__(self):
        return f"Importance({self.prior!r}, draws={self.draws}, seed={self.seed}, min_ess={self.min_ess:g})"
