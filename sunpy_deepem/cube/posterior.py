"""Posterior draws of a cube, recomputed from its intensities: a mixin of `DEMCube`."""

from dataclasses import dataclass, replace
from functools import cache, partial
from inspect import signature
from itertools import pairwise

import numpy as np
from astropy.uncertainty import Distribution

from sunpy_deepem.analysis.derived import band_em, checked_bands
from sunpy_deepem.analysis.intervals import contraction, half_width, quantiles_of
from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.cube.planes import compute_together
from sunpy_deepem.methods.base import method_bins
from sunpy_deepem.quality import PRIOR_DOMINATES, Quality
from sunpy_deepem.response.temperature_response import TemperatureResponse
from sunpy_deepem.temperature import BANDS, LogTBins
from sunpy_deepem.units import EM_UNIT
from sunpy_deepem.utils.checks import whole_number
from sunpy_deepem.utils.uncertainty import ComputedUncertainty

__all__ = ["PosteriorDraws"]

# Pixels whose intensities are read, and whose draws are made, at a time.
_BAND = 2**16


class PosteriorDraws:
    """
    Methods of `DEMCube` that draw from the joint posterior of the EM of all bins.

    Draws are not stored but computed from the intensities, their σ and the network, whose weights are found by name,
    path or fingerprint. So cubes that were read, cut, rebinned or reprojected have draws, too: those of their own
    intensities. A cube without a longitude or latitude axis has draws; one without a log T axis has none.
    """

    @property
    def has_posterior(self) -> bool:
        """Whether `posterior` finds the method of the cube."""
        try:
            self.posterior()
        except ValueError:
            return False
        return True

    def posterior(self, method=None):
        """
        Return the method whose posterior belongs to the cube.

        Parameters
        ----------
        method : `DeepEM` or `~sunpy_deepem.methods.Importance`, optional
            A method with ``sample``, by default the network that the cube was made with. Its weights are found by their
            name, path or, in the same process, by their fingerprint.

        Returns
        -------
        `DeepEM` or `~sunpy_deepem.methods.Importance`

        Raises
        ------
        TypeError
            If ``method`` has no posterior.
        ValueError
            If the method of the cube has no posterior, its weights are not found, it holds for another response or
            other bins, or the cube is the result of arithmetic, so that its intensities do not determine its EM.
        """
        provenance, response = self.meta["provenance"], self.meta["response"]
        if provenance.get("factor", 1.0) is None:
            msg = (
                f"The cube is the result of arithmetic ({', '.join(provenance.get('history', []))}), which has no "
                "posterior of its own. Combine the distributions of the cubes instead, as in one.distribution() - "
                "other.distribution(): with the same seed, their draws belong together."
            )
            raise ValueError(msg)
        found = _network_of(provenance) if method is None else method
        if not hasattr(found, "sample") or not getattr(found, "has_posterior", True):
            msg = f"method must have a posterior and a method 'sample', found {found!r}."
            raise TypeError(msg)
        if method_bins(found) != response.bins:
            msg = f"method must have the bins of the cube's inversion, {response.bins!r}, found {method_bins(found)!r}."
            raise ValueError(msg)
        if hasattr(found, "check_response"):
            found.check_response(response)
        return found

    def map_draws(self, function, *, n=64, seed=0, method=None):
        """
        Apply a function to posterior draws of the EM, tile by tile.

        The draws of all pixels share their random numbers: a slice of the cube has the same draws as the whole, and the
        same seed gives the same draws. Only the results are held in memory.

        Parameters
        ----------
        function : callable
            Takes draws in cm^-5, shape ``(n, n_bins, pixels)``, and returns an array of shape ``(..., pixels)``. It may
            be called by several threads at once.
        n : `int`, optional
            Number of draws.
        seed : `int`, optional
            Seed of the random numbers.
        method : optional
            As for `posterior`.

        Returns
        -------
        `~numpy.ndarray`
            Shape ``(..., ny, nx)``; NaN in masked pixels.

        Raises
        ------
        TypeError, ValueError
            As of `posterior`, or if the cube lacks the log T axis.

        Examples
        --------
        >>> dem = invert(sample_maps((64, 64)))
        >>> hot = dem.map_draws(lambda draws: (draws[:, 11:].sum(axis=1) > 1e26).mean(axis=0), n=16)
        >>> hot.shape
        (64, 64)
        """
        return self._map_tiles(self._sampler(method), function, n, seed)

    def distribution(self, n=64, seed=0, *, method=None):
        """
        Return draws from the joint posterior of the EM of all bins.

        Anything computed from the draws has its interval in their quantiles. All draws are held in memory: 64 of them
        for 512² pixels take 1.2 GB. `map_draws` and the ``quantiles`` of maps need less.

        Parameters
        ----------
        n : `int`, optional
            Number of draws.
        seed : `int`, optional
            Seed of the random numbers.
        method : optional
            As for `posterior`.

        Returns
        -------
        `~astropy.uncertainty.Distribution`
            In cm^-5, shape ``(n_bins, ny, nx)``, without the axes that the cube lacks. Draws are zero or positive; NaN
            in masked pixels.

        Raises
        ------
        TypeError, ValueError
            As of `map_draws`.

        Examples
        --------
        >>> dem = invert(sample_maps((64, 64)))
        >>> hot = dem[:, 30:34, 30:34].distribution().distribution[11:].sum(axis=0)
        >>> hot.shape
        (4, 4, 64)
        """
        draws = self.map_draws(lambda draws: draws, n=n, seed=seed, method=method)
        return Distribution(np.ascontiguousarray(np.moveaxis(draws, 0, -1)) << EM_UNIT)

    def contraction(self, bands=None, *, n=64, seed=0, method=None):
        """
        Return how much the data narrow the EM of bins or bands: 1 − posterior variance / prior variance of ln EM.

        Near 1 the data determine the EM; near 0 the answer is the prior. The logarithm is that of the fraction of the
        total EM, with a floor of 10⁻⁴. Bands as narrow as a bin are hardly ever well determined. Where a band may hold
        most of the EM, its fraction varies little in ln even if it is unknown: the contraction means nothing in pixels
        that are flagged LOW_SIGNAL.

        Parameters
        ----------
        bands : sequence of pairs of `float`, optional
            Limits in log10(T/K), by default those of the bins of the cube.
        n, seed, method
            As for `map_draws`.

        Returns
        -------
        `~numpy.ndarray`
            Between 0 and 1, shape ``(n_bands, ny, nx)``; NaN in masked pixels.

        Raises
        ------
        TypeError, ValueError
            As of `map_draws`, or if the moments of the prior are unknown.

        Examples
        --------
        >>> dem = invert(sample_maps((64, 64)))
        >>> dem[:, 30:34, 30:34].contraction().shape
        (18, 4, 4)
        """
        edges = self._bins_of_slice().edges
        bands = list(pairwise(edges)) if bands is None else checked_bands(bands)
        sampler = replace(self._sampler(method), merge=None)
        if getattr(sampler.method, "prior_log_std", None) is None:
            msg = f"method must know the moments of its prior, prior_log_std, found {sampler.method!r}."
            raise ValueError(msg)
        fitted = self.meta["response"].bins
        weights = np.array([band_em(np.eye(len(fitted)), fitted, *band) for band in bands])
        function = partial(contraction, prior_log_std=sampler.method.prior_log_std, weights=weights)
        return self._map_tiles(sampler, function, n, seed)

    def prior_dominated(self, low, high, *, n=64, seed=0, method=None):
        """
        Return where the prior, rather than the data, determines the EM in a range of log T.

        Parameters
        ----------
        low, high : `float`
            Limits in log10(T/K).
        n, seed, method
            As for `map_draws`.

        Returns
        -------
        `~numpy.ndarray` of `bool`
            `True` where the `contraction` is below one half or the pixel is flagged LOW_SIGNAL, shape ``(ny, nx)``.

        Raises
        ------
        TypeError, ValueError
            As of `contraction`.
        """
        return self._dominated(self.contraction([(low, high)], n=n, seed=seed, method=method)[0])

    def with_prior_flags(self, bands=BANDS, *, n=64, seed=0, method=None):
        """
        Return the cube with the flag `Quality.PRIOR` where the prior determines the EM in one of several bands.

        This is not done by `sunpy_deepem.invert`, as it takes many times as long as an inversion.

        Parameters
        ----------
        bands : sequence of pairs of `float`, optional
            Limits in log10(T/K), by default 5.6 to 6.0, 6.0 to 6.3, 6.3 to 6.6 and 6.6 to 7.0.
        n, seed, method
            As for `map_draws`.

        Returns
        -------
        `DEMCube`

        Raises
        ------
        TypeError, ValueError
            As of `contraction`.
        """
        dominated = self._dominated(self.contraction(bands, n=n, seed=seed, method=method)).any(axis=0)
        flags = self.quality & ~np.uint16(Quality.PRIOR) | np.where(dominated, Quality.PRIOR, 0).astype(np.uint16)
        return self.with_planes(replace(self.planes, quality=flags))

    def _dominated(self, contraction):
        """Return where a contraction, shape ``(..., ny, nx)``, leaves the answer to the prior."""
        # Without signal, a fraction of the EM near one has a small variance in ln, however unknown it is.
        return (contraction < PRIOR_DOMINATES) | ((self.quality & np.uint16(Quality.LOW_SIGNAL)) != 0)

    def sample(self, intensity, uncertainty, n=64, seed=0, *, lower_limit=None, method=None):
        """
        Return posterior draws of the EM for other intensities than those of the pixels, such as the mean of a region.

        Parameters
        ----------
        intensity, uncertainty : array-like
            In DN s^-1 pix^-1, shape ``(6, ...)``. A channel is not used where its intensity is NaN.
        n, seed, method
            As for `map_draws`.
        lower_limit : `~numpy.ndarray` of `bool`, optional
            Where the intensity is a lower limit, of the same shape.

        Returns
        -------
        `~numpy.ndarray`
            EM in cm^-5 on the bins of the cube, shape ``(n, n_bins, ...)``.

        Raises
        ------
        TypeError, ValueError
            As of `map_draws`.
        """
        arrays = np.asarray(intensity), np.asarray(uncertainty)
        counts = whole_number(n, "n"), whole_number(seed, "seed", least=0)
        return self._sampler(method).map(lambda draws: draws, *arrays, lower_limit, *counts)

    def _quantiles(self, functions, quantiles, **draws):
        """Return quantiles of functions of the EM ``(n_bins, ...)``, shape ``(functions, quantiles, ny, nx)``."""
        asked = np.atleast_1d(quantiles)
        return self.map_draws(lambda em: np.stack([quantiles_of(each, em, asked) for each in functions]), **draws)

    def _uncertainties(self, functions, scales, *, method=None, **draws):
        """Return half the 68 % interval of each function of the EM times its scale, `None` without a posterior."""
        if method is None and not self.has_posterior:
            return [None] * len(functions)
        self.posterior(method)  # errors are raised here, not on the first use

        @cache
        def half_widths():
            return self.map_draws(
                lambda em: np.stack([half_width(each(np.swapaxes(em, 0, 1))) for each in functions]),
                method=method,
                **draws,
            )

        return [
            ComputedUncertainty(lambda index=index, scale=scale: scale * half_widths()[index])
            for index, scale in enumerate(scales)
        ]

    def _map_tiles(self, sampler, function, n, seed):
        counts = whole_number(n, "n"), whole_number(seed, "seed", least=0)
        joined = None
        for rows in self._bands():
            part = sampler.map(function, *self._observed(rows), *counts)
            if rows is None:
                return part
            if joined is None:
                # Results of all bands would need their memory twice when they are joined.
                joined = np.empty((*part.shape[:-2], *self.data.shape[1:]), part.dtype)
            joined[..., rows, :] = part
        return joined

    def _sampler(self, method):
        """Return the `_Sampler` of the cube."""
        response = self.meta["response"]
        merge = _merging(response.bins, self._bins_of_slice())
        return _Sampler(self.posterior(method), response, merge, self.meta["provenance"].get("factor", 1.0))

    def _bins_of_slice(self):
        """Return the bins of the cube, which may lack axes of the sky."""
        if self.is_3d:
            return self.bins
        sky = self.meta.axes.get("chi2", ())
        if self.data.ndim != len(sky) + 1:
            msg = (
                f"Draws need the log T axis, which this cube of shape {self.data.shape} lacks. Slice with i:i+1 to "
                "keep it, or take the slice of the whole cube's distribution."
            )
            raise ValueError(msg)
        wcs = self.wcs.low_level_wcs
        # The log T axis is the first of the data and so the last of the pixel coordinates.
        (axis,) = np.flatnonzero(wcs.axis_correlation_matrix[:, -1])
        world = wcs.pixel_to_world_values(*[0] * (wcs.pixel_n_dim - 1), np.arange(2))
        first, second = world if wcs.world_n_dim == 1 else world[axis]
        return LogTBins(round(float(first), 9), round(float(second - first), 9), len(self.data))

    def _bands(self):
        """Return bands of rows of the sky, each of at most `_BAND` pixels or one row; `None` for all that there is."""
        if not self.is_3d or self.data[0].size <= _BAND:
            return [None]
        ny, nx = self.data.shape[1:]
        step = max(1, _BAND // nx)
        return [slice(start, min(start + step, ny)) for start in range(0, ny, step)]

    def _observed(self, rows):
        """
        Return intensities and σ of a band of rows in DN s^-1 pix^-1, and where the former are lower limits, or `None`.

        Intensities are NaN in masked pixels.
        """
        kinds = ["intensity", "sigma"] + (["limit"] if f"limit_{CHANNELS[0]}" in self.meta else [])
        names = [[f"{kind}_{channel}" for channel in CHANNELS] for kind in kinds]
        arrays = {name: self.meta[name] for group in names for name in group}
        if self.mask is not None:
            arrays["mask"] = self.mask
        if rows is not None:
            arrays = {name: array[..., rows, :] for name, array in arrays.items()}
        arrays = compute_together(arrays)
        intensity, sigma, *limits = (np.stack([arrays[name] for name in group]) for group in names)
        lower_limit = np.isfinite(limits[0]) if limits else None
        if limits:
            intensity = np.where(lower_limit, limits[0], intensity)
        if self.mask is not None:
            intensity[:, arrays["mask"].any(axis=0)] = np.nan
        return intensity, sigma, lower_limit


@dataclass(frozen=True)
class _Sampler:
    """Draws of a method, on the bins and in the scale of a cube."""

    method: object
    response: TemperatureResponse
    #: Matrix that sums the bins of the method into those of the cube, `None` if they are the same.
    merge: np.ndarray | None
    #: Multiple of the inverted intensities that the cube holds.
    factor: float

    def map(self, function, intensity, sigma, lower_limit, n, seed):
        """Return what a function makes of the draws ``(n, n_bins, pixels)``, its last axis in the shape of the sky."""

        def apply(draws):
            draws = draws if self.merge is None else np.matmul(self.merge, draws)
            return function(draws if self.factor == 1 else draws * np.float32(self.factor))

        intensity, sigma = intensity / self.factor, sigma / self.factor
        if hasattr(self.method, "map_draws"):
            return self.method.map_draws(apply, intensity, sigma, n, seed, lower_limit=lower_limit)
        known = signature(self.method.sample).parameters
        options = {"response": self.response} if "response" in known else {}
        sky = intensity.shape[1:]
        if lower_limit is not None and "lower_limit" in known:
            options["lower_limit"] = lower_limit.reshape(len(lower_limit), -1)
        elif lower_limit is not None:
            intensity = np.where(lower_limit, np.nan, intensity)
        arrays = (array.reshape(len(array), -1) for array in (intensity, sigma))
        draws = self.method.sample(*arrays, n, seed, **options)
        result = np.asarray(apply(np.asarray(draws, dtype=np.float32)))
        return result.reshape(*result.shape[:-1], *sky)


def _network_of(provenance):
    """Return the network that made a cube."""
    method, weights, fingerprint = (provenance.get(key) for key in ("method", "weights", "fingerprint"))
    found = None
    if method == "network" and fingerprint is not None:
        from sunpy_deepem.network.lookup import find_network  # torch is imported late

        found = find_network(weights, fingerprint)
    if found is None or not found.has_posterior:
        msg = (
            f"The method of the cube, {method!r}, states no posterior. Pass method=, for example DeepEM.load() or "
            "Importance(prior)."
        )
        raise ValueError(msg)
    return found


def _merging(fitted, bins):
    """Return the matrix that sums fitted bins into those of a cube, or `None` if they are the same."""
    if fitted == bins:
        return None
    centers, edges = fitted.centers, bins.edges
    return ((centers > edges[:-1, np.newaxis]) & (centers < edges[1:, np.newaxis])).astype(np.float32)
