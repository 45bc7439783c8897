"""
Draws of pixels on a CPU, compiled: `draw_pixels`.

The computation is that of `~sunpy_deepem.network.sampling` and `~sunpy_deepem.network.conditioning`, pixel by pixel,
for 16 draws at a time, see `~sunpy_deepem.network.compiled_steps`.
"""

import numpy as np

from sunpy_deepem.network.compiled_steps import (
    Draws,
    aligned,
    empty_draws,
    empty_pixel,
    empty_space,
    multiply,
    multiply_triangle,
    padded,
    prepare,
    set_em,
    set_log_evidence,
    step,
)
from sunpy_deepem.network.conditioning import (
    COMPONENT_STEPS,
    DRAW_STEPS,
    LEAST_LOG_WEIGHT,
    LEAST_RESPONSE,
    LEAST_SIGNAL,
    MORE_STEPS,
    POOR,
)
from sunpy_deepem.network.posterior import LOG_SCALES
from sunpy_deepem.network.vector_math import compiled, inlined
from sunpy_deepem.network.vectors import (
    LANES,
    clip,
    exp,
    fma,
    greater,
    load,
    maximum,
    pick,
    select,
    spread,
    store,
    transpose,
)
from sunpy_deepem.units import TRACE

__all__ = ["LANES", "draw_pixels"]

# Numbers of type float64 would make all arithmetic slower.
_F = np.float32
_ZERO, _HALF, _ONE, _LEAST_WEIGHT = _F(0), _F(0.5), _F(1), _F(LEAST_LOG_WEIGHT)
# Exponentials of smaller numbers are no normal numbers.
_LEAST_EXPONENT = _F(-87)
_LEAST_SCALE, _MOST_SCALE = _F(LOG_SCALES[0]), _F(LOG_SCALES[1])
_POOR, _TRACE, _LEAST_SIGNAL, _LEAST_RESPONSE = _F(POOR), _F(TRACE), _F(LEAST_SIGNAL), _F(LEAST_RESPONSE)


@inlined
def _block(components, i):
    """Return the `Draws` that hold 16 components."""
    anchor, y, scale, target = components
    return Draws(anchor[i], y[i], scale[i], target)


@inlined
def _read(values, first, rows, square, out):
    """Set ``out`` (bins, 16) to 16 components from ``first`` on, shape (components, bins); the first one fills up."""
    n_components, n_bins = values.shape
    for d in range(LANES):
        k = first + d if first + d < n_components else 0
        for b in range(n_bins):
            rows[d, b] = values[k, b]
    parts = rows.reshape(LANES, -1, LANES)
    for part in range(parts.shape[1]):
        transpose(parts, (part,), square)
        for b in range(min(LANES, n_bins - part * LANES)):
            store(out, part * LANES + b, load(square, b))


@inlined
def _move_components(pixel, children, components, space, outputs, n_bins, widening, weights, positions, rows, square):
    """
    Move the components to where the data put them, and set the logarithm of the weight and the mean bin of each.

    Each y then holds the change of the coordinates.
    """
    n_components = len(outputs) // (1 + 2 * n_bins)
    means = outputs[n_components : n_components * (1 + n_bins)].reshape(n_components, n_bins)
    scales = outputs[n_components * (1 + n_bins) :].reshape(n_components, n_bins)
    for i in range(len(positions)):
        draws, first = _block(components, i), i * LANES
        _read(means, first, rows, square, draws.anchor)
        _read(scales, first, rows, square, draws.scale)
        for b in range(n_bins):
            store(draws.y, b, load(draws.anchor, b))
            store(draws.scale, b, widening * exp(clip(load(draws.scale, b), _LEAST_SCALE, _MOST_SCALE)))
        for _ in range(COMPONENT_STEPS):
            step(draws, pixel, children, space)
        set_log_evidence(space)
        for d in range(LANES):
            inside = first + d < n_components
            weights[i, d] = outputs[first + d] + space.right[0, d] if inside else _LEAST_WEIGHT
        set_em(draws.y, pixel, children, space)
        total = position = spread(_ZERO)
        for b in range(n_bins):
            value = load(space.em, b)
            total, position = total + value, fma(_F(b), value, position)
            store(draws.y, b, load(draws.y, b) - load(draws.anchor, b))
        store(positions, i, position / total)


