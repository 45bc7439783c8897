"""From a good first guess of the EM to one that explains what was observed: `refine`."""

import numpy as np

from sunpy_deepem._checks import plain_array, real_number, whole_number
from sunpy_deepem.channels import CHANNELS

__all__ = ["UPDATES", "refine"]

#: Updates of `refine` that `sunpy_deepem.invert` allows itself.
UPDATES = 20
# Pixels worked on at a time, few enough to stay in a CPU's cache.
_TILE = 4096
# Unit of EM in cm^-5 that keeps squares within single precision.
_UNIT = 1e25
# No bin falls below this share of what it was before the first update, nor after that below this share of what it then
# was: what the network did not rule out, six channels do not either.
_LEAST_SHARE = 1e-3
# No bin changes by more than this in one update, in ln(EM).
_LARGEST_CHANGE = 3.0
# Nor is the spread of a bin taken for more than so many times its EM, or it would grow without limit along with that.
_LARGEST_RATIO = 10.0
# Damping of an update: how it grows after one that failed and falls after one that did not, and when to give up.
_GROW, _FALL, _MOST_DAMPING = 10.0, 3.0, 1e6
# A pixel of which an update leaves more than this of χ² gains too little, and gets no more of them.
_LEAST_GAIN = 0.99
# Pixels that are done are put aside when they are more than this share of those worked on.
_DONE_SHARE = 0.25


def refine(em, intensity, uncertainty, matrix, *, em_std=None, updates=UPDATES, tolerance=2.0, target=1.0, out=None):
    r"""
    Move the EM of pixels that fit badly towards the observed intensities.

    An update is that of optimal estimation, with the EM before it as the prior mean, made in ln(EM) so that none turns
    negative:

    .. math::

        \mathrm{EM}_j \leftarrow \mathrm{EM}_j \exp\Bigl(\frac{s_j^2}{\mathrm{EM}_j} \sum_i K_{ij} \lambda_i\Bigr),
        \quad \Bigl(\Sigma + K \,\mathrm{diag}(s^2)\, K^T\Bigr) \lambda = g - K \,\mathrm{EM},

    where Σ holds σ² of the intensities and s is the spread of the EM, which keeps its ratio to the EM. A pixel is
    updated if its χ² (mean over channels) is above ``tolerance``, more than noise explains, and then until it is at
    most ``target``, since beyond that only noise would be fitted, or an update lowers it by less than a hundredth. One
    that does not lower χ² is not made.

    Parameters
    ----------
    em : `~numpy.ndarray`
        First guess in cm^-5, not negative, shape ``(number of bins, ...)``. NaN stays NaN.
    intensity, uncertainty : `~numpy.ndarray`
        In DN s^-1 pix^-1, shape ``(6, ...)``.
    matrix : `~numpy.ndarray`
        Response in cm^5 DN s^-1 pix^-1, shape ``(6, number of bins)``.
    em_std : `~numpy.ndarray`, optional
        Spread of the first guess in cm^-5, of the shape of ``em``, by default the first guess itself.
    updates : `int`, optional
        The most updates that a pixel gets; zero leaves the EM as it is.
    tolerance, target : `float`, optional
        χ² above which to update, and at which to stop.
    out : `~numpy.ndarray`, optional
        Where to put the result, of the shape and type of ``em``, which it may be itself.

    Returns
    -------
    `~numpy.ndarray`
        EM in cm^-5, of the shape and type of ``em``. In no pixel is χ² higher than it was.

    Raises
    ------
    TypeError
        If an argument carries a unit or holds something else than real numbers.
    ValueError
        If shapes do not fit, σ is not positive where the intensity is finite, or ``em``, ``updates``, ``tolerance`` or
        ``target`` are negative, or ``out`` does not fit.

    References
    ----------
    Rodgers (1976), Rev. Geophys. 14, 609, https://doi.org/10.1029/RG014i004p00609

    Examples
    --------
    >>> import numpy as np
    >>> from sunpy_deepem import TemperatureResponse
    >>> from sunpy_deepem.refinement import refine
    >>> matrix = TemperatureResponse.default().matrix.value
    >>> intensity = matrix @ np.full(18, 1e26)
    >>> em = refine(np.full(18, 2e26), intensity, 0.1 * intensity, matrix)
    >>> bool(abs((matrix @ em) / intensity - 1).max() < 0.1)
    True
    """
    em = plain_array(em, "em", unit="cm-5")
    em = em if em.dtype.kind == "f" else em.astype(float)
    em_std = em if em_std is None else plain_array(em_std, "em_std", unit="cm-5")
    intensity, uncertainty = plain_array(intensity, "intensity"), plain_array(uncertainty, "uncertainty")
    matrix = plain_array(matrix, "matrix", unit="cm5 DN / (s pix)")
    updates = whole_number(updates, "updates", least=0)
    _check(em, em_std, intensity, uncertainty, matrix, tolerance, target)
    em_std = em.copy() if out is em_std else em_std  # which is then changed
    result = _result_in(out, em)
    if not updates:
        return result
    refined, *arrays = (array.reshape(array.shape[0], -1) for array in (result, em_std, intensity, uncertainty))
    # Few pixels need it, and fewer need more; they are brought together, since work on many at once is quicker.
    poor, left = np.flatnonzero(_poor(refined, *arrays[1:], matrix, tolerance)), []
    for start in range(0, poor.size, _TILE):
        pixels = poor[start : start + _TILE]
        columns = [array[:, pixels] for array in (refined, *arrays)]
        more = _update_once(*columns, matrix) > target
        refined[:, pixels] = columns[0]
        left.append((pixels[more], *(array[:, more].astype(float) for array in columns)))
        if start + _TILE >= poor.size or sum(part[0].size for part in left) >= _TILE:
            pixels, *columns = (np.concatenate(parts, axis=-1) for parts in zip(*left, strict=True))
            refined[:, pixels] = _refined(*columns, matrix, updates - 1, target)
            left.clear()
    return result


