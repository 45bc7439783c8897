"""Refinement of an EM to fit the observed intensities: `refine`."""

import numpy as np
import torch

from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.network.tiles import GPU_TILE, check_array, to_tensor
from sunpy_deepem.units import EM_SCALE
from sunpy_deepem.utils.checks import real_number, whole_number
from sunpy_deepem.utils.parallel import tile_map

__all__ = ["UPDATES", "refine"]

#: Default limit on the updates of `refine` in `sunpy_deepem.invert`.
UPDATES = 20
# Pixels per tile on a CPU; they stay close to its cache.
_TILE = 8192
# Least number of pixels per thread, so that enough of them need an update.
_PART = 2**16
# Floor per bin, relative to the EM before the first update and again after it: six channels cannot rule out what the
# network did not.
_LEAST_FRACTION = 1e-3
# Largest change of a bin in one update, in ln(EM).
_LARGEST_CHANGE = 3.0
# Largest ratio of spread to EM; without a limit both would grow indefinitely.
_LARGEST_RATIO = 10.0
# Damping of an update: growth after a failure, fall after a success, and limit at which to give up.
_GROW, _FALL, _MOST_DAMPING = 10.0, 3.0, 1e6
# Pixels whose χ² stays above this fraction of its previous value gain too little; they get no more updates.
_LEAST_GAIN = 0.99
# Finished pixels are removed when they exceed this fraction.
_DONE_FRACTION = 0.25


def refine(em, intensity, uncertainty, matrix, *, em_std=None, updates=UPDATES, tolerance=2.0, target=1.0, out=None):
    r"""
    Update the EM of pixels that fit badly towards the observed intensities.

    The update is that of optimal estimation, with the current EM as the prior mean, in ln(EM) so that no bin becomes
    negative:

    .. math::

        \mathrm{EM}_j \leftarrow \mathrm{EM}_j \exp\Bigl(\frac{s_j^2}{\mathrm{EM}_j} \sum_i K_{ij} \lambda_i\Bigr),
        \quad \Bigl(\Sigma + K \,\mathrm{diag}(s^2)\, K^T\Bigr) \lambda = g - K \,\mathrm{EM},

    where Σ holds σ² of the intensities and s is the spread of the EM, at a constant ratio to the EM. Pixels whose χ²
    (mean over channels) is above ``tolerance`` are updated until χ² is at most ``target``, below which only noise would
    be fitted, or an update lowers it by less than 1 %. Updates that do not lower χ² are rejected.

    Parameters
    ----------
    em : `~numpy.ndarray` or `torch.Tensor`
        Initial EM in cm^-5, not negative, shape ``(number of bins, ...)``. NaN stays NaN. Tensors are refined on their
        device.
    intensity, uncertainty : `~numpy.ndarray` or `torch.Tensor`
        In DN s^-1 pix^-1, shape ``(6, ...)``.
    matrix : `~numpy.ndarray`
        Response in cm^5 DN s^-1 pix^-1, shape ``(6, number of bins)``.
    em_std : `~numpy.ndarray` or `torch.Tensor`, optional
        Spread of the initial EM in cm^-5, of the same shape; by default the EM itself.
    updates : `int`, optional
        Largest number of updates of a pixel; zero returns the EM unchanged.
    tolerance, target : `float`, optional
        χ² above which a pixel is updated, and at which the updates stop.
    out : `~numpy.ndarray` or `torch.Tensor`, optional
        Output of the shape and type of ``em``; may be ``em`` itself.

    Returns
    -------
    `~numpy.ndarray` or `torch.Tensor`
        EM in cm^-5, of the shape and type of ``em``. χ² increases in no pixel.

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
    >>> from sunpy_deepem import TemperatureResponse
    >>> from sunpy_deepem.network import refine
    >>> matrix = TemperatureResponse.default().matrix.value
    >>> intensity = matrix @ np.full(18, 1e26)
    >>> em = refine(np.full(18, 2e26), intensity, 0.1 * intensity, matrix)
    >>> bool(abs((matrix @ em) / intensity - 1).max() < 0.1)
    True
    """
    em = check_array(em, "em", unit="cm-5")
    em = em if _is_float(em) else em + 0.0
    em_std = em if em_std is None else check_array(em_std, "em_std", unit="cm-5")
    intensity, uncertainty = check_array(intensity, "intensity"), check_array(uncertainty, "uncertainty")
    matrix = check_array(matrix, "matrix", unit="cm5 DN / (s pix)")
    updates = whole_number(updates, "updates", least=0)
    # Apple's GPUs have no double precision.
    device = em.device if isinstance(em, torch.Tensor) and em.device.type != "mps" else torch.device("cpu")
    inputs = [to_tensor(array, device) for array in (em, em_std, intensity, uncertainty, matrix)]
    _check(*inputs, tolerance, target)
    result = _result_in(out, em)
    # The updates need the initial spread, so copy it if it is overwritten.
    refined, em_std = to_tensor(result, device), inputs[1].clone() if em_std is out else inputs[1]
    _refine_all(refined, em_std, *inputs[2:], updates, tolerance, target)
    if isinstance(result, torch.Tensor):
        return result if refined.data_ptr() == result.data_ptr() else result.copy_(refined)
    if refined.data_ptr() != result.ctypes.data:
        result[...] = refined.numpy()
    return result


