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
    select,
    spread,
    store,
    transpose,
)
from sunpy_deepem.units import TRACE

__all__ = ["LANES", "draw_pixels"]

# Numbers of type float64 would make all arithmetic slower.
_F = np.float32
_ZERO, _ONE, _LEAST_WEIGHT = _F(0), _F(1), _F(LEAST_LOG_WEIGHT)
_LEAST_SCALE, _MOST_SCALE = _F(LOG_SCALES[0]), _F(LOG_SCALES[1])
_POOR, _TRACE, _LEAST_SIGNAL, _LEAST_RESPONSE = _F(POOR), _F(TRACE), _F(LEAST_SIGNAL), _F(LEAST_RESPONSE)


@inlined
def _block(components, i):
    """Return the `Draws` that hold 16 components."""
    anchor, y, scale, target = components
    return Draws(anchor[i], y[i], scale[i], target)


@inlined
def _move_components(pixel, children, components, space, outputs, n_bins, widening, weights, positions):
    """Move the components to where the data put them, and set the weight and the mean bin of each."""
    n_components = len(weights)
    first_scale = n_components * (1 + n_bins)
    for i in range(len(positions)):
        draws, first = _block(components, i), i * LANES
        for d in range(LANES):
            # The first one fills the last block.
            k = first + d if first + d < n_components else 0
            for b in range(n_bins):
                draws.anchor[b, d] = outputs[n_components + k * n_bins + b]
                draws.scale[b, d] = outputs[first_scale + k * n_bins + b]
        for b in range(n_bins):
            store(draws.y, b, load(draws.anchor, b))
            store(draws.scale, b, widening * exp(clip(load(draws.scale, b), _LEAST_SCALE, _MOST_SCALE)))
        for _ in range(COMPONENT_STEPS):
            step(draws, pixel, children, space)
        set_log_evidence(space)
        for d in range(min(LANES, n_components - first)):
            weights[first + d] = outputs[first + d] + space.right[0, d]
        set_em(draws.y, pixel, children, space)
        total = position = spread(_ZERO)
        for b in range(n_bins):
            value = load(space.em, b)
            total, position = total + value, fma(_F(b), value, position)
        store(positions, i, position / total)


@inlined
def _normalize(weights):
    """Turn logarithms of weights into weights whose sum is one."""
    largest, total = _LEAST_WEIGHT, _ZERO
    for k in range(len(weights)):
        largest = max(largest, weights[k])
    for k in range(len(weights)):
        weights[k] = np.exp(weights[k] - largest)
        total += weights[k]
    for k in range(len(weights)):
        weights[k] /= total


@inlined
def _sort(keys, order):
    """Set ``order`` to the indices of the keys in ascending order; there are few."""
    for i in range(len(order)):
        k = i
        while k > 0 and keys[order[k - 1]] > keys[i]:
            order[k] = order[k - 1]
            k -= 1
        order[k] = i


@inlined
def _choose(weights, order, choice, ends):
    """
    Set the number of draws up to the end of each component, with the components in this order.

    Draws are in ascending order of ``choice``, see ``sampling._choose``.
    """
    cumulative, d = _ZERO, 0
    for i in range(len(order)):
        cumulative += weights[order[i]]
        while d < len(choice) and choice[d] <= cumulative:
            d += 1
        ends[i] = d
    # Rounding errors, and what fills the last block.
    i = len(order) - 1
    while i > 0 and ends[i - 1] == ends[i]:
        i -= 1
    ends[i:] = len(choice) + LANES


@inlined
def _take(components, k, where, draws, n_bins):
    """Give component ``k`` to the draws where a mask is set."""
    i, d = k // LANES, k % LANES
    for b in range(n_bins):
        anchor = components.anchor[i, b, d]
        moved = components.y[i, b, d] - anchor
        store(draws.anchor, b, select(where, spread(anchor), load(draws.anchor, b)))
        store(draws.scale, b, select(where, spread(components.scale[i, b, d]), load(draws.scale, b)))
        store(draws.y, b, select(where, spread(moved), load(draws.y, b)))


