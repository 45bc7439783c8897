"""
Steps of draws toward the data, compiled.

The computation is that of `~sunpy_deepem.network.conditioning`, done for 16 draws of a pixel at a time, whose numbers
stay in the processor's cache. Arrays have a row of 16 draws for each bin or channel. So that loops can take `_GROUP`
rows at a time, channels that see nothing and bins that no channel sees make their numbers multiples of that.
"""

from collections import namedtuple

import numpy as np

from sunpy_deepem.network.conditioning import (
    LARGEST_COORDINATE,
    LARGEST_EM,
    LARGEST_RESIDUAL,
    LARGEST_STEP,
    LEAST_LOG_WEIGHT,
    ROUNDING,
)
from sunpy_deepem.network.posterior import LARGEST_ELEMENT
from sunpy_deepem.network.vector_math import compiled, inlined
from sunpy_deepem.network.vectors import (
    LANES,
    clip,
    exp,
    finite_or,
    fma,
    load,
    log,
    maximum,
    minimum,
    spread,
    store,
)

__all__ = [
    "Draws",
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
]

# Numbers of type float64 would make all arithmetic slower.
_F = np.float32
_ZERO, _HALF, _ONE, _LEAST_WEIGHT = _F(0), _F(0.5), _F(1), _F(LEAST_LOG_WEIGHT)
_COORDINATE, _MOST_EM, _STEP = _F(LARGEST_COORDINATE), _F(LARGEST_EM), _F(LARGEST_STEP)
_MOST_RESIDUAL, _MOST_ELEMENT, _ROUNDING = _F(LARGEST_RESIDUAL), _F(LARGEST_ELEMENT), _F(ROUNDING)
#: Rows that loops take at a time, so that as many sums are under way.
_GROUP = 6

#: One pixel's response times the root of the weights (bins, channels), the transpose of L (bins, bins), the largest EM
#: (bins,), and the unit matrix (bins, bins).
_Pixel = namedtuple("_Pixel", ["matrix", "factor", "most", "unit"])
#: Draws of a pixel, or components: y₀, y, the scales of their components, and data.
Draws = namedtuple("Draws", ["anchor", "y", "scale", "target"])
#: Space for intermediate results. ``parts`` (EM) and ``sums`` (intensities) have a row for each range of
#: `splits.splits`, then for each bin.
_Space = namedtuple(
    "_Space", ["em", "moved", "right", "solution", "derivative", "normal", "inverse", "parts", "fractions", "sums"]
)


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
    _store_group(out, i, (p, q, r, s, t, u))


@inlined
def multiply_triangle(out, factor, values):
    """Set ``out`` to the product of L and ``values``."""
    for i in range(0, len(out), _GROUP):
        _multiply_group(out, factor, values, i, i + _GROUP)


@inlined
def _hot_over_cool(y, k):
    """Return the ratio of the EM of the hotter to that of the cooler half of a range."""
    return exp(clip(_ZERO - load(y, k + 1), -_COORDINATE, _COORDINATE))


@inlined
def _split(k, fraction, ratio, children, space):
    """Set the fraction of a range that is in its cooler half, and the EM of both halves."""
    cool = load(space.parts, k) * fraction
    store(space.fractions, k, fraction)
    store(space.parts, children[k, 0], cool)
    store(space.parts, children[k, 1], cool * ratio)


@inlined
def set_em(y, pixel, children, space):
    """Set the EM, no more than each channel allows, and the fraction of each range in its cooler half."""
    parts, n_splits = space.parts, len(children)
    store(parts, 0, exp(clip(load(y, 0), -_COORDINATE, _COORDINATE)))
    for k in range(n_splits):
        ratio = _hot_over_cool(y, k)
        _split(k, _ONE / (_ONE + ratio), ratio, children, space)
    for b in range(n_splits + 1):
        store(space.em, b, minimum(load(parts, n_splits + b), spread(pixel.most[b])))


@compiled
def step(draws, pixel, children, space):
    """
    Make one Gauss-Newton step, as ``conditioning._step`` does: to y₀ + L s² Jᵀ x.

    J is the derivative of the synthetic intensities by L⁻¹ y, and (1 + J s² Jᵀ) x the residual of the linear model at
    y₀. ``space`` then holds that residual in ``right``, the solution x, and the pivots on the diagonal of ``normal``.
    """
    moved, y, anchor = space.moved, draws.y, draws.anchor
    set_em(y, pixel, children, space)
    for c in range(0, len(space.right), _GROUP):
        _set_derivative(pixel, children, space, c)
    for b in range(len(y)):
        store(moved, b, load(y, b) - load(anchor, b))
    for c in range(0, len(space.right), _GROUP):
        _set_residual(draws, space, c)
        _scale_derivative(draws, pixel, space, c)
    _set_normal(space)
    _solve(space)
    _set_change(draws, space)
    multiply_triangle(moved, pixel.factor, space.em)
    for b in range(len(y)):
        old = load(y, b)
        change = clip(load(anchor, b) + load(moved, b) - old, -_STEP, _STEP)
        # Intensities that contradict each other may overflow.
        store(y, b, old + finite_or(change, spread(_ZERO)))


