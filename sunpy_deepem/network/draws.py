"""Draws from the posterior of many pixels, tile by tile: `PosteriorDraws`."""

import numpy as np
import torch
from tqdm.auto import tqdm

from sunpy_deepem.network.inputs import unused
from sunpy_deepem.network.layers import dtype_of
from sunpy_deepem.network.posterior import PosteriorNetwork
from sunpy_deepem.network.sampling import common_numbers, draw_tile, half_width
from sunpy_deepem.network.tiles import in_precision, pixel_tile, resolve_device, with_own_settings
from sunpy_deepem.units import EM_SCALE
from sunpy_deepem.utils.checks import whole_number
from sunpy_deepem.utils.parallel import tile_map

__all__ = ["PosteriorDraws"]

# Draws times pixels per tile, on a CPU and on a GPU.
_CPU_TILE, _GPU_TILE = 2**15, 2**20
# Smallest σ over intensity of the channels of a pixel, from which the network is used alone, and up to which draws are.
_NETWORK_NOISE, _SHARP_NOISE = 0.08, 0.04
# In pixels with missing channels: χ² of the network's mean up to which the network is used alone, χ² from
# which draws are used instead, and χ² of the mean of the draws from which they are not used, because the channels
# contradict each other.
_GOOD_FIT, _BAD_FIT, _NO_FIT = 1.0, 2.0, 4.0
# Number of draws to average.
_SHARP_DRAWS = 64


