"""
Steps of draws toward the data, compiled.

The computation is that of `~sunpy_deepem.network.conditioning`, done for 16 draws of a pixel at a time, whose numbers
stay in the processor's cache. Arrays have a row of 16 draws for each bin or channel. So that loops can take `_GROUP`
rows at a time, channels that see nothing and bins that no channel sees make their numbers multiples of that.
"""

from collections import namedtuple

import numpy as np

from sunpy_deepem.network.conditioning import (
    LARGEST_FACTOR,
    LARGEST_LOG_EM,
    LARGEST_RESIDUAL,
    LARGEST_STEP,
    LEAST_LOG_EM,
    LEAST_LOG_WEIGHT,
    ROUNDING,
    SIGNIFICANT,
    UPDATES,
)
from sunpy_deepem.network.posterior import LARGEST_ELEMENT
from sunpy_deepem.network.vector_math import compiled, inlined
from sunpy_deepem.network.vectors import (
    LANES,
    absolute,
    any_of,
    clip,
    exp,
    finite_or,
    fma,
    greater,
    load,
    log,
    maximum,
    minimum,
    select,
    spread,
    store,
)

__all__ = [
    "aligned",
    "empty_draws",
    "empty_pixel",
    "empty_space",
    "multiply",
    "multiply_triangle",
    "padded",
    "prepare",
    "set_em",
    "set_log_evidence",
    "step",
    "update",
]

# Numbers of type float64 would make all arithmetic slower.
_F = np.float32
_ZERO, _HALF, _ONE, _LEAST_WEIGHT = _F(0), _F(0.5), _F(1), _F(LEAST_LOG_WEIGHT)
_LEAST, _MOST_LOG_EM, _STEP = _F(LEAST_LOG_EM), _F(LARGEST_LOG_EM), _F(LARGEST_STEP)
_MOST_RESIDUAL, _MOST_ELEMENT, _ROUNDING = _F(LARGEST_RESIDUAL), _F(LARGEST_ELEMENT), _F(ROUNDING)
_SIGNIFICANT, _MOST_RATIO, _LEAST_RATIO = _F(SIGNIFICANT), _F(LARGEST_FACTOR), _F(1 / LARGEST_FACTOR)
#: Rows that loops take at a time, so that as many sums are under way.
_GROUP = 6

#: One pixel's response times the root of the weights (bins, channels), the part of each bin in it (channels, bins), the
#: transpose of L (bins, bins), and the largest ln(EM) (bins,).
_Pixel = namedtuple("_Pixel", ["matrix", "share", "factor", "log_most"])
#: Draws of a pixel: y₀, y, the scales of their components, and data.
_Draws = namedtuple("_Draws", ["anchor", "y", "scale", "target"])
#: Space for intermediate results.
_Space = namedtuple("_Space", ["em", "moved", "right", "solution", "derivative", "normal", "inverse"])


@inlined
def multiply(out, factors, values):
    """Set ``out`` (n, 16) to the product of the transpose of ``factors`` (k, n) and ``values`` (k, 16)."""
    for i in range(0, len(out), _GROUP):
        _multiply_group(out, factors, values, i, len(values))


@inlined
def _multiply_group(out, factors, values, i, n):
    """Set `_GROUP` rows of ``out`` from ``i`` on to the product with the first ``n`` rows."""
    p = q = r = s = t = u = spread(_ZERO)
    for k in range(n):
        value = load(values, k)
        p, q, r = fma(factors[k, i], value, p), fma(factors[k, i + 1], value, q), fma(factors[k, i + 2], value, r)
        s, t, u = fma(factors[k, i + 3], value, s), fma(factors[k, i + 4], value, t), fma(factors[k, i + 5], value, u)
    store(out, i, p)
    store(out, i + 1, q)
    store(out, i + 2, r)
    store(out, i + 3, s)
    store(out, i + 4, t)
    store(out, i + 5, u)


@inlined
def multiply_triangle(out, factor, values):
    """Set ``out`` to the product of L and ``values``."""
    for i in range(0, len(out), _GROUP):
        _multiply_group(out, factor, values, i, i + _GROUP)