@inlined
def _set_derivative(pixel, children, space, c):
    """Set the derivative of the synthetic intensities by the coordinates, for `_GROUP` channels from ``c`` on."""
    n_splits = len(children)
    for b in range(n_splits + 1):
        em = load(space.em, b)
        _set_sum(pixel, space, em, b, n_splits + b, c)
        _set_sum(pixel, space, em, b, n_splits + b, c + 1)
        _set_sum(pixel, space, em, b, n_splits + b, c + 2)
        _set_sum(pixel, space, em, b, n_splits + b, c + 3)
        _set_sum(pixel, space, em, b, n_splits + b, c + 4)
        _set_sum(pixel, space, em, b, n_splits + b, c + 5)
    # From single bins to ever longer ranges.
    for k in range(n_splits - 1, -1, -1):
        fraction, first, second = load(space.fractions, k), children[k, 0], children[k, 1]
        _add_sums(space, fraction, k, first, second, c)
        _add_sums(space, fraction, k, first, second, c + 1)
        _add_sums(space, fraction, k, first, second, c + 2)
        _add_sums(space, fraction, k, first, second, c + 3)
        _add_sums(space, fraction, k, first, second, c + 4)
        _add_sums(space, fraction, k, first, second, c + 5)
    # The first coordinate is the logarithm of the total EM, to which intensities are proportional.
    for i in range(c, c + _GROUP):
        store(space.derivative, (0, i), load(space.sums, (0, i)))


@inlined
def _set_sum(pixel, space, em, b, k, c):
    store(space.sums, (k, c), pixel.matrix[b, c] * em)


@inlined
def _add_sums(space, fraction, k, first, second, c):
    cool = load(space.sums, (first, c))
    total = cool + load(space.sums, (second, c))
    store(space.sums, (k, c), total)
    store(space.derivative, (k + 1, c), cool - fraction * total)


@inlined
def _set_residual(draws, space, c):
    """Set the residuals of the linear model at y₀, for `_GROUP` channels from ``c`` on."""
    derivative = space.derivative
    p, q, r = _residual(draws, space, c), _residual(draws, space, c + 1), _residual(draws, space, c + 2)
    s, t, u = _residual(draws, space, c + 3), _residual(draws, space, c + 4), _residual(draws, space, c + 5)
    for b in range(len(derivative)):
        moved = load(space.moved, b)
        p, q = fma(load(derivative, (b, c)), moved, p), fma(load(derivative, (b, c + 1)), moved, q)
        r, s = fma(load(derivative, (b, c + 2)), moved, r), fma(load(derivative, (b, c + 3)), moved, s)
        t, u = fma(load(derivative, (b, c + 4)), moved, t), fma(load(derivative, (b, c + 5)), moved, u)
    _store_group(space.right, c, (p, q, r, s, t, u))


@inlined
def _residual(draws, space, c):
    """Return the residual of a channel, whose synthetic intensity is its derivative by the first coordinate."""
    return clip(load(draws.target, c) - load(space.derivative, (0, c)), -_MOST_RESIDUAL, _MOST_RESIDUAL)


@inlined
def _store_group(out, i, values):
    """Store `_GROUP` rows."""
    store(out, i, values[0])
    store(out, i + 1, values[1])
    store(out, i + 2, values[2])
    store(out, i + 3, values[3])
    store(out, i + 4, values[4])
    store(out, i + 5, values[5])


