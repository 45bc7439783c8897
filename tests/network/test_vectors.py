"""Arithmetic of vectors in compiled functions."""

import numpy as np
import pytest

from sunpy_deepem.network import vectors
from sunpy_deepem.network.vector_math import compiled
from sunpy_deepem.network.vectors import LANES, load, store

VALUES = np.linspace(0.5, 8, LANES, dtype=np.float32)


def result_of(function, *arrays):
    """Return what a compiled function of vectors makes of arrays of `LANES` numbers."""

    @compiled
    def call(out, rows):
        store(out, 0, function(load(rows, 0), load(rows, 1), load(rows, 2)))

    rows = np.zeros((3, LANES), np.float32)
    rows[: len(arrays)] = arrays
    out = np.zeros((1, LANES), np.float32)
    call(out, rows)
    return out[0]


@pytest.mark.parametrize(
    ("of_vectors", "of_arrays"),
    [
        (lambda a, b, c: a + b, lambda a, b, c: a + b),
        (lambda a, b, c: a - b, lambda a, b, c: a - b),
        (lambda a, b, c: a * b, lambda a, b, c: a * b),
        (lambda a, b, c: a / b, lambda a, b, c: a / b),
        (lambda a, b, c: np.float32(2) * a, lambda a, b, c: 2 * a),
        (lambda a, b, c: a - np.float32(2), lambda a, b, c: a - 2),
        (lambda a, b, c: vectors.fma(a, b, c), lambda a, b, c: a * b + c),
        (lambda a, b, c: vectors.fma(np.float32(3), b, c), lambda a, b, c: 3 * b + c),
        (lambda a, b, c: vectors.minimum(a, b), lambda a, b, c: np.minimum(a, b)),
        (lambda a, b, c: vectors.maximum(a, b), lambda a, b, c: np.maximum(a, b)),
        (lambda a, b, c: vectors.clip(c, np.float32(-1), np.float32(2)), lambda a, b, c: np.clip(c, -1, 2)),
        (lambda a, b, c: vectors.select(vectors.greater(a, b), a, c), lambda a, b, c: np.where(a > b, a, c)),
        (lambda a, b, c: vectors.pick(a, b), lambda a, b, c: a[b.astype(int)]),
        (lambda a, b, c: vectors.finite_or(a / vectors.maximum(c, c - c), b), None),
    ],
)
def test_arithmetic(of_vectors, of_arrays):
    a, b, c = VALUES, VALUES[::-1].copy(), VALUES - 4
    if of_arrays is None:

        def of_arrays(a, b, c):
            positive = np.where(c > 0, c, np.inf)
            return np.where(c > 0, a / positive, b)

    np.testing.assert_allclose(result_of(compiled(of_vectors), a, b, c), of_arrays(a, b, c), rtol=1e-6)


def test_exp():
    for start in np.linspace(-87, 72, 30):
        values = np.linspace(start, start + 16, LANES, dtype=np.float32)
        expected = np.exp(values.astype(float))
        np.testing.assert_allclose(result_of(compiled(lambda a, b, c: vectors.exp(a)), values), expected, rtol=3e-7)


def test_log():
    for exponent in range(-37, 38, 5):
        values = np.float32(10.0**exponent) * np.linspace(0.2, 5, LANES, dtype=np.float32)
        found = result_of(compiled(lambda a, b, c: vectors.log(a)), values)
        np.testing.assert_allclose(found, np.log(values.astype(float)), rtol=3e-7, atol=1e-6)
