"""
Coordinates of the EM in bins of log T: `coordinates`, and back: `log_em`.

The coordinates are the logarithm of the total EM, and the logarithm of the ratio of the EM of the cooler to that of the
hotter half of all bins, of each half of them, of each quarter, and so on to single bins. Six broad channels see sums
over bins, rather than bins. Sums are coordinates here, so that a Gaussian can be narrow in them and wide in how they
are distributed over the bins.
"""

from functools import lru_cache

import torch
from torch.nn.functional import logsigmoid

__all__ = ["children", "coordinates", "fractions", "log_em", "splits"]


@lru_cache(maxsize=8)
def splits(n):
    """Return the first bin, the first of the hotter half, and the end of each range that is split, longest first."""
    found, ranges = [], [(0, n)]
    for first, end in ranges:
        if end - first > 1:
            middle = first + (end - first + 1) // 2
            found.append((first, middle, end))
            ranges += [(first, middle), (middle, end)]
    return tuple(found)


@lru_cache(maxsize=8)
def children(n):
    """
    Return the cooler and the hotter half of each range, a `tuple` of pairs.

    A number below ``n - 1`` is that of a range of `splits`, others are ``n - 1`` plus the number of a bin.
    """
    number = {(first, end): k for k, (first, _, end) in enumerate(splits(n))}
    number |= {(b, b + 1): n - 1 + b for b in range(n)}
    return tuple((number[first, middle], number[middle, end]) for first, middle, end in splits(n))


def coordinates(em):
    """Return the coordinates of positive EM, both of shape ``(..., bins)``."""
    halves = ((em[..., first:middle], em[..., middle:end]) for first, middle, end in splits(em.shape[-1]))
    ratios = [cool.sum(dim=-1) / hot.sum(dim=-1) for cool, hot in halves]
    return torch.stack([em.sum(dim=-1), *ratios], dim=-1).log()


def fractions(y):
    """Return the fraction of the EM of each range that is in its cooler half, shape ``(..., bins - 1)``."""
    return torch.sigmoid(y[..., 1:])


def log_em(y):
    """Return the logarithm of the EM of coordinates, both of shape ``(..., bins)``."""
    n = y.shape[-1]
    values = [y[..., 0]] + [None] * (2 * n - 2)
    cool, hot = logsigmoid(y[..., 1:]), logsigmoid(-y[..., 1:])
    for k, (left, right) in enumerate(children(n)):
        values[left], values[right] = values[k] + cool[..., k], values[k] + hot[..., k]
    return torch.stack(values[n - 1 :], dim=-1)
