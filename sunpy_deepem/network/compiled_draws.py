"""
Draws of pixels on a CPU, compiled: `draw_pixels`.

The computation is that of `~sunpy_deepem.network.conditioning`, done pixel by pixel. The numbers of a pixel stay in the
processor's cache, and the innermost loops go over its draws, so that they become vector instructions. Arrays therefore
have shape ``(bins, draws)`` or ``(channels, draws)``, and may have room for more draws than the ``m`` that are meant.
"""

from collections import namedtuple

import numpy as np

from sunpy_deepem.network.conditioning import (
    COMPONENT_STEPS,
    DRAW_STEPS,
    LARGEST_FACTOR,
    LARGEST_LOG_EM,
    LARGEST_RESIDUAL,
    LARGEST_STEP,
    LEAST_LOG_EM,
    LEAST_LOG_WEIGHT,
    MORE_STEPS,
    POOR,
    ROUNDING,
    SIGNIFICANT,
    UPDATES,
)
from sunpy_deepem.network.vector_math import compiled, exp, log
from sunpy_deepem.units import TRACE

__all__ = ["draw_pixels"]

# Numbers of type float64 would make all arithmetic slower.
_F = np.float32
_ZERO, _HALF, _ONE, _LEAST_WEIGHT = _F(0), _F(0.5), _F(1), _F(LEAST_LOG_WEIGHT)
_LEAST, _MOST_LOG_EM, _STEP = _F(LEAST_LOG_EM), _F(LARGEST_LOG_EM), _F(LARGEST_STEP)
_MOST_RESIDUAL = _F(LARGEST_RESIDUAL)
_SIGNIFICANT, _MOST_RATIO, _LEAST_RATIO = _F(SIGNIFICANT), _F(LARGEST_FACTOR), _F(1 / LARGEST_FACTOR)
_ROUNDING, _POOR, _TRACE = _F(ROUNDING), _F(POOR), _F(TRACE)

#: One pixel's response times the root of the weights, the part of each bin in it, L, their products, largest ln(EM).
_Pixel = namedtuple("_Pixel", ["matrix", "share", "factor", "products", "log_most"])
#: Draws of a pixel: y₀, y, the scales of their components, and data.
_Draws = namedtuple("_Draws", ["anchor", "y", "scale", "target"])
#: Space for intermediate results.
_Space = namedtuple("_Space", ["em", "moved", "factor", "residual", "solution", "derivative", "normal"])


@compiled
def _add_products(total, factors, values, first, last, m):
    """
    Add the matrix product of ``factors`` and the rows from ``first`` to ``last`` of ``values``.

    Two rows of the result and four of the values at a time need few loads and stores.
    """
    n = len(total)
    for i in range(0, n - 1, 2):
        k = first
        while k + 4 <= last:
            p, q, r, s = factors[i, k], factors[i, k + 1], factors[i, k + 2], factors[i, k + 3]
            t, u, v, w = factors[i + 1, k], factors[i + 1, k + 1], factors[i + 1, k + 2], factors[i + 1, k + 3]
            for d in range(m):
                a, b, c, e = values[k, d], values[k + 1, d], values[k + 2, d], values[k + 3, d]
                total[i, d] += p * a + q * b + r * c + s * e
                total[i + 1, d] += t * a + u * b + v * c + w * e
            k += 4
        while k < last:
            p, t = factors[i, k], factors[i + 1, k]
            for d in range(m):
                total[i, d] += p * values[k, d]
                total[i + 1, d] += t * values[k, d]
            k += 1
    if n % 2:
        for k in range(first, last):
            p = factors[n - 1, k]
            for d in range(m):
                total[n - 1, d] += p * values[k, d]


@compiled
def _add_triangle(total, factor, values, m):
    """Add the product of a lower triangle and ``values``."""
    n = len(total)
    for i in range(0, n, 2):
        _add_products(total[i : i + 2], factor[i : i + 2], values, 0, min(i + 2, n), m)


@compiled
def _set_em(em, y, log_most, m):
    """Set the EM, no more than each channel allows."""
    for b in range(len(em)):
        most = log_most[b]
        for d in range(m):
            em[b, d] = exp(max(min(y[b, d], most), _LEAST))


@compiled
def _set_residual(residual, em, target, matrix, m):
    """Set data minus synthesis."""
    for c in range(len(residual)):
        for d in range(m):
            residual[c, d] = _ZERO
    _add_products(residual, matrix, em, 0, len(em), m)
    for c in range(len(residual)):
        for d in range(m):
            residual[c, d] = target[c, d] - residual[c, d]