@inlined
def _scale_derivative(draws, pixel, space, c):
    """
    Turn the derivative by y into that by the coordinates in which the Gaussian is standard normal.

    This is for `_GROUP` channels from ``c`` on. Two bins at a time need half of the loads. L has a unit diagonal.
    """
    derivative, factor = space.derivative, pixel.factor
    n_bins = len(derivative)
    for b in range(0, n_bins, 2):
        f = spread(factor[b, b + 1])
        q0, q1 = load(derivative, (b + 1, c)), load(derivative, (b + 1, c + 1))
        q2, q3 = load(derivative, (b + 1, c + 2)), load(derivative, (b + 1, c + 3))
        q4, q5 = load(derivative, (b + 1, c + 4)), load(derivative, (b + 1, c + 5))
        p0, p1 = fma(f, q0, load(derivative, (b, c))), fma(f, q1, load(derivative, (b, c + 1)))
        p2, p3 = fma(f, q2, load(derivative, (b, c + 2))), fma(f, q3, load(derivative, (b, c + 3)))
        p4, p5 = fma(f, q4, load(derivative, (b, c + 4))), fma(f, q5, load(derivative, (b, c + 5)))
        for k in range(b + 2, n_bins):
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
def _solve(space):
    """Set the solution of (1 + J Jᵀ) x = r by elimination, as ``conditioning._solve`` does."""
    normal, inverse, solution = space.normal, space.inverse, space.solution
    k = len(solution)
    for i in range(k):
        store(inverse, i, maximum(_ROUNDING * load(normal, (i, i)), spread(_ONE)))
        store(solution, i, load(space.right, i))
    for i in range(k):
        # The pivots of one plus such a matrix are at least one; those below the rounding error would amplify it.
        pivot = maximum(load(normal, (i, i)), load(inverse, i))
        inverted, right = _ONE / pivot, load(solution, i)
        store(normal, (i, i), pivot)
        store(inverse, i, inverted)
        for j in range(i + 1, k):
            factor = load(normal, (i, j)) * inverted
            store(solution, j, load(solution, j) - factor * right)
            for column in range(j, k):
                store(normal, (j, column), load(normal, (j, column)) - factor * load(normal, (i, column)))
    for i in range(k - 1, -1, -1):
        value = load(solution, i) * load(inverse, i)
        store(solution, i, value)
        for j in range(i):
            store(solution, j, load(solution, j) - load(normal, (j, i)) * value)


@inlined
def _set_change(draws, space):
    """Set the change in the coordinates of the Gaussian, times its scale, in place of the EM."""
    em, derivative, solution = space.em, space.derivative, space.solution
    for c in range(0, len(solution), _GROUP):
        p, q, r = load(solution, c), load(solution, c + 1), load(solution, c + 2)
        s, t, u = load(solution, c + 3), load(solution, c + 4), load(solution, c + 5)
        for b in range(len(em)):
            change = load(derivative, (b, c)) * p
            change = fma(load(derivative, (b, c + 1)), q, change)
            change = fma(load(derivative, (b, c + 2)), r, change)
            change = fma(load(derivative, (b, c + 3)), s, change)
            change = fma(load(derivative, (b, c + 4)), t, change)
            change = load(draws.scale, b) * fma(load(derivative, (b, c + 5)), u, change)
            store(em, b, change if c == 0 else change + load(em, b))


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
    """Return `Draws` without content, for padded numbers of channels and bins."""
    return Draws(aligned(n_bins, LANES), aligned(n_bins, LANES), aligned(n_bins, LANES), aligned(n_channels, LANES))


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
        aligned(2 * n_bins, LANES),
        aligned(n_bins, LANES),
        aligned(2 * n_bins * n_channels, LANES).reshape(2 * n_bins, n_channels, LANES),
    )


@inlined
def empty_pixel(n_channels, n_bins):
    """Return `_Pixel` without content, for padded numbers of channels and bins."""
    width = -(-n_bins // LANES) * LANES
    unit = aligned(n_bins, width)
    for b in range(n_bins):
        unit[b, b] = _ONE
    return _Pixel(
        np.zeros((n_bins, n_channels), np.float32), aligned(n_bins, width), np.zeros(n_bins, np.float32), unit
    )


@inlined
def prepare(pixel, matrix, inverse_matrix, root_weight, intensity, triangle):
    """Set what the draws of a pixel have in common."""
    n_channels, n_bins = matrix.shape
    for b in range(n_bins):
        most = _MOST_EM
        for c in range(n_channels):
            pixel.matrix[b, c] = root_weight[c] * matrix[c, b]
            most = min(most, intensity[c] * inverse_matrix[c, b])
        pixel.most[b] = most
    _invert_triangle(pixel, n_bins, triangle)


@inlined
def _invert_triangle(pixel, n, triangle):
    """
    Set the transpose of L, the inverse of a lower triangle with a unit diagonal.

    ``triangle`` holds the elements below the diagonal, row by row.
    """
    columns = pixel.factor.reshape(len(pixel.factor), -1, LANES)
    unit = pixel.unit.reshape(len(pixel.unit), -1, LANES)
    for part in range(columns.shape[1]):
        for c in range(n - 1, -1, -1):
            column = load(unit, (c, part))
            for k in range(n - 1, c, -1):
                column = fma(-triangle[k * (k - 1) // 2 + c], load(columns, (k, part)), column)
            store(columns, (c, part), column)
    for c in range(n):
        for part in range(columns.shape[1]):
            value = finite_or(load(columns, (c, part)), spread(_ZERO))
            store(columns, (c, part), clip(value, -_MOST_ELEMENT, _MOST_ELEMENT))
