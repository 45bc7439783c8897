"""From a good first guess of the EM to one that explains what was observed: `refine`."""

import numpy as np

from sunpy_deepem.channels import CHANNELS

__all__ = ["UPDATES", "refine"]

#: Updates of `refine` that `sunpy_deepem.invert` allows itself.
UPDATES = 100
# Pixels worked on at a time, few enough to stay in a CPU's cache.
_TILE = 8192
# Work in units of 10^25 cm^-5 keeps single precision far from its limits.
_EM_UNIT = 1e25
# No bin falls below this share of its first guess: what the network did not rule out, six channels do not either.
_LEAST_SHARE = np.float32(1e-3)


def refine(em, intensity, uncertainty, matrix, *, updates=UPDATES, target=1.0):
    r"""
    Move the EM of pixels that fit badly towards the observed intensities.

    The multiplicative update of least squares with weights 1/σ²,

    .. math:: \mathrm{EM}_j \leftarrow \mathrm{EM}_j \,
        \frac{\sum_i K_{ij} g_i / \sigma_i^2}{\sum_i K_{ij} (K \mathrm{EM})_i / \sigma_i^2},

    keeps the EM positive and does not raise χ². A pixel is updated until its χ² (mean over channels) is at most
    ``target``, since beyond that only noise would be fitted; negative intensities count as zero in the update.

    Parameters
    ----------
    em : `~numpy.ndarray`
        First guess in cm^-5, not negative, shape ``(number of bins, ...)``. NaN stays NaN.
    intensity, uncertainty : `~numpy.ndarray`
        In DN s^-1 pix^-1, shape ``(6, ...)``.
    matrix : `~numpy.ndarray`
        Response in cm^5 DN s^-1 pix^-1, shape ``(6, number of bins)``.
    updates : `int`, optional
        The most updates that a pixel gets; zero leaves the EM as it is.
    target : `float`, optional
        χ² at which to stop.

    Returns
    -------
    `~numpy.ndarray`
        EM in cm^-5, of the shape and type of ``em``. In no pixel is χ² higher than it was.

    Raises
    ------
    ValueError
        If shapes do not fit, or ``updates`` or ``target`` are negative.

    References
    ----------
    Daube-Witherspoon & Muehllehner (1986), IEEE Trans. Med. Imaging 5, 61, https://doi.org/10.1109/TMI.1986.4307748

    Examples
    --------
    >>> import numpy as np
    >>> from sunpy_deepem import TemperatureResponse
    >>> from sunpy_deepem.refinement import refine
    >>> matrix = TemperatureResponse.default().matrix.value
    >>> intensity = matrix @ np.full(18, 1e26)
    >>> em = refine(np.full(18, 2e26), intensity, 0.1 * intensity, matrix)
    >>> bool(abs((matrix @ em) / intensity - 1).max() < 0.2)
    True
    """
    sky = em.shape[1:]
    expected = {"em": (em, (matrix.shape[1], *sky)), "matrix": (matrix, (len(CHANNELS), em.shape[0]))}
    expected |= {"intensity": (intensity, (len(CHANNELS), *sky)), "uncertainty": (uncertainty, (len(CHANNELS), *sky))}
    for name, (array, shape) in expected.items():
        if array.shape != shape:
            msg = f"{name} must have shape {shape}, found {array.shape}."
            raise ValueError(msg)
    if int(updates) != updates or updates < 0 or not target >= 0:
        msg = f"updates must be a whole number and target a number, neither negative, found {updates} and {target}."
        raise ValueError(msg)
    refined = em.reshape(em.shape[0], -1).copy()
    observed, sigma = (
        np.asarray(array, dtype=np.float32).reshape(len(CHANNELS), -1) for array in (intensity, uncertainty)
    )
    scaled = (matrix * _EM_UNIT).astype(np.float32)
    for start in range(0, refined.shape[1], _TILE):
        part = slice(start, start + _TILE)
        _refine_tile(refined[:, part], observed[:, part], sigma[:, part], scaled, updates, target)
    return refined.reshape(em.shape)


def _refine_tile(em, observed, sigma, matrix, updates, target):
    """Update ``em`` (bins, n), in cm^-5, in place."""
    pixels = np.flatnonzero(np.isfinite(em).all(axis=0) & np.isfinite(observed).all(axis=0))
    current = (em[:, pixels] / _EM_UNIT).astype(np.float32)
    observed, weight = observed[:, pixels], 1 / sigma[:, pixels]
    floor = _LEAST_SHARE * current
    pull = matrix.T @ (np.maximum(observed, 0) * weight**2)
    model = matrix @ current
    chi2 = _chi2(model, observed, weight)
    for _ in range(updates):
        # Where nothing positive was observed an update would leave no EM at all.
        going = (chi2 > target) & (pull.max(axis=0) > 0)
        if not going.any():
            break
        pixels, current, floor, observed, weight, pull, model, chi2 = (
            array[..., going] for array in (pixels, current, floor, observed, weight, pull, model, chi2)
        )
        proposed = np.maximum(current * (pull / (matrix.T @ (model * weight**2))), floor)
        model = matrix @ proposed
        proposed_chi2 = _chi2(model, observed, weight)
        better = proposed_chi2 < chi2
        em[:, pixels[better]] = proposed[:, better] * np.float32(_EM_UNIT)
        # A pixel that gets no better is done.
        current, chi2 = proposed, np.where(better, proposed_chi2, -np.inf)


def _chi2(model, observed, weight):
    return np.mean(np.square((model - observed) * weight), axis=0)