@compiled
def _update(draws, pixel, space, m):
    """Update the EM by the ratios of the intensities that disagree with the data, as ``conditioning._update`` does."""
    y, target, residual, em = draws.y, draws.target, space.residual, space.em
    for b in range(len(y)):
        most = pixel.log_most[b]
        for d in range(m):
            y[b, d] = min(y[b, d], most)
    for _ in range(UPDATES):
        for b in range(len(y)):
            for d in range(m):
                em[b, d] = exp(max(y[b, d], _LEAST))
        _set_residual(residual, em, target, pixel.matrix, m)
        for c in range(len(residual)):
            for d in range(m):
                ratio = min(max(target[c, d] / (target[c, d] - residual[c, d]), _LEAST_RATIO), _MOST_RATIO)
                residual[c, d] = log(ratio) if abs(residual[c, d]) > _SIGNIFICANT else _ZERO
        _add_products(y, pixel.share, residual, 0, len(residual), m)


@compiled
def _step(draws, pixel, space, m):
    """
    Make one Gauss-Newton step, as ``conditioning._step`` does.

    ``space`` then holds the right-hand side in ``residual``, the solution, and the pivots on the diagonal of
    ``normal``.
    """
    em, moved, residual, derivative, solution = (
        space.em,
        space.moved,
        space.residual,
        space.derivative,
        space.solution,
    )
    y, anchor, scale = draws.y, draws.anchor, draws.scale
    _set_em(em, y, pixel.log_most, m)
    _set_residual(residual, em, draws.target, pixel.matrix, m)
    for c in range(len(residual)):
        for d in range(m):
            residual[c, d] = min(max(residual[c, d], -_MOST_RESIDUAL), _MOST_RESIDUAL)
    for b in range(len(em)):
        for d in range(m):
            moved[b, d] = em[b, d] * (y[b, d] - anchor[b, d])
    _add_products(residual, pixel.matrix, moved, 0, len(em), m)
    _set_derivative(draws, pixel, space, m)
    _set_normal(space, m)
    _solve(space, m)
    for b in range(len(em)):
        # The change in the coordinates of the Gaussian takes the place of the EM.
        for d in range(m):
            em[b, d] = _ZERO
        for c in range(len(residual)):
            for d in range(m):
                em[b, d] += derivative[b, c, d] * solution[c, d]
        for d in range(m):
            em[b, d] *= scale[b, d]
            moved[b, d] = anchor[b, d]
    _add_triangle(moved, pixel.factor, em, m)
    for b in range(len(em)):
        for d in range(m):
            new = min(moved[b, d], y[b, d] + _STEP)
            y[b, d] = new if abs(new) < np.inf else y[b, d]


@compiled
def _set_derivative(draws, pixel, space, m):
    """Set the derivative of the synthetic intensity by the coordinates in which the Gaussian is standard normal."""
    derivative, em, scale = space.derivative, space.em, draws.scale
    n_bins, n_channels, _ = derivative.shape
    for b in range(n_bins):
        for c in range(n_channels):
            factor = pixel.matrix[c, b]
            for d in range(m):
                derivative[b, c, d] = factor * em[b, d]
        _add_products(derivative[b], pixel.products[b], em, b + 1, n_bins, m)
        for c in range(n_channels):
            for d in range(m):
                derivative[b, c, d] *= scale[b, d]


@compiled
def _set_normal(space, m):
    """Set the upper triangle of 1 + J Jᵀ."""
    normal, derivative = space.normal, space.derivative
    n = len(derivative)
    for i in range(len(normal)):
        for j in range(i, len(normal)):
            start = _ONE if i == j else _ZERO
            for d in range(m):
                normal[i, j, d] = start
            for b in range(0, n - 2, 3):
                for d in range(m):
                    normal[i, j, d] += (
                        derivative[b, i, d] * derivative[b, j, d]
                        + derivative[b + 1, i, d] * derivative[b + 1, j, d]
                        + derivative[b + 2, i, d] * derivative[b + 2, j, d]
                    )
            for b in range(n - n % 3, n):
                for d in range(m):
                    normal[i, j, d] += derivative[b, i, d] * derivative[b, j, d]