def _result_in(out, em):
    """Return an array that starts as ``em`` and can be reshaped without a copy."""
    if out is None:
        return np.array(em, order="C")
    if not (isinstance(out, np.ndarray) and out.shape == em.shape and out.dtype == em.dtype and out.flags.c_contiguous):
        msg = f"out must be a contiguous array of {em.dtype} of shape {em.shape}, as em is, found {out!r}."
        raise ValueError(msg)
    if out is not em:
        np.copyto(out, em)
    return out


def _check(em, em_std, intensity, uncertainty, matrix, tolerance, target):
    sky = em.shape[1:]
    expected = {"em": (em, (*matrix.shape[1:2], *sky)), "matrix": (matrix, (len(CHANNELS), *em.shape[:1]))}
    expected |= {"em_std": (em_std, em.shape)}
    expected |= {"intensity": (intensity, (len(CHANNELS), *sky)), "uncertainty": (uncertainty, (len(CHANNELS), *sky))}
    for name, (array, shape) in expected.items():
        if array.shape != shape:
            msg = f"{name} must have shape {shape}, found {array.shape}."
            raise ValueError(msg)
    for name, value in (("tolerance", tolerance), ("target", target)):
        if not real_number(value, name) >= 0:
            msg = f"{name} must not be negative, found {value}."
            raise ValueError(msg)
    if (em < 0).any():
        msg = f"em must not be negative, found {np.count_nonzero(em < 0)} of {em.size} values that are."
        raise ValueError(msg)
    if wrong := np.count_nonzero(np.isfinite(intensity) & ~(uncertainty > 0)):
        msg = f"uncertainty must be positive wherever intensity is finite; it is not in {wrong} of {intensity.size}."
        raise ValueError(msg)


def _poor(em, observed, sigma, matrix, tolerance):
    """Return whether χ² is above ``tolerance``, shape ``(n,)``."""
    result = np.empty(em.shape[1], dtype=bool)
    matrix = matrix.astype(em.dtype)
    for start in range(0, result.size, _TILE):
        part = slice(start, start + _TILE)
        with np.errstate(invalid="ignore"):
            result[part] = _chi2(observed[:, part] - matrix @ em[:, part], sigma[:, part]) > tolerance
    return result


