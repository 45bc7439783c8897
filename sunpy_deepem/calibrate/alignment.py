"""Misalignment of the channels: `measure_misalignment`."""

import numpy as np
from scipy import fft, ndimage

from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.utils.parallel import thread_map

__all__ = ["REFERENCE_CHANNEL", "block_mean", "measure_misalignment"]

#: Channel relative to which shifts are measured. It shows quiet corona as well as active regions.
REFERENCE_CHANNEL = 193
# Larger images are averaged to this size; structures of some arcsec determine shifts to a tenth of a pixel.
_MAX_SIZE = 512
# Larger structures are removed: σ of a Gaussian, in pixels of the averaged image.
_SMOOTHING = 6
# Every such pixel is enough for the scale of an image.
_SCALE_STEP = 4
# Largest shift considered, in pixels of the averaged image.
_MAX_SHIFT = 12
# Structures are clipped at this many standard deviations.
_CLIP = 3.0
# Images with a lower correlation are not compared.
_MIN_CORRELATION = 0.3


def measure_misalignment(intensity):
    """
    Measure the shift of each channel relative to 193 Å by cross-correlation of small-scale structure.

    Parameters
    ----------
    intensity : `~numpy.ndarray`
        Intensities in any unit, shape ``(6, ny, nx)``. Values that are not finite count as zero.

    Returns
    -------
    `~numpy.ndarray`
        Shift of each channel along y and x in pixels, shape ``(6, 2)``. Positive shifts are up and to the right. NaN
        where the correlation is too low.

    Examples
    --------
    >>> from sunpy_deepem.calibrate import measure_misalignment
    >>> image = np.random.default_rng(0).normal(size=(64, 64)).cumsum(axis=0).cumsum(axis=1) ** 2
    >>> shifted = [np.roll(image, (shift, 0), (0, 1)) for shift in (2, 0, 0, 0, 0, 0)]
    >>> bool(np.allclose(measure_misalignment(np.array(shifted))[0], [2, 0], atol=0.1))
    True
    """
    factor = max(1, -(-max(intensity.shape[1:]) // _MAX_SIZE))
    shape = tuple(n // factor for n in intensity.shape[1:])
    with thread_map() as map_images:
        spectra = list(map_images(lambda image: fft.rfft2(_structure(image, factor)), intensity))
        reference = np.conj(spectra[CHANNELS.index(REFERENCE_CHANNEL)])
        shifts = list(map_images(lambda spectrum: _shift(spectrum * reference, shape), spectra))
    return np.array(shifts) * factor


def block_mean(image, factor):
    """Average blocks of ``factor`` × ``factor`` pixels in double precision; incomplete blocks are dropped."""
    ny, nx = (n // factor for n in image.shape)
    return image[: ny * factor, : nx * factor].reshape(ny, factor, nx, factor).mean(axis=(1, 3), dtype=float)


def _structure(image, factor):
    """Return the small-scale structure of the averaged image, tapered at the edges and with unit norm."""
    image = block_mean(np.nan_to_num(image, posinf=0, neginf=0), factor)
    scale = np.median(np.abs(image[::_SCALE_STEP, ::_SCALE_STEP])) or 1.0
    image = np.arcsinh((image / scale).astype(np.float32))
    image -= ndimage.gaussian_filter(image, _SMOOTHING)
    # Hot or saturated pixels would dominate the correlation.
    limit = _CLIP * np.std(image)
    image = np.clip(image, -limit, limit)
    for axis, n in enumerate(image.shape):
        image *= np.expand_dims(np.hanning(n).astype(np.float32), 1 - axis)
    image -= image.mean()
    return image / (np.linalg.norm(image) or 1.0)


def _shift(spectrum, shape):
    """Return the shift along y and x at the maximum of a correlation, to a fraction of a pixel, from its spectrum."""
    correlation = fft.fftshift(fft.irfft2(spectrum, s=shape))
    center = [n // 2 for n in shape]
    reach = [min(_MAX_SHIFT, n // 2 - 1) for n in shape]
    near = correlation[tuple(slice(c - r, c + r + 1) for c, r in zip(center, reach, strict=True))]
    peak = np.unravel_index(near.argmax(), near.shape)
    if near[peak] < _MIN_CORRELATION:
        return np.full(2, np.nan)
    profiles = near[:, peak[1]], near[peak[0]]
    return np.array([_vertex(profile, at) - r for profile, at, r in zip(profiles, peak, reach, strict=True)])


def _vertex(values, at):
    """Return the vertex of the parabola through the three values around ``at``."""
    if not 0 < at < values.size - 1:
        return float(at)
    before, here, after = values[at - 1 : at + 2]
    curvature = before - 2 * here + after
    return at + (0.5 * (before - after) / curvature if curvature < 0 else 0.0)