class PosteriorDraws:
    """
    What `~sunpy_deepem.DeepEM` can do with its posterior.

    All pixels use the same quasi-random numbers. Draw k of an image is thus one coherent cube, a part of an image has
    the draws that it has within the whole, and the same seed gives the same draws.
    """

    posterior: PosteriorNetwork | None

    @property
    def has_posterior(self) -> bool:
        """Whether the weights include a posterior."""
        return self.posterior is not None

    @with_own_settings
    def sample(self, intensity, uncertainty, n=64, seed=0, *, lower_limit=None, device="auto", progress=False):
        """
        Draw from the posterior of the EM of every pixel.

        Draws explain the data: synthesized, they agree with the intensities within σ, also where σ is far smaller than
        the noise for which the network was trained.

        Parameters
        ----------
        intensity, uncertainty : array-like or `torch.Tensor`
            DN s^-1 pix^-1, as for `~sunpy_deepem.DeepEM.predict`. A channel is left out in pixels where its intensity
            is not finite or its σ infinite.
        n : `int`, optional
            Number of draws. The first ones of more draws are the same.
        seed : `int`, optional
            Seed of the random numbers.
        lower_limit : array-like or `torch.Tensor` of `bool`, optional
            Where the intensity is a lower limit, as in saturated pixels, of the same shape.
        device : `str` or `torch.device`, optional
            As for `~sunpy_deepem.DeepEM.predict`.
        progress : `bool`, optional
            Whether to show a progress bar.

        Returns
        -------
        `~numpy.ndarray`
            EM per bin in cm^-5, `~numpy.float32`, shape ``(n, bins, ...)``; NaN in pixels with fewer than three
            channels. A tensor if ``intensity`` is one. In half of the draws, bins with less than ``TRACE`` of the total
            EM are zero, in the others none is.

        Raises
        ------
        TypeError
            If an argument carries a unit.
        ValueError
            If the weights have no posterior, shapes do not fit, or σ is not positive where the intensity is finite.

        Examples
        --------
        >>> from sunpy_deepem import DeepEM
        >>> intensity = np.array([0.8, 4.5, 140.0, 170.0, 50.0, 2.7])
        >>> draws = DeepEM.load("default").sample(intensity, 0.1 * intensity, n=16)
        >>> draws.shape
        (16, 18)
        """
        tiles = _Tiles(self, (intensity, uncertainty, lower_limit), n, seed, device)
        shape = (tiles.n, len(self.bins), tiles.pixels)
        if isinstance(intensity, torch.Tensor):
            result = torch.empty(shape, device=intensity.device)
        else:
            result = torch.from_numpy(np.empty(shape, np.float32))

        def store(part):
            result[..., part] = tiles.draw(part).to(result.device)

        tiles.map(store, progress)
        result = result.reshape(*shape[:2], *tiles.sky)
        return result if isinstance(intensity, torch.Tensor) else result.numpy()

    def sample_tiles(self, intensity, uncertainty, n=64, seed=0, *, lower_limit=None, device="auto"):
        """
        Yield the draws of `sample`, one tile of pixels after another.

        Parameters
        ----------
        intensity, uncertainty, n, seed, lower_limit, device
            As for `sample`.

        Yields
        ------
        part : `slice`
            Pixels of the tile, all axes but the first of ``intensity`` taken as one.
        draws : `~torch.Tensor`
            EM per bin in cm^-5, shape ``(n, bins, pixels of the tile)``.
        """
        tiles = _Tiles(self, (intensity, uncertainty, lower_limit), n, seed, device)
        for part in tiles.parts:
            yield part, tiles.draw(part)

    def map_draws(
        self, function, intensity, uncertainty, n=64, seed=0, *, lower_limit=None, device="auto", progress=False
    ):
        """
        Reduce the draws of each pixel by a function, without holding all draws.

        Parameters
        ----------
        function : callable
            Called with the draws of a tile of pixels in cm^-5, a `~numpy.ndarray` of shape ``(n, bins, pixels)``. It
            returns an array with pixels along the last axis, or a tuple of such. Several threads call it at once.
        intensity, uncertainty, n, seed, lower_limit, device, progress
            As for `sample`.

        Returns
        -------
        `~numpy.ndarray` or `tuple` of `~numpy.ndarray`
            The results of all tiles, the last axis in the shape of the pixels.

        Examples
        --------
        The median and the 68 % interval of the EM between log T 5.95 and 6.25:

        >>> from sunpy_deepem import DeepEM
        >>> intensity = np.array([0.8, 4.5, 140.0, 170.0, 50.0, 2.7])
        >>> DeepEM.load("default").map_draws(
        ...     lambda draws: np.quantile(draws[:, 5:8].sum(axis=1), (0.16, 0.5, 0.84), axis=0),
        ...     intensity, 0.1 * intensity).shape
        (3,)
        """
        tiles = _Tiles(self, (intensity, uncertainty, lower_limit), n, seed, device)
        results = tiles.map(lambda part: function(tiles.draw(part).cpu().numpy()), progress)

        def joined(arrays):
            array = np.concatenate(arrays, axis=-1)
            return array.reshape(*array.shape[:-1], *tiles.sky)

        if isinstance(results[0], tuple):
            return tuple(joined(arrays) for arrays in zip(*results, strict=True))
        return joined(results)

    def _sharpen(self, results, arrays):
        """
        Replace the mean and half-width by those of draws, in place, where the network is not accurate enough.

        These are pixels with little noise, pixels with saturated channels, whose limits only draws respect, and pixels
        with missing channels in which the mean of the draws fits the other channels and that of the network does not.

        Parameters
        ----------
        results : `tuple` of `~torch.Tensor`
            EM and spread, or `None`, in cm^-5, shape ``(1, bins, 1, n)``.
        arrays : `tuple` of `~torch.Tensor`
            Intensity, σ and flags as of `~sunpy_deepem.network.tiles.pixel_tile`.
        """
        intensity, uncertainty, flags = arrays
        if not self.has_posterior or not intensity.numel():
            return
        # In usual pixels this is all there is to do.
        if flags is None and torch.sub(uncertainty, intensity, alpha=_NETWORK_NOISE).amin() >= 0:
            return
        matrix, network = self._posterior_on(intensity.device)
        sharp = _ramp(_least_noise(*arrays), _NETWORK_NOISE, _SHARP_NOISE)
        if flags is not None:
            saturated = flags[0, :, 0].unflatten(0, (2, -1))[1].any(dim=0)
            sharp = sharp.masked_fill_(saturated, 1)
        missed = _ramp(_misfit(results[0][0, :, 0], *arrays, matrix), _GOOD_FIT, _BAD_FIT)
        chosen = torch.maximum(sharp, missed).nonzero()[:, 0]
        if not len(chosen):
            return
        numbers = common_numbers(_SHARP_DRAWS, 0, *matrix.shape[::-1]).to(intensity.device)
        size = max(1, (_CPU_TILE if intensity.device.type == "cpu" else _GPU_TILE) // _SHARP_DRAWS)
        for pixels in chosen.split(size):
            part = [None if array is None else array[..., pixels] for array in arrays]
            draws = draw_tile(network, *part, matrix, numbers)
            mean = draws.mean(dim=0)
            explained = _ramp(_misfit(mean, *part, matrix), _NO_FIT, _BAD_FIT)
            weight = torch.maximum(sharp[pixels], missed[pixels] * explained)
            for result, new in zip(results, (mean, half_width(draws)), strict=True):
                if result is not None:
                    old = result[0, :, 0, pixels]
                    result[0, :, 0, pixels] = torch.lerp(old, new, weight)

    def _posterior_on(self, device):
        """Return the response in DN s^-1 pix^-1 for 10^25 cm^-5, and the posterior's network, on a device."""
        matrix = torch.as_tensor(self.response_matrix * EM_SCALE, dtype=torch.float32, device=device)
        posterior = in_precision(self.posterior, dtype_of("auto", device)).to(device)
        # Copies of other precision are kept for weights that do not change, but the widening is no weight.
        posterior.widening = self.posterior.widening
        return matrix, posterior


def _least_noise(intensity, uncertainty, flags):
    """Return the smallest σ over intensity of the channels used, shape ``(n,)``."""
    noise = uncertainty / intensity.abs()
    if flags is not None:
        noise = noise.masked_fill(unused(flags), torch.inf)
    return noise.amin(dim=1)[0, 0]


def _misfit(em, intensity, uncertainty, flags, matrix):
    """Return χ² of an EM in cm^-5, shape ``(bins, n)``, over the channels used, or 0 in pixels that use all."""
    if flags is None:
        return em.new_zeros(em.shape[1])
    lost = unused(flags)[0, :, 0]
    residual = (matrix @ (em / EM_SCALE) - intensity[0, :, 0]) / uncertainty[0, :, 0]
    chi2 = residual.square_().masked_fill_(lost, torch.nan).nanmean(dim=0)
    return torch.where(lost.any(dim=0), chi2, 0)


def _ramp(values, zero, one):
    """Return a weight that is 0 at one value and 1 at another, and 0 for NaN."""
    return ((values - zero) / (one - zero)).clamp(0, 1).nan_to_num_(0)


class _Tiles:
    """Tiles of the pixels of arrays, and the draws of each."""

    @with_own_settings
    def __init__(self, network, arrays, n, seed, device):
        if not network.has_posterior:
            msg = (
                "These weights have no posterior: DeepEM.load('default') has one, and 'deepem train --prior' makes it."
            )
            raise ValueError(msg)
        self.n, seed = whole_number(n, "n"), whole_number(seed, "seed", least=0)
        arrays = network._check_inputs(*arrays)
        on_tensors = isinstance(arrays[0], torch.Tensor)
        self.device = arrays[0].device if on_tensors and str(device) == "auto" else resolve_device(device)
        self.sky = tuple(arrays[0].shape[1:])
        self.arrays = [None if values is None else values.reshape(len(values), -1) for values in arrays]
        self.pixels = self.arrays[0].shape[1]
        size = max(1, (_CPU_TILE if self.device.type == "cpu" else _GPU_TILE) // self.n)
        # One empty tile where there are no pixels, so that results have their shape.
        starts = range(0, max(1, self.pixels), size)
        self.parts = [slice(start, min(start + size, self.pixels)) for start in starts]
        self._matrix, self._network = network._posterior_on(self.device)
        self._numbers = common_numbers(self.n, seed, *self._matrix.shape[::-1]).to(self.device)

    @with_own_settings
    def draw(self, part):
        """Return the draws of a tile in cm^-5, shape ``(n, bins, pixels)``."""
        with torch.inference_mode():
            intensity, uncertainty, flags = pixel_tile(self.arrays, part, self.device)
            return draw_tile(self._network, intensity, uncertainty, flags, self._matrix, self._numbers)

    def map(self, function, progress):
        """Return what a function returns for each tile."""
        with tile_map(self.device) as map_tiles:
            results = map_tiles(function, self.parts)
            return list(tqdm(results, total=len(self.parts), desc="draws", unit="tile", disable=not progress))
