"""Random images that look like solar structure."""

import numpy as np
from scipy import fft, ndimage

__all__ = ["bright_points", "fibril_field", "network_lanes", "random_field"]


def _filtered_noise(rng, shape, amplitude, aspect=1.0):
    """Gaussian field of zero mean and unit variance; ``amplitude`` is a function of cycles per width."""
    ky = np.fft.fftfreq(shape[0], 1 / shape[0])[:, np.newaxis].astype(np.float32)
    kx = np.fft.rfftfreq(shape[1], 1 / shape[1]).astype(np.float32)
    waves = fft.rfft2(rng.standard_normal(shape, dtype=np.float32))
    field = fft.irfft2(waves * amplitude(np.hypot(aspect * ky, kx)), s=shape)
    return (field - field.mean()) / field.std()


def random_field(rng, shape, slope, *, longest, aspect=1.0):
    """Power-law field: amplitude k**-slope for waves shorter than ``longest``, a fraction of the width."""
    return _filtered_noise(rng, shape, lambda k: (1 + (k * longest) ** 2) ** (-slope / 2), aspect)


def network_lanes(rng, shape, wavelength, width):
    """Web of bright lanes, 0 to 1: zero contours of a field of one wavelength, a fraction of the width."""
    field = _filtered_noise(rng, shape, lambda k: np.exp(-0.5 * ((k * wavelength - 1) / 0.3) ** 2))
    return np.exp(-((field / width) ** 2))


def fibril_field(rng, shape, steps):
    """Gaussian field of unit variance, smeared along the directions of a smoother field."""
    image = random_field(rng, shape, 0.7, longest=0.05)
    angle = 3 * random_field(rng, shape, 3.0, longest=0.06)
    down, right = 1.5 * np.sin(angle), 1.5 * np.cos(angle)
    rows, columns = (np.arange(side, dtype=np.float32) for side in shape)
    drawn = np.zeros(shape, dtype=np.float32)
    for step in range(-steps, steps + 1):
        row = np.rint(rows[:, np.newaxis] + step * down).astype(np.int32) % shape[0]
        column = np.rint(columns + step * right).astype(np.int32) % shape[1]
        drawn += image.ravel().take(row * shape[1] + column)
    return (drawn - drawn.mean()) / drawn.std()


def bright_points(rng, shape, number):
    """Image of small elongated bipoles with peaks of order one."""
    image = np.zeros(shape, dtype=np.float32)
    place, lean = rng.integers(0, shape[0], (2, number)), rng.integers(-2, 3, (2, number))
    peak = rng.lognormal(-0.5, 0.7, number)
    for step in (-1, 0, 1):
        np.add.at(image, tuple((place + step * lean) % shape[0]), peak)
    return ndimage.gaussian_filter(image, 1.1, mode="wrap") * (1.1**2 * np.pi)