def _is_float(array):
    return array.is_floating_point() if isinstance(array, torch.Tensor) else array.dtype.kind == "f"


def _result_in(out, em):
    """Return an array or tensor that starts as ``em``, contiguous."""
    if isinstance(em, torch.Tensor):
        kind, result = torch.Tensor, em.detach().clone(memory_format=torch.contiguous_format) if out is None else out
        good = isinstance(out, kind) and out.is_contiguous() and out.device == em.device and not out.requires_grad
    else:
        kind, result = np.ndarray, np.array(em, order="C") if out is None else out
        good = isinstance(out, kind) and out.flags.c_contiguous and out.flags.writeable
    if out is None:
        return result
    if not (good and out.shape == em.shape and out.dtype == em.dtype):
        found = f"{out.dtype} of shape {tuple(out.shape)}" if isinstance(out, kind) else type(out).__name__
        msg = (
            f"out must match em, contiguous and writeable: {kind.__name__} of {em.dtype} of shape "
            f"{tuple(em.shape)}, found {found}."
        )
        raise ValueError(msg)
    if out is not em:
        out[...] = em
    return out


def _check(em, em_std, intensity, uncertainty, matrix, tolerance, target):
    sky = em.shape[1:]
    expected = {"em": (em, (*matrix.shape[1:2], *sky)), "matrix": (matrix, (len(CHANNELS), *em.shape[:1]))}
    expected |= {"em_std": (em_std, em.shape)}
    expected |= {"intensity": (intensity, (len(CHANNELS), *sky)), "uncertainty": (uncertainty, (len(CHANNELS), *sky))}
    for name, (array, shape) in expected.items():
        if array.shape != shape:
            msg = f"{name} must have shape {tuple(shape)}, found {tuple(array.shape)}."
            raise ValueError(msg)
    for name, value in (("tolerance", tolerance), ("target", target)):
        if not real_number(value, name) >= 0:
            msg = f"{name} must not be negative, found {value}."
            raise ValueError(msg)
    if (em < 0).any():
        msg = f"em must not be negative, found {int((em < 0).sum())} of {em.numel()} values that are."
        raise ValueError(msg)
    if wrong := int((torch.isfinite(intensity) & ~(uncertainty > 0)).sum()):
        msg = f"uncertainty must be positive wherever intensity is finite; it is not in {wrong} of {intensity.numel()}."
        raise ValueError(msg)