@inlined
def set_em(em, y, log_most):
    """Set the EM, no more than each channel allows."""
    for b in range(len(em)):
        store(em, b, exp(maximum(minimum(load(y, b), spread(log_most[b])), spread(_LEAST))))


@compiled
def update(draws, pixel, space):
    """Update the EM by the ratios of the intensities that disagree with the data, as ``conditioning._update`` does."""
    y, ratio, em = draws.y, space.solution, space.em
    for b in range(len(y)):
        store(y, b, minimum(load(y, b), spread(pixel.log_most[b])))
    for _ in range(UPDATES):
        for b in range(len(y)):
            store(em, b, exp(maximum(load(y, b), spread(_LEAST))))
        multiply(ratio, pixel.matrix, em)
        agree = True
        for c in range(len(ratio)):
            target, synthetic = load(draws.target, c), load(ratio, c)
            disagrees = greater(absolute(target - synthetic), spread(_SIGNIFICANT))
            agree = agree and not any_of(disagrees)
            change = log(clip(target / synthetic, _LEAST_RATIO, _MOST_RATIO))
            store(ratio, c, select(disagrees, change, spread(_ZERO)))
        if agree:
            return
        multiply(em, pixel.share, ratio)
        for b in range(len(y)):
            store(y, b, load(y, b) + load(em, b))


@compiled
def step(draws, pixel, space):
    """
    Make one Gauss-Newton step, as ``conditioning._step`` does: to y₀ + L s² Jᵀ x.

    J is the derivative of the synthetic intensities by L⁻¹ y, and (1 + J s² Jᵀ) x the residual of the linear model at
    y₀. ``space`` then holds that residual in ``right``, the solution x, and the pivots on the diagonal of ``normal``.
    """
    em, moved, right, solution, y, anchor = space.em, space.moved, space.right, space.solution, draws.y, draws.anchor
    set_em(em, y, pixel.log_most)
    multiply(right, pixel.matrix, em)
    for b in range(len(em)):
        store(moved, b, load(em, b) * (load(y, b) - load(anchor, b)))
    multiply(solution, pixel.matrix, moved)
    for c in range(len(right)):
        residual = clip(load(draws.target, c) - load(right, c), -_MOST_RESIDUAL, _MOST_RESIDUAL)
        store(right, c, residual + load(solution, c))
    _linearize(draws, pixel, space)
    _solve(space)
    _set_change(draws, space)
    multiply_triangle(moved, pixel.factor, em)
    for b in range(len(em)):
        old = load(y, b)
        new = minimum(load(anchor, b) + load(moved, b), old + _STEP)
        # Intensities that contradict each other may overflow.
        store(y, b, finite_or(new, old))


@inlined
def _linearize(draws, pixel, space):
    """Set J s, and the factors of 1 + J s² Jᵀ."""
    for b in range(len(space.em)):
        em = load(space.em, b)
        for c in range(len(space.right)):
            store(space.derivative, (b, c), pixel.matrix[b, c] * em)
    for c in range(0, len(space.right), _GROUP):
        _set_derivative(draws, pixel, space, c)
    _set_normal(space)
    _factorize(space)


@inlined
def _set_derivative(draws, pixel, space, c):
    """
    Turn the derivative by y into that by the coordinates in which the Gaussian is standard normal.

    This is for `_GROUP` channels from ``c`` on. Two bins at a time need half of the loads.
    """
    derivative, factor = space.derivative, pixel.factor
    n_bins = len(derivative)
    for b in range(0, n_bins, 2):
        p0 = p1 = p2 = p3 = p4 = p5 = q0 = q1 = q2 = q3 = q4 = q5 = spread(_ZERO)
        for k in range(b, n_bins):
            f, g = spread(factor[b, k]), spread(factor[b + 1, k])
            value = load(derivative, (k, c))
            p0, q0 = fma(f, value, p0), fma(g, value, q0)
            value = load(derivative, (k, c + 1))
            p1, q1 = fma(f, value, p1), fma(g, value, q1)
            value = load(derivative, (k, c + 2))
            p2, q2 = fma(f, value, p2), fma(g, value, q2)
            value = load(derivative, (k, c + 3))
            p3, q3 = fma(f, value, p3), fma(g, value, q3)
            value = load(derivative, (k, c + 4))
            p4, q4 = fma(f, value, p4), fma(g, value, q4)
            value = load(derivative, (k, c + 5))
            p5, q5 = fma(f, value, p5), fma(g, value, q5)
        _store_scaled(derivative, b, c, load(draws.scale, b), (p0, p1, p2, p3, p4, p5))
        _store_scaled(derivative, b + 1, c, load(draws.scale, b + 1), (q0, q1, q2, q3, q4, q5))