@compiled
def _solve(space, m):
    """Solve (1 + J Jᵀ) x = r by elimination, as ``conditioning._solve`` does."""
    normal, solution, factor = space.normal, space.solution, space.factor
    k = len(solution)
    for i in range(k):
        for d in range(m):
            solution[i, d] = space.residual[i, d]
        # The least pivots are kept in the lower triangle, which is free.
        if i > 0:
            for d in range(m):
                normal[i, 0, d] = max(_ROUNDING * normal[i, i, d], _ONE)
    for i in range(k):
        if i > 0:
            for d in range(m):
                normal[i, i, d] = max(normal[i, i, d], normal[i, 0, d])
        for j in range(i + 1, k):
            for d in range(m):
                factor[d] = normal[i, j, d] / normal[i, i, d]
                solution[j, d] -= factor[d] * solution[i, d]
            for column in range(j, k):
                for d in range(m):
                    normal[j, column, d] -= factor[d] * normal[i, column, d]
    for i in range(k - 1, -1, -1):
        for d in range(m):
            solution[i, d] /= normal[i, i, d]
        for j in range(i):
            for d in range(m):
                solution[j, d] -= normal[j, i, d] * solution[i, d]


@compiled
def _log_evidence(space, d):
    """Return the logarithm of the evidence of the linear model of the last step."""
    total = _ZERO
    for c in range(len(space.solution)):
        total += space.residual[c, d] * space.solution[c, d] + np.log(space.normal[c, c, d])
    total *= -_HALF
    return total if abs(total) < np.inf else _LEAST_WEIGHT


@compiled
def _draw_components(pixel, draws, space, log_weights, means, scales, index):
    """
    Move the components of these indices to where the data put them, in ``draws``.

    Returns
    -------
    weights : `~numpy.ndarray`
        Weight of each, their sum is one.
    """
    m = len(index)
    for b in range(means.shape[1]):
        for d in range(m):
            draws.anchor[b, d] = draws.y[b, d] = means[index[d], b]
            draws.scale[b, d] = scales[index[d], b]
    _update(draws, pixel, space, m)
    for _ in range(COMPONENT_STEPS):
        _step(draws, pixel, space, m)
    weights = np.empty(m, np.float32)
    for d in range(m):
        weights[d] = log_weights[index[d]] + _log_evidence(space, d)
    weights = np.exp(weights - weights.max())
    return weights / weights.sum()


@compiled
def _choose(em, weights, choice):
    """Return the component of each draw, see ``sampling._choose``."""
    mean = np.empty(len(weights), np.float32)
    for d in range(len(weights)):
        total, first = _ZERO, _ZERO
        for b in range(len(em)):
            total += em[b, d]
            first += np.float32(b) * em[b, d]
        mean[d] = first / total
    order = np.argsort(mean, kind="mergesort")
    cumulative = np.cumsum(weights[order])
    chosen = np.searchsorted(cumulative, choice)
    return order[np.minimum(chosen, len(weights) - 1)]


@compiled
def _finish(draws, few, pixel, space, m):
    """Make more steps with the draws that are still far from the data, and set the EM of all."""
    n_bins, n_channels = len(draws.y), len(draws.target)
    _set_em(space.em, draws.y, pixel.log_most, m)
    _set_residual(space.residual, space.em, draws.target, pixel.matrix, m)
    poor = np.empty(m, np.int64)
    n = 0
    for d in range(m):
        misfit = _ZERO
        for c in range(n_channels):
            misfit += space.residual[c, d] * space.residual[c, d]
        if misfit > _POOR:
            poor[n] = d
            n += 1
    if n == 0:
        return
    for i in range(n):
        for b in range(n_bins):
            few.anchor[b, i], few.y[b, i] = draws.anchor[b, poor[i]], draws.y[b, poor[i]]
            few.scale[b, i] = draws.scale[b, poor[i]]
        for c in range(n_channels):
            few.target[c, i] = draws.target[c, poor[i]]
    for _ in range(MORE_STEPS):
        _step(few, pixel, space, n)
    for i in range(n):
        for b in range(n_bins):
            draws.y[b, poor[i]] = few.y[b, i]
    _set_em(space.em, draws.y, pixel.log_most, m)


