"""How well the channels lie on top of each other: `measure_misalignment`."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy import fft, ndimage

from sunpy_deepem.channels import CHANNELS

__all__ = ["REFERENCE_CHANNEL", "measure_misalignment", "reduced"]

#: The channel against which the others are measured: it shows quiet corona as well as active regions.
REFERENCE_CHANNEL = 193
# Structure larger than this, in pixels of the image that is correlated, is taken away.
_SMOOTHING = 6
# Shifts are looked for within this many such pixels.
_RANGE = 12
# Structure beyond this many standard deviations is clipped.
_CLIP = 3.0
# Larger images are averaged down to this: structure of some arcsec suffices for a tenth of a pixel.
_LARGEST = 512
# Correlation below which two images have too little in common to be compared.
_LEAST_CORRELATION = 0.3


def measure_misalignment(intensity):
    """
    Measure the shift of each channel against 193 Å by cross-correlation of their small-scale structure.

    Parameters
    ----------
    intensity : `~numpy.ndarray`
        Any intensities, shape ``(6, ny, nx)``; what is not finite counts as zero.

    Returns
    -------
    `~numpy.ndarray`
        Shift of each channel along y and x in pixels, shape ``(6, 2)``: a positive one says that the channel's Sun lies
        further up or to the right. NaN where the images have too little in common.

    Examples
    --------
    >>> from sunpy_deepem.calibrate import measure_misalignment
    >>> image = np.random.default_rng(0).normal(size=(64, 64)).cumsum(axis=0).cumsum(axis=1) ** 2
    >>> shifted = [np.roll(image, (shift, 0), (0, 1)) for shift in (2, 0, 0, 0, 0, 0)]
    >>> bool(np.allclose(measure_misalignment(np.array(shifted))[0], [2, 0], atol=0.1))
    True
    """
    factor = max(1, -(-max(intensity.shape[1:]) // _LARGEST))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        images = list(pool.map(lambda image: _structure(image, factor), intensity))
    reference = fft.rfft2(images[CHANNELS.index(REFERENCE_CHANNEL)])
    return np.array([_shift(image, reference) for image in images]) * factor


def reduced(image, factor):
    """Average an image over blocks of ``factor`` × ``factor`` pixels; what fills no block at the end is left out."""
    ny, nx = (n // factor for n in image.shape)
    return image[: ny * factor, : nx * factor].reshape(ny, factor, nx, factor).mean(axis=(1, 3), dtype=float)


def _structure(image, factor):
    """Return the small-scale structure of an image that is averaged, with unit norm, fading towards the edges."""
    image = reduced(np.nan_to_num(image, posinf=0, neginf=0), factor)
    scale = np.median(np.abs(image)) or 1.0
    image = np.arcsinh(image / scale)
    image = image - ndimage.gaussian_filter(image, _SMOOTHING)
    # A hot pixel, or one that is saturated, must not outweigh the Sun.
    limit = _CLIP * np.std(image)
    image = np.clip(image, -limit, limit)
    image *= np.hanning(image.shape[0])[:, np.newaxis] * np.hanning(image.shape[1])
    image -= image.mean()
    return image / (np.linalg.norm(image) or 1.0)


def _shift(image, reference):
    """Return the shift along y and x at which the correlation peaks, to a fraction of a pixel."""
    correlation = fft.fftshift(fft.irfft2(fft.rfft2(image) * np.conj(reference), s=image.shape))
    center = [n // 2 for n in image.shape]
    reach = [min(_RANGE, n // 2 - 1) for n in image.shape]
    near = correlation[tuple(slice(c - r, c + r + 1) for c, r in zip(center, reach, strict=True))]
    peak = np.unravel_index(near.argmax(), near.shape)
    if near[peak] < _LEAST_CORRELATION:
        return np.full(2, np.nan)
    profiles = near[:, peak[1]], near[peak[0]]
    return np.array([_vertex(profile, at) - r for profile, at, r in zip(profiles, peak, reach, strict=True)])


def _vertex(values, at):
    """Return where the parabola through the three values around ``at`` peaks."""
    if not 0 < at < values.size - 1:
        return float(at)
    before, here, after = values[at - 1 : at + 2]
    curvature = before - 2 * here + after
    return at + (0.5 * (before - after) / curvature if curvature < 0 else 0.0)