@inlined
def _start_draws(components, order, ends, first, lanes, deviates, noise, pixel, space, draws, target, root_weight):
    """Draw from the chosen components, and move each draw like its component."""
    n_bins = len(deviates)
    i = len(order) - 1
    # From the last component to the first one that has draws in this block.
    while i >= 0 and ends[i] > first:
        if i == 0 or ends[i - 1] < first + LANES:
            _take(components, order[i], greater(spread(_F(ends[i] - first)), load(lanes, 0)), draws, n_bins)
        i -= 1
    for b in range(n_bins):
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
    draw_order = np.argsort(numbers[0])
    choice, bare, deviates, noise = _in_blocks(numbers, draw_order)
    n_blocks, padded_bins, padded_channels = len(deviates), deviates.shape[1], noise.shape[1]
    inverse_matrix = _ONE / np.maximum(matrix, _LEAST_RESPONSE)
    space, pixel = empty_space(padded_channels, padded_bins), empty_pixel(padded_channels, padded_bins)
    components = _empty_components(-(-n_components // LANES), padded_channels, padded_bins)
    draws, poor = empty_draws(padded_channels, padded_bins), empty_draws(padded_channels, padded_bins)
    weights, positions = np.empty(n_components, np.float32), aligned(len(components.y), LANES)
    order, ends, columns = np.empty(n_components, np.int64), np.empty(n_components, np.int64), np.empty(LANES, np.int64)
    row, lanes = aligned(1, LANES), aligned(1, LANES)
    lanes[0] = np.arange(LANES)
    padded_target, padded_weight = np.zeros(padded_channels, np.float32), np.zeros(padded_channels, np.float32)
    square = aligned(LANES, LANES)
    # The results of as many pixels as have their place in one line of the processor's cache.
    results = aligned(LANES * n_bins * n_blocks, LANES).reshape(LANES, n_bins, n_blocks, LANES)
    for p in range(n_pixels):
        triangle = outputs[p, n_components * (1 + 2 * n_bins) :]
        prepare(pixel, matrix, inverse_matrix, root_weight[p], most[p], triangle)
        padded_target[:n_channels], padded_weight[:n_channels] = target[p], root_weight[p]
        for c in range(padded_channels):
            store(components.target, c, spread(padded_target[c]))
        _move_components(pixel, children, components, space, outputs[p], n_bins, widening[p], weights, positions)
        _normalize(weights)
        _sort(positions.reshape(-1), order)
        _choose(weights, order, choice, ends)
        em, n_poor = results[p % LANES], 0
        for block in range(n_blocks):
            first = block * LANES
            _start_draws(
                components,
                order,
                ends,
                first,
                lanes,
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
            _store(results, draw_order, square, p // LANES, out)


@inlined
def _store(results, order, square, part, out):
    """Store the results of 16 pixels in a part of ``out`` (draws, bins, parts, 16), in the order of the draws."""
    for b in range(out.shape[1]):
        for block in range(results.shape[2]):
            transpose(results, (b, block), square)
            for d in range(min(LANES, len(order) - block * LANES)):
                store(out, (order[block * LANES + d], b, part), load(square, d))


@inlined
def _in_blocks(numbers, order):
    """Return the numbers of the draws in this order: (n,), (blocks, 16), and (blocks, bins or channels, 16) twice."""
    choice, bare, deviates, noise = numbers
    n_draws = len(order)
    n_blocks = -(-n_draws // LANES)
    choices = choice[order]
    bares = aligned(n_blocks, LANES)
    all_deviates = _blocks(n_blocks, deviates.shape[1])
    noises = _blocks(n_blocks, noise.shape[1])
    for d in range(n_blocks * LANES):
        # The last one fills the last block.
        k, block, lane = order[min(d, n_draws - 1)], d // LANES, d % LANES
        bares[block, lane] = _F(bare[k])
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