@compiled
def draw_pixels(mixture, data, matrix, numbers, followed, scale, out):
    """
    Draw from the posterior of pixels.

    Parameters
    ----------
    mixture : `tuple` of `~numpy.ndarray`
        Logarithms of the weights, shape ``(n, components)``, means and scales, shape ``(n, components, bins)``, and L,
        shape ``(n, bins, bins)``, of the Gaussians of the pixels.
    data : `tuple` of `~numpy.ndarray`
        As `~sunpy_deepem.network.conditioning.Data`.
    matrix : `~numpy.ndarray`
        Response, shape ``(channels, bins)``.
    numbers : `tuple` of `~numpy.ndarray`
        As `~sunpy_deepem.network.sampling.CommonNumbers`.
    followed : `int`
        Number of the most likely components that take part.
    scale : `~numpy.ndarray`
        Factor of the EM of each pixel, shape ``(n,)``.
    out : `~numpy.ndarray`
        Receives the EM, shape ``(n, bins, draws)``.
    """
    log_weights, means, scales, factors = mixture
    target, root_weight, log_most = data
    choice, bare, normal, noise = numbers
    normal, noise = np.ascontiguousarray(normal.T), np.ascontiguousarray(noise.T)
    n_channels, n_bins = matrix.shape
    n_draws = len(choice)
    log_matrix = np.log(np.maximum(matrix, _F(1e-30)))
    m = max(n_draws, followed)
    space = _Space(
        np.empty((n_bins, m), np.float32),
        np.empty((n_bins, m), np.float32),
        np.empty(m, np.float32),
        np.empty((n_channels, m), np.float32),
        np.empty((n_channels, m), np.float32),
        np.empty((n_bins, n_channels, m), np.float32),
        np.empty((n_channels, n_channels, m), np.float32),
    )
    draws, few = _empty_draws(n_channels, n_bins, m), _empty_draws(n_channels, n_bins, m)
    for p in range(len(target)):
        pixel = _prepare(matrix, log_matrix, root_weight[p], log_most[p], factors[p])
        for c in range(n_channels):
            start = target[p, c]
            for d in range(followed):
                few.target[c, d] = start
            # A channel without weight stays without.
            spread = _ONE if root_weight[p, c] > 0 else _ZERO
            for d in range(n_draws):
                draws.target[c, d] = start + spread * noise[c, d]
        index = np.argsort(-log_weights[p], kind="mergesort")[:followed]
        weights = _draw_components(pixel, few, space, log_weights[p], means[p], scales[p], index)
        _set_em(space.em, few.y, pixel.log_most, followed)
        chosen = _choose(space.em, weights, choice)
        for b in range(n_bins):
            for d in range(n_draws):
                k = chosen[d]
                draws.anchor[b, d] = few.anchor[b, k]
                draws.scale[b, d] = few.scale[b, k]
                draws.y[b, d] = few.y[b, k] - few.anchor[b, k]
                space.em[b, d] = few.scale[b, k] * normal[b, d]
        _add_triangle(draws.anchor, pixel.factor, space.em, n_draws)
        for b in range(n_bins):
            for d in range(n_draws):
                draws.y[b, d] += draws.anchor[b, d]
        _update(draws, pixel, space, n_draws)
        for _ in range(DRAW_STEPS):
            _step(draws, pixel, space, n_draws)
        _finish(draws, few, pixel, space, n_draws)
        _store(out[p], space, bare, scale[p], n_draws)


@compiled
def _store(out, space, bare, scale, n_draws):
    """Store the EM, in half of the draws without the trace of plasma that no channel can see."""
    em, least = space.em, space.factor
    for d in range(n_draws):
        least[d] = _ZERO
    for b in range(len(out)):
        for d in range(n_draws):
            least[d] += em[b, d]
    for d in range(n_draws):
        least[d] *= _TRACE * np.float32(bare[d])
    for b in range(len(out)):
        for d in range(n_draws):
            out[b, d] = max(em[b, d] - least[d], _ZERO) * scale


@compiled
def _empty_draws(n_channels, n_bins, m):
    return _Draws(
        np.empty((n_bins, m), np.float32),
        np.empty((n_bins, m), np.float32),
        np.empty((n_bins, m), np.float32),
        np.empty((n_channels, m), np.float32),
    )


@compiled
def _prepare(matrix, log_matrix, root_weight, log_intensity, factor):
    """Return what the draws of a pixel have in common."""
    weighted = matrix * root_weight.reshape(-1, 1)
    log_most = np.full(matrix.shape[1], _MOST_LOG_EM)
    for c in range(len(matrix)):
        for b in range(len(log_most)):
            log_most[b] = min(log_most[b], log_intensity[c] - log_matrix[c, b])
    share = np.empty((matrix.shape[1], len(matrix)), np.float32)
    for b in range(matrix.shape[1]):
        total = max(weighted[:, b].sum(), _F(1e-20))
        share[b] = weighted[:, b] / total
    products = np.empty((len(factor), *matrix.shape), np.float32)
    for b in range(len(factor)):
        for c in range(len(matrix)):
            for k in range(b, len(factor)):
                products[b, c, k] = weighted[c, k] * factor[k, b]
    return _Pixel(weighted, share, factor, products, log_most)
