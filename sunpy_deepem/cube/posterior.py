"""Posterior draws of a cube, recomputed from its intensities: a mixin of `DEMCube`."""

import numpy as np
from astropy.uncertainty import Distribution

from sunpy_deepem.units import EM_UNIT

__all__ = ["PosteriorDraws"]

# Operations after which the intensities still belong to the EM, by the first word of their entry in the history.
_KEPT_BY = ("rebinned", "reprojected")


class PosteriorDraws:
    """Methods of `DEMCube` that draw from the joint posterior of the EM of all bins."""

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
            If the method of the cube has no posterior, its weights are not found, or the cube is the result of
            arithmetic, so that its intensities no longer determine its EM.
        """
        provenance = self.meta["provenance"]
        changes = [event for event in provenance.get("history", []) if not event.startswith(_KEPT_BY)]
        if changes:
            msg = (
                f"The cube is the result of arithmetic ({', '.join(changes)}), which has no posterior of its own. "
                "Combine the distributions of the cubes instead: with the same seed, draws belong together."
            )
            raise ValueError(msg)
        if method is None:
            return _network_of(provenance)
        if not hasattr(method, "sample"):
            msg = f"method must have a posterior, that is a method 'sample', found {type(method).__name__}."
            raise TypeError(msg)
        return method

    def map_draws(self, function, *, n=64, seed=0, method=None):
        """
        Apply a function to posterior draws of the EM, tile by tile.

        The draws of all pixels share their random numbers: a slice of the cube has the same draws as the whole, and the
        same seed gives the same draws. Only the results are held in memory.

        Parameters
        ----------
        function : callable
            Takes draws in cm^-5, shape ``(n, n_bins, pixels)``, and returns an array of shape ``(..., pixels)``.
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
            As of `posterior`, or if the cube lacks an axis.

        Examples
        --------
        >>> dem = invert(sample_maps((64, 64)))
        >>> hot = dem.map_draws(lambda draws: (draws[:, 11:].sum(axis=1) > 1e26).mean(axis=0))
        >>> hot.shape
        (64, 64)
        """
        self._require_3d("map_draws")
        found = self.posterior(method)
        merge = _merging(self.meta["response"].bins, self.bins)
        intensity = np.where(self.sky_mask, np.nan, self.intensity.value)
        uncertainty = self.intensity_uncertainty.value

        def apply(draws):
            return function(draws if merge is None else np.matmul(merge, draws))

        if hasattr(found, "map_draws"):
            return found.map_draws(apply, intensity, uncertainty, n, seed)
        sky = intensity.shape[1:]
        flat = (array.reshape(len(array), -1) for array in (intensity, uncertainty))
        draws = found.sample(*flat, n, seed, response=self.meta["response"])
        result = np.asarray(apply(np.asarray(draws, dtype=np.float32)))
        return result.reshape(*result.shape[:-1], *sky)

    def distribution(self, n=64, seed=0, *, method=None):
        """
        Return draws from the joint posterior of the EM of all bins.

        Anything computed from the draws has its interval in their quantiles. Draws are not stored in the cube but
        computed from its intensities, σ and weights. All of them are held in memory: 64 draws of 512² pixels take
        1.2 GB. `map_draws` and the ``quantiles`` of maps need less.

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
            In cm^-5, shape ``(n_bins, ny, nx)``. Draws are zero or positive; NaN in masked pixels.

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


def _network_of(provenance):
    """Return the network that made a cube."""
    method, weights, fingerprint = (provenance.get(key) for key in ("method", "weights", "fingerprint"))
    if method != "network" or fingerprint is None:
        msg = (
            f"The method of the cube, {method!r}, states no posterior. Pass method=, for example DeepEM.load() or "
            "Importance(prior)."
        )
        raise ValueError(msg)
    from sunpy_deepem.network.lookup import find_network  # torch is imported late

    return find_network(weights, fingerprint)


def _merging(fitted, bins):
    """Return the matrix that sums fitted bins into those of a cube, or `None` if they are the same."""
    if fitted == bins:
        return None
    centers, edges = fitted.centers, bins.edges
    return ((centers > edges[:-1, np.newaxis]) & (centers < edges[1:, np.newaxis])).astype(np.float32)