def _refine_all(em, em_std, observed, sigma, matrix, updates, tolerance, target):
    """Refine ``em`` in place, on all cores of a CPU."""
    arrays = [array.reshape(array.shape[0], -1) for array in (em, em_std, observed, sigma)]
    n, on_cpu = arrays[0].shape[1], em.device.type == "cpu"
    step = max(_PART, -(-n // torch.get_num_threads())) if on_cpu else max(1, n)
    tile = _TILE if on_cpu else GPU_TILE

    def run(start):
        with torch.inference_mode():
            part = (array[:, start : start + step] for array in arrays)
            _refine_part(*part, matrix.double(), updates, tolerance, target, tile)

    if updates:
        with tile_map(em.device) as map_parts:
            list(map_parts(run, range(0, n, step)))


def _refine_part(em, em_std, observed, sigma, matrix, updates, tolerance, target, tile):
    """Refine ``em`` (bins, n) in place, a tile at a time."""
    # Few pixels need an update, and fewer need several; they are gathered, since large batches are faster.
    poor, left = _poor(em, observed, sigma, matrix, tolerance, tile), []
    for start in range(0, len(poor), tile):
        pixels = poor[start : start + tile]
        columns = [array[:, pixels] for array in (em, em_std, observed, sigma)]
        more = _update_once(*columns, matrix) > target
        em[:, pixels] = columns[0]
        left.append((pixels[more], *(array[:, more].double() for array in columns)))
        if start + tile >= len(poor) or sum(len(part[0]) for part in left) >= tile:
            pixels, *columns = (torch.cat(parts, dim=-1) for parts in zip(*left, strict=True))
            em[:, pixels] = _refined(*columns, matrix, updates - 1, target).to(em.dtype)
            left.clear()


def _poor(em, observed, sigma, matrix, tolerance, tile):
    """Return the indices of pixels with χ² above ``tolerance``."""
    matrix, poor = matrix.to(em.dtype), torch.empty(em.shape[1], dtype=torch.bool, device=em.device)
    for start in range(0, len(poor), tile):
        part = slice(start, start + tile)
        poor[part] = _chi2(observed[:, part] - matrix @ em[:, part], sigma[:, part]) > tolerance
    return poor.nonzero()[:, 0]


def _update_once(em, em_std, observed, sigma, matrix):
    """
    Update ``em`` (bins, n) in place, and its spread along with it, and return χ² (n,).

    Single precision is sufficient for one update, which is enough for most pixels.
    """
    observed, sigma, matrix = (array.to(em.dtype) for array in (observed, sigma, matrix * EM_SCALE))
    current, variance = em / EM_SCALE, (em_std.to(em.dtype) / EM_SCALE).square()
    residual = observed - matrix @ current
    proposed = _update(current, variance, residual, sigma, matrix, 1.0)
    proposed = torch.maximum(proposed, _LEAST_FRACTION * current)
    # Overflow does not lower χ² and is rejected.
    chi2, new_chi2 = _chi2(residual, sigma), _chi2(observed - matrix @ proposed, sigma)
    better = new_chi2 < chi2
    em.copy_(torch.where(better, proposed * EM_SCALE, em))
    em_std *= torch.where(better & (current > 0), proposed / current, 1.0)
    return torch.where(better, new_chi2, chi2)


def _refined(em, em_std, observed, sigma, matrix, updates, target):
    """
    Return ``em`` (bins, n) after updates.

    Works in double precision: variances of bright pixels are large, and the responses of some channels nearly agree.
    """
    result, pixels = torch.empty_like(em), torch.arange(em.shape[1], device=em.device)
    variance = torch.where(em > 0, em_std / em, 0.0).clamp_(max=_LARGEST_RATIO).square_()
    current, floor, damping = em.clone(), _LEAST_FRACTION * em, torch.ones_like(em[0])
    residual = observed - matrix @ current
    chi2 = _chi2(residual, sigma)
    going = chi2 > target
    for _ in range(updates):
        n_going = int(going.sum())
        if not n_going:
            break
        if n_going < (1 - _DONE_FRACTION) * len(going):
            result[:, pixels[~going]] = current[:, ~going]
            pixels, current, floor, variance, observed, sigma, residual, damping, chi2 = (
                array[..., going]
                for array in (pixels, current, floor, variance, observed, sigma, residual, damping, chi2)
            )
            going = torch.ones_like(pixels, dtype=torch.bool)
        proposed = _update(current, variance * current.square(), residual, sigma, matrix, damping)
        proposed = torch.maximum(proposed, floor)
        new_residual = observed - matrix @ proposed
        new_chi2 = _chi2(new_residual, sigma)
        better = going & (new_chi2 < chi2)
        going &= ~better | ((new_chi2 > target) & (new_chi2 < _LEAST_GAIN * chi2))
        current, residual, chi2 = (
            torch.where(better, new, old)
            for new, old in ((proposed, current), (new_residual, residual), (new_chi2, chi2))
        )
        damping *= torch.where(better, 1 / _FALL, _GROW)
        going &= damping < _MOST_DAMPING
    result[:, pixels] = current
    return result


def _update(em, variance, residual, sigma, matrix, damping):
    """
    Return EM (bins, n) after one update, given the variance of the EM.

    ``residual`` and ``sigma`` (channels, n) are those of the intensities.
    """
    rows, columns = torch.triu_indices(len(matrix), len(matrix)).to(matrix.device)
    normal = (matrix[rows] * matrix[columns]) @ variance
    least = damping * sigma.square()
    for row, noise in zip(_rows(normal, len(matrix)), least, strict=True):
        row[0] += noise
    # Bins without EM stay empty.
    change = torch.where(em > 0, variance / em, 0.0)
    change *= matrix.T @ _solve(normal, residual, least)
    return change.clamp_(-_LARGEST_CHANGE, _LARGEST_CHANGE).exp_().mul_(em)


def _solve(normal, right, least):
    """
    Solve symmetric, positive definite systems by elimination.

    Faster than `torch.linalg.solve` for thousands of small systems. Overwrites ``normal``, the upper triangle row by
    row, shape (k (k + 1) / 2, n); ``right`` has shape (k, n). Pivots are at least ``least`` (k, n), despite rounding.
    """
    right = right.clone()
    k = len(right)
    upper = _rows(normal, k)
    for row in range(k):
        torch.maximum(upper[row][0], least[row], out=upper[row][0])
        for below in range(row + 1, k):
            factor = upper[row][below - row] / upper[row][0]
            upper[below].addcmul_(factor, upper[row][below - row :], value=-1)
            right[below].addcmul_(factor, right[row], value=-1)
    for row in reversed(range(k)):
        for above in range(row + 1, k):
            right[row].addcmul_(upper[row][above - row], right[above], value=-1)
        right[row] /= upper[row][0]
    return right


def _rows(triangle, k):
    """Return the rows of an upper triangle, each from its diagonal element."""
    return triangle.split(list(range(k, 0, -1)))


def _chi2(residual, sigma):
    return (residual / sigma).square_().mean(dim=0)
