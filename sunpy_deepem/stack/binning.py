"""Binning of counts by area-weighted mean: `Binning`."""

import numpy as np
from scipy.sparse import csr_array

from sunpy_deepem.stack.counts import Counts
from sunpy_deepem.units import MIN_VALID_FRACTION

__all__ = ["Binning"]


class Binning:
    """
    Area-weighted mean onto a coarser grid, exact for any factor and a block mean for whole factors.

    Parameters
    ----------
    native, shape : `tuple` of `int`
        Shapes ``(ny, nx)`` of the two grids.
    """

    # Two sparse products are faster than reproject or block_reduce, and work on any part of a grid.

    def __init__(self, native, shape):
        self.native, self.shape = native, shape
        self._overlaps = None if native == shape else [_overlap(*n) for n in zip(native, shape, strict=True)]

    def native_slices(self, rows, columns):
        """Return the slices of native pixels in ``rows`` and ``columns`` of the coarser grid."""
        if self._overlaps is None:
            return rows, columns
        return tuple(_covered(overlap[part]) for overlap, part in zip(self._overlaps, (rows, columns), strict=True))

    def mean(self, counts, rows, columns):
        """Average the valid pixels of ``counts``, those of `native_slices`, onto ``rows`` and ``columns``."""
        if self._overlaps is None:
            return counts
        overlaps = [
            overlap[part][:, _covered(overlap[part])]
            for overlap, part in zip(self._overlaps, (rows, columns), strict=True)
        ]
        area = np.float32(np.prod([n_in / n_out for n_in, n_out in zip(self.native, self.shape, strict=True)]))
        valid = np.isfinite(counts.values)
        if valid.all():
            fraction, weight = 1.0, area
            values = _area_sum(counts.values, overlaps) / area
        else:
            weight = _area_sum(valid.astype(np.float32), overlaps)
            fraction = weight / area
            with np.errstate(invalid="ignore"):
                values = _area_sum(np.where(valid, counts.values, 0), overlaps) / weight
            values[fraction < MIN_VALID_FRACTION] = np.nan
        noise = None
        if counts.noise is not None:
            # σ of the mean of independent pixels.
            with np.errstate(invalid="ignore"):
                noise = np.sqrt(_area_sum(np.where(valid, counts.noise, 0) ** 2, overlaps)) / weight
        saturated, bloomed = (
            None if plane is None else _area_sum(plane.astype(np.float32), overlaps) / area
            for plane in (counts.saturated, counts.bloomed)
        )
        return Counts(values, noise, saturated, bloomed, fraction)


def _overlap(n_in, n_out):
    """Return the overlap of each of ``n_out`` pixels with each of ``n_in``, a sparse matrix (n_out, n_in)."""
    edges = np.arange(n_out + 1) * (n_in / n_out)
    rows, columns, overlaps = [], [], []
    for row in range(n_out):
        first, last = int(np.floor(edges[row] + 1e-9)), int(np.ceil(edges[row + 1] - 1e-9))
        covered = np.arange(first, last)
        rows += [row] * covered.size
        columns += covered.tolist()
        overlaps += (np.minimum(covered + 1, edges[row + 1]) - np.maximum(covered, edges[row])).tolist()
    return csr_array((np.array(overlaps, dtype=np.float32), (rows, columns)), shape=(n_out, n_in))


def _covered(overlap):
    return slice(int(overlap.indices.min()), int(overlap.indices.max()) + 1)


def _area_sum(values, overlaps):
    """Integrate ``values`` over each pixel of the coarser grid."""
    rows, columns = overlaps
    return np.ascontiguousarray((columns @ (rows @ values).T).T)