@inlined
def _normalize(weights):
    """Turn logarithms of weights into weights whose sum is one."""
    numbers = weights.reshape(-1)
    largest, total = _LEAST_WEIGHT, _ZERO
    for k in range(len(numbers)):
        largest = max(largest, numbers[k])
    for i in range(len(weights)):
        store(weights, i, exp(maximum(load(weights, i) - largest, spread(_LEAST_EXPONENT))))
    for k in range(len(numbers)):
        total += numbers[k]
    for i in range(len(weights)):
        store(weights, i, load(weights, i) / spread(total))


@inlined
def _sort(positions, lanes, n, ranks, order):
    """Set ``order`` to the indices of the components in ascending order of their positions."""
    numbers, counts, indices = positions.reshape(-1), ranks.reshape(-1), order.reshape(-1)
    one, zero = spread(_ONE), spread(_ZERO)
    for i in range(len(positions)):
        own, number, rank = load(positions, i), load(lanes, 0) + _F(i * LANES), zero
        for k in range(n):
            other = spread(numbers[k])
            # Of equal positions, the first one is first.
            first = select(greater(number, spread(_F(k))), one, zero)
            rank = rank + select(greater(own, other), one, select(greater(other, own), zero, first))
        store(ranks, i, rank)
    for k in range(n):
        indices[np.int64(counts[k])] = _F(k)


@inlined
def _look_up(out, row, blocks, b, index, block):
    """
    Set a row to those numbers in row ``b`` of all blocks (blocks, bins, 16) that a row of ``index`` counts.

    Numbers that are loaded anew between stores remain a vector.
    """
    for i in range(len(blocks)):
        number = load(index, block)
        found = pick(load(blocks, (i, b)), number)
        store(out, row, select(greater(number, spread(_F(i * LANES) - _HALF)), found, load(out, row)))


@inlined
def _choose(weights, order, n, choice, ranks, chosen):
    """Set the component of each draw, by the inverse of the cumulative weights, see ``sampling._choose``."""
    numbers, indices, blocks = weights.reshape(-1), order.reshape(-1), order.reshape(len(order), 1, LANES)
    for block in range(len(choice)):
        rank, cumulative, number = spread(_ZERO), _ZERO, load(choice, block)
        # The last one is for rounding errors, too.
        for i in range(n - 1):
            cumulative += numbers[np.int64(indices[i])]
            rank = rank + select(greater(number, spread(cumulative)), spread(_ONE), spread(_ZERO))
        store(ranks, 0, rank)
        _look_up(chosen, block, blocks, 0, ranks, 0)


@inlined
def _start_draws(components, chosen, block, deviates, noise, pixel, space, draws, target, root_weight):
    """Draw from the chosen components, and move each draw like its component."""
    n_bins = len(deviates)
    for b in range(n_bins):
        _look_up(draws.anchor, b, components.anchor, b, chosen, block)
        _look_up(draws.scale, b, components.scale, b, chosen, block)
        _look_up(draws.y, b, components.y, b, chosen, block)
        store(space.em, b, load(draws.scale, b) * load(deviates, b))
    multiply_triangle(space.moved, pixel.factor, space.em)
    for b in range(n_bins):
        anchor = load(draws.anchor, b) + load(space.moved, b)
        store(draws.anchor, b, anchor)
        store(draws.y, b, anchor + load(draws.y, b))
    for c in range(len(noise)):
        # A channel without weight stays without.
        has_weight = _ONE if root_weight[c] > 0 else _ZERO
        error = has_weight * load(noise, c)
        curvature = _ONE / max(target[c], _LEAST_SIGNAL)
        store(draws.target, c, fma(fma(curvature, error, spread(_ONE)), error, spread(target[c])))