@inlined
def _store_scaled(derivative, b, c, scale, sums):
    store(derivative, (b, c), scale * sums[0])
    store(derivative, (b, c + 1), scale * sums[1])
    store(derivative, (b, c + 2), scale * sums[2])
    store(derivative, (b, c + 3), scale * sums[3])
    store(derivative, (b, c + 4), scale * sums[4])
    store(derivative, (b, c + 5), scale * sums[5])


@inlined
def _set_normal(space):
    """Set the upper triangle of 1 + J Jᵀ, in blocks of three by three, and the least pivots."""
    normal, derivative = space.normal, space.derivative
    for i in range(0, len(normal), 3):
        for j in range(i, len(normal), 3):
            start = spread(_ONE if i == j else _ZERO)
            p = t = x = start
            q = r = s = u = v = w = spread(_ZERO)
            for b in range(len(derivative)):
                k, m, n = load(derivative, (b, i)), load(derivative, (b, i + 1)), load(derivative, (b, i + 2))
                d, e, f = load(derivative, (b, j)), load(derivative, (b, j + 1)), load(derivative, (b, j + 2))
                p, q, r = fma(k, d, p), fma(k, e, q), fma(k, f, r)
                s, t, u = fma(m, d, s), fma(m, e, t), fma(m, f, u)
                v, w, x = fma(n, d, v), fma(n, e, w), fma(n, f, x)
            store(normal, (i, j), p)
            store(normal, (i, j + 1), q)
            store(normal, (i, j + 2), r)
            store(normal, (i + 1, j), s)
            store(normal, (i + 1, j + 1), t)
            store(normal, (i + 1, j + 2), u)
            store(normal, (i + 2, j), v)
            store(normal, (i + 2, j + 1), w)
            store(normal, (i + 2, j + 2), x)


@inlined
def _factorize(space):
    """Factorize 1 + J Jᵀ by elimination, as ``conditioning._solve`` does."""
    normal, inverse = space.normal, space.inverse
    k = len(inverse)
    for i in range(k):
        store(inverse, i, maximum(_ROUNDING * load(normal, (i, i)), spread(_ONE)))
    for i in range(k):
        # The pivots of one plus such a matrix are at least one; those below the rounding error would amplify it.
        pivot = maximum(load(normal, (i, i)), load(inverse, i))
        inverted = _ONE / pivot
        store(normal, (i, i), pivot)
        store(inverse, i, inverted)
        for j in range(i + 1, k):
            factor = load(normal, (i, j)) * inverted
            for column in range(j, k):
                store(normal, (j, column), load(normal, (j, column)) - factor * load(normal, (i, column)))


@inlined
def _solve(space):
    """Set the solution of (1 + J Jᵀ) x = r."""
    normal, inverse, solution = space.normal, space.inverse, space.solution
    k = len(solution)
    for i in range(k):
        value = load(space.right, i)
        for j in range(i):
            value = value - load(normal, (j, i)) * load(solution, j)
        # x of the lower triangle, divided by the pivot.
        store(solution, i, value * load(inverse, i))
    for i in range(k - 1, -1, -1):
        value = spread(_ZERO)
        for j in range(i + 1, k):
            value = fma(load(normal, (i, j)), load(solution, j), value)
        store(solution, i, load(solution, i) - value * load(inverse, i))