def _update_once(em, em_std, observed, sigma, matrix):
    """
    Update ``em`` (bins, n) in place, and its spread along with it, and return χ² (n,).

    In the precision of ``em``: for most pixels one update is enough, and single precision enough for one.
    """
    dtype = em.dtype
    observed, sigma = (array.astype(dtype, copy=False) for array in (observed, sigma))
    matrix = (matrix * _UNIT).astype(dtype)
    current, variance = em / dtype.type(_UNIT), np.square(em_std / dtype.type(_UNIT), dtype=dtype)
    residual = observed - matrix @ current
    # What is out of range does not lower χ², and is not taken.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        proposed = _update(current, variance, residual, sigma, matrix, 1)
        np.maximum(proposed, _LEAST_SHARE * current, out=proposed)
        chi2, new_chi2 = _chi2(residual, sigma), _chi2(observed - matrix @ proposed, sigma)
    better = new_chi2 < chi2
    np.copyto(em, proposed * dtype.type(_UNIT), where=better)
    growth = np.divide(proposed, current, out=np.ones_like(current), where=current > 0)
    np.multiply(em_std, growth, out=em_std, where=better)
    return np.where(better, new_chi2, chi2)


def _refined(em, em_std, observed, sigma, matrix, updates, target):
    """
    Return ``em`` (bins, n) after updates.

    In double precision: squares of what a bright pixel allows are large, and channels that tell nearly the same must be
    told apart.
    """
    result, pixels = np.empty_like(em), np.arange(em.shape[1])
    variance = np.square(np.minimum(np.divide(em_std, em, out=np.zeros_like(em), where=em > 0), _LARGEST_RATIO))
    current, floor, damping = em.copy(), _LEAST_SHARE * em, np.ones_like(em[0])
    residual = observed - matrix @ current
    chi2 = _chi2(residual, sigma)
    going = chi2 > target
    for _ in range(updates):
        if not going.any():
            break
        if going.mean() < 1 - _DONE_SHARE:
            result[:, pixels[~going]] = current[:, ~going]
            pixels, current, floor, variance, observed, sigma, residual, damping, chi2 = (
                array[..., going]
                for array in (pixels, current, floor, variance, observed, sigma, residual, damping, chi2)
            )
            going = np.ones_like(pixels, dtype=bool)
        proposed = _update(current, variance * np.square(current), residual, sigma, matrix, damping)
        np.maximum(proposed, floor, out=proposed)
        new_residual = observed - matrix @ proposed
        new_chi2 = _chi2(new_residual, sigma)
        better = going & (new_chi2 < chi2)
        going &= ~better | ((new_chi2 > target) & (new_chi2 < _LEAST_GAIN * chi2))
        for array, new in ((current, proposed), (residual, new_residual), (chi2, new_chi2)):
            np.copyto(array, new, where=better)
        damping *= np.where(better, 1 / _FALL, _GROW)
        going &= damping < _MOST_DAMPING
    result[:, pixels] = current
    return result


def _update(em, variance, residual, sigma, matrix, damping):
    """
    Return EM (bins, n) after one update, ``variance`` being that of the EM.

    ``residual`` and ``sigma`` (channels, n) are of the intensities.
    """
    rows, columns = np.triu_indices(len(matrix))
    normal = (matrix[rows] * matrix[columns]) @ variance
    least = damping * np.square(sigma)
    normal[rows == columns] += least
    # A bin without EM stays without.
    change = np.divide(variance, em, out=np.zeros_like(em), where=em > 0)
    change *= matrix.T @ _solve(normal, residual, least)
    np.clip(change, -_LARGEST_CHANGE, _LARGEST_CHANGE, out=change)
    np.exp(change, out=change)
    change *= em
    return change


def _solve(normal, right, least):
    """
    Solve symmetric, positive definite systems by elimination.

    For thousands of small systems at once this is faster than `numpy.linalg.solve`. Overwrites ``normal``, the upper
    triangle row by row, shape (k (k + 1) / 2, n), for ``right`` (k, n). No pivot is below ``least`` (k, n), whatever
    rounding says.
    """
    right = right.copy()
    k = len(right)
    # Row i of the triangle, from its diagonal on.
    ends = np.cumsum(np.arange(k, 0, -1))
    upper = [normal[end - size : end] for end, size in zip(ends, range(k, 0, -1), strict=True)]
    for row in range(k):
        np.maximum(upper[row][0], least[row], out=upper[row][0])
        for below in range(row + 1, k):
            factor = upper[row][below - row] / upper[row][0]
            upper[below] -= factor * upper[row][below - row :]
            right[below] -= factor * right[row]
    for row in reversed(range(k)):
        for above in range(row + 1, k):
            right[row] -= upper[row][above - row] * right[above]
        right[row] /= upper[row][0]
    return right


def _chi2(residual, sigma):
    return np.mean(np.square(residual / sigma), axis=0)