@inlined
def _deviation(draws, pixel, children, space, deviation):
    """Set the EM, and how far the residuals of each draw are from those of the linear model of the last step."""
    set_em(draws.y, pixel, children, space)
    multiply(space.right, pixel.matrix, space.em)
    total = spread(_ZERO)
    for c in range(len(space.right)):
        difference = load(draws.target, c) - load(space.right, c) - load(space.solution, c)
        total = fma(difference, difference, total)
    store(deviation, 0, total)


@inlined
def _add_poor(draws, d, poor, n):
    """Copy a draw."""
    for b in range(len(poor.y)):
        poor.anchor[b, n], poor.y[b, n], poor.scale[b, n] = draws.anchor[b, d], draws.y[b, d], draws.scale[b, d]
    for c in range(len(poor.target)):
        poor.target[c, n] = draws.target[c, d]


@inlined
def _finish(poor, n, columns, pixel, children, space, bare, scale, em):
    """Make more steps with the draws that need them, and store their EM in their columns."""
    for _ in range(MORE_STEPS):
        step(poor, pixel, children, space)
    set_em(poor.y, pixel, children, space)
    for d in range(n):
        poor.target[0, d] = bare[columns[d] // LANES, columns[d] % LANES]
    _remove_trace(space.em, len(em), load(poor.target, 0), scale)
    for b in range(len(em)):
        for d in range(n):
            em[b, columns[d] // LANES, columns[d] % LANES] = space.em[b, d]


@inlined
def _remove_trace(em, n_bins, bare, scale):
    """Scale the EM, in bare draws without the trace of plasma that no channel can see."""
    total = spread(_ZERO)
    for b in range(n_bins):
        total = total + load(em, b)
    least = _TRACE * total * bare
    for b in range(n_bins):
        store(em, b, scale * maximum(load(em, b) - least, spread(_ZERO)))


@compiled
def draw_pixels(outputs, n_components, widening, data, matrix, children, numbers, scale, out):
    """
    Draw from the posterior of pixels.

    Parameters
    ----------
    outputs : `~numpy.ndarray`
        Outputs of the network, as of `~sunpy_deepem.network.PosteriorNetwork.outputs`.
    n_components : `int`
        Number of components.
    widening : `~numpy.ndarray`
        Factor of the scales, shape ``(n,)``.
    data : `tuple` of `~numpy.ndarray`
        As `~sunpy_deepem.network.conditioning.Data`.
    matrix : `~numpy.ndarray`
        Response, shape ``(channels, bins)``.
    children : `~numpy.ndarray`
        Halves of ranges of bins, as of `~sunpy_deepem.network.splits.children`, shape ``(bins - 1, 2)``.
    numbers : `tuple` of `~numpy.ndarray`
        As `~sunpy_deepem.network.sampling.CommonNumbers`.
    scale : `~numpy.ndarray`
        Factor of the EM of each pixel, shape ``(n,)``.
    out : `~numpy.ndarray`
        Receives the EM, shape ``(draws, bins, parts, 16)``; the parts have room for all pixels.
    """
    target, root_weight, most = data
    n_draws, n_bins, n_pixels = len(out), out.shape[1], len(outputs)
    n_channels = len(matrix)
    choice, bare, deviates, noise = _in_blocks(numbers)
    n_blocks, padded_bins, padded_channels = len(deviates), deviates.shape[1], noise.shape[1]
    inverse_matrix = _ONE / np.maximum(matrix, _LEAST_RESPONSE)
    space, pixel = empty_space(padded_channels, padded_bins), empty_pixel(padded_channels, padded_bins)
    component_blocks = -(-n_components // LANES)
    components = _empty_components(component_blocks, padded_channels, padded_bins)
    draws, poor = empty_draws(padded_channels, padded_bins), empty_draws(padded_channels, padded_bins)
    weights, positions = aligned(component_blocks, LANES), aligned(component_blocks, LANES)
    ranks, order, chosen = aligned(component_blocks, LANES), aligned(component_blocks, LANES), aligned(n_blocks, LANES)
    columns = np.empty(LANES, np.int64)
    row, lanes = aligned(1, LANES), aligned(1, LANES)
    lanes[0] = np.arange(LANES)
    padded_target, padded_weight = np.zeros(padded_channels, np.float32), np.zeros(padded_channels, np.float32)
    square, rows = aligned(LANES, LANES), aligned(LANES, -(-n_bins // LANES) * LANES)
    first_of_triangle = n_components * (1 + 2 * n_bins)
    # The results of as many pixels as have their place in one line of the processor's cache.
    results = aligned(LANES * n_bins * n_blocks, LANES).reshape(LANES, n_bins, n_blocks, LANES)
    for p in range(n_pixels):
        mixture, triangle = outputs[p, :first_of_triangle], outputs[p, first_of_triangle:]
        prepare(pixel, matrix, inverse_matrix, root_weight[p], most[p], triangle)
        padded_target[:n_channels], padded_weight[:n_channels] = target[p], root_weight[p]
        for c in range(padded_channels):
            store(components.target, c, spread(padded_target[c]))
        _move_components(
            pixel, children, components, space, mixture, n_bins, widening[p], weights, positions, rows, square
        )
        _normalize(weights)
        _sort(positions, lanes, n_components, ranks, order)
        _choose(weights, order, n_components, choice, ranks, chosen)
        em, n_poor = results[p % LANES], 0
        for block in range(n_blocks):
            first = block * LANES
            _start_draws(
                components,
                chosen,
                block,
                deviates[block],
                noise[block],
                pixel,
                space,
                draws,
                padded_target,
                padded_weight,
            )
            for _ in range(DRAW_STEPS):
                step(draws, pixel, children, space)
            _deviation(draws, pixel, children, space, row)
            _remove_trace(space.em, n_bins, load(bare, block), scale[p])
            for b in range(n_bins):
                store(em, (b, block), load(space.em, b))
            for d in range(LANES):
                if row[0, d] > _POOR and first + d < n_draws:
                    _add_poor(draws, d, poor, n_poor)
                    columns[n_poor] = first + d
                    n_poor += 1
                    if n_poor == LANES:
                        _finish(poor, n_poor, columns, pixel, children, space, bare, scale[p], em)
                        n_poor = 0
        if n_poor:
            _finish(poor, n_poor, columns, pixel, children, space, bare, scale[p], em)
        if p % LANES == LANES - 1 or p == n_pixels - 1:
            _store(results, square, p // LANES, out)


@inlined
def _store(results, square, part, out):
    """Store the results of 16 pixels in a part of ``out`` (draws, bins, parts, 16)."""
    for b in range(out.shape[1]):
        for block in range(results.shape[2]):
            transpose(results, (b, block), square)
            for d in range(min(LANES, len(out) - block * LANES)):
                store(out, (block * LANES + d, b, part), load(square, d))


@inlined
def _in_blocks(numbers):
    """Return the numbers of the draws in blocks: (blocks, 16) twice, and (blocks, bins or channels, 16) twice."""
    choice, bare, deviates, noise = numbers
    n_draws = len(choice)
    n_blocks = -(-n_draws // LANES)
    choices, bares = aligned(n_blocks, LANES), aligned(n_blocks, LANES)
    all_deviates = _blocks(n_blocks, deviates.shape[1])
    noises = _blocks(n_blocks, noise.shape[1])
    for d in range(n_blocks * LANES):
        # The last one fills the last block.
        k, block, lane = min(d, n_draws - 1), d // LANES, d % LANES
        choices[block, lane], bares[block, lane] = choice[k], _F(bare[k])
        for b in range(deviates.shape[1]):
            all_deviates[block, b, lane] = deviates[k, b]
        for c in range(noise.shape[1]):
            noises[block, c, lane] = noise[k, c]
    return choices, bares, all_deviates, noises


@inlined
def _empty_components(n_blocks, n_channels, n_bins):
    """Return `Draws` with room for blocks of 16 components, shape ``(blocks, bins, 16)`` and ``(channels, 16)``."""
    anchor, y, scale = _blocks(n_blocks, n_bins), _blocks(n_blocks, n_bins), _blocks(n_blocks, n_bins)
    return Draws(anchor, y, scale, aligned(n_channels, LANES))


@inlined
def _blocks(n_blocks, rows):
    return aligned(n_blocks * padded(rows), LANES).reshape(n_blocks, padded(rows), LANES)