@inlined
def _set_change(draws, space):
    """Set the change in the coordinates of the Gaussian, times its scale, in place of the EM."""
    em, derivative, solution = space.em, space.derivative, space.solution
    for b in range(len(em)):
        store(em, b, spread(_ZERO))
    for c in range(0, len(solution), 3):
        p, q, r = load(solution, c), load(solution, c + 1), load(solution, c + 2)
        for b in range(len(em)):
            change = fma(load(derivative, (b, c)), p, load(em, b))
            change = fma(load(derivative, (b, c + 1)), q, change)
            store(em, b, fma(load(derivative, (b, c + 2)), r, change))
    for b in range(len(em)):
        store(em, b, load(draws.scale, b) * load(em, b))


@inlined
def set_log_evidence(space):
    """Set the first row of ``right`` to the logarithm of the evidence of the linear model of the last step."""
    total = spread(_ZERO)
    for c in range(len(space.solution)):
        total = fma(load(space.right, c), load(space.solution, c), total) + log(load(space.normal, (c, c)))
    store(space.right, 0, finite_or(-_HALF * total, spread(_LEAST_WEIGHT)))


@inlined
def padded(n):
    """Return the next multiple of `_GROUP`."""
    return -(-n // _GROUP) * _GROUP


@inlined
def aligned(rows, columns):
    """Return zeros, shape ``(rows, columns)``, from the start of a line of the processor's cache on."""
    values = np.zeros(rows * columns + LANES, np.float32)
    start = (-(values.ctypes.data // 4)) % LANES
    return values[start : start + rows * columns].reshape(rows, columns)


@inlined
def empty_draws(n_channels, n_bins):
    """Return `_Draws` without content, for padded numbers of channels and bins."""
    return _Draws(aligned(n_bins, LANES), aligned(n_bins, LANES), aligned(n_bins, LANES), aligned(n_channels, LANES))


@inlined
def empty_space(n_channels, n_bins):
    """Return `_Space` without content, for padded numbers of channels and bins."""
    return _Space(
        aligned(n_bins, LANES),
        aligned(n_bins, LANES),
        aligned(n_channels, LANES),
        aligned(n_channels, LANES),
        aligned(n_bins * n_channels, LANES).reshape(n_bins, n_channels, LANES),
        aligned(n_channels * n_channels, LANES).reshape(n_channels, n_channels, LANES),
        aligned(n_channels, LANES),
    )


@inlined
def empty_pixel(n_channels, n_bins):
    """Return `_Pixel` without content, for padded numbers of channels and bins."""
    return _Pixel(
        np.zeros((n_bins, n_channels), np.float32),
        np.zeros((n_channels, n_bins), np.float32),
        aligned(n_bins, -(-n_bins // LANES) * LANES),
        np.zeros(n_bins, np.float32),
    )


@inlined
def prepare(pixel, matrix, log_matrix, root_weight, log_intensity, triangle):
    """Set what the draws of a pixel have in common."""
    n_channels, n_bins = matrix.shape
    for b in range(n_bins):
        total, most = _ZERO, _MOST_LOG_EM
        for c in range(n_channels):
            pixel.matrix[b, c] = root_weight[c] * matrix[c, b]
            total += pixel.matrix[b, c]
            most = min(most, log_intensity[c] - log_matrix[c, b])
        pixel.log_most[b] = most
        inverse = _ONE / max(total, _F(1e-20))
        for c in range(n_channels):
            pixel.share[c, b] = pixel.matrix[b, c] * inverse
    _invert_triangle(pixel.factor, n_bins, triangle)


@inlined
def _invert_triangle(factor, n, triangle):
    """
    Set the transpose of L, the inverse of a lower triangle with a unit diagonal.

    ``triangle`` holds the elements below the diagonal, row by row.
    """
    columns = factor.reshape(len(factor), -1, LANES)
    for c in range(n):
        for part in range(columns.shape[1]):
            store(columns, (c, part), spread(_ZERO))
        factor[c, c] = _ONE
    for k in range(n - 1, 0, -1):
        first = k * (k - 1) // 2
        for part in range(columns.shape[1]):
            column = load(columns, (k, part))
            for c in range(k):
                store(columns, (c, part), fma(-triangle[first + c], column, load(columns, (c, part))))
    for c in range(n):
        for part in range(columns.shape[1]):
            value = finite_or(load(columns, (c, part)), spread(_ZERO))
            store(columns, (c, part), clip(value, -_MOST_ELEMENT, _MOST_ELEMENT))
