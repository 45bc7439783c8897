"""Rounding of cubes to a relative precision, so that files compress well."""

from dataclasses import replace
from math import ceil, log2
from numbers import Real

import numpy as np

__all__ = ["checked_precision", "round_cube"]

_SIGMA_FACTOR = 5
# Of EM and intensities; that of σ is five times larger.
_COARSEST = 0.1


def checked_precision(precision):
    """
    Return a relative precision as `float`.

    Parameters
    ----------
    precision : `float`

    Raises
    ------
    TypeError
        If it is not a number.
    ValueError
        If it is not between 0 and 0.1.
    """
    expected = f"precision must be a relative error such as 0.01, above 0 and at most {_COARSEST}, found {precision!r}."
    if not isinstance(precision, Real) or isinstance(precision, bool):
        raise TypeError(expected)
    if not 0 < precision <= _COARSEST:
        raise ValueError(expected)
    return float(precision)


def round_cube(cube, precision):
    """
    Round EM and intensities to a relative precision, and σ and χ² to five times that.

    Mask, quality, saturation, other images, zeros, NaN and infinity are unchanged.

    Parameters
    ----------
    cube : `DEMCube`
    precision : `float`
        Largest relative error.

    Returns
    -------
    `DEMCube`
        The largest relative errors are in its provenance, as ``"precision"``.
    """
    fine = checked_precision(precision)
    coarse = _SIGMA_FACTOR * fine
    planes = cube.compute().planes
    rounded = replace(
        planes,
        em=_rounded(planes.em, fine),
        std=None if planes.std is None else _rounded(planes.std, coarse),
        intensity=[_rounded(image, fine) for image in planes.intensity],
        sigma=[_rounded(image, coarse) for image in planes.sigma],
        chi2=_rounded(planes.chi2, coarse),
        limit=None if planes.limit is None else [_rounded(image, fine) for image in planes.limit],
    )
    result = cube.with_planes(rounded)
    result.meta["provenance"]["precision"] = {"em": fine, "std": coarse, "intensity": fine, "sigma": coarse}
    return result


def _rounded(array, precision):
    """Round to the fewest binary digits that keep the relative error; the rest become zeros, which compress."""
    digits = ceil(-log2(precision))
    mantissa, exponent = np.frexp(array)
    return np.ldexp(np.rint(np.ldexp(mantissa, digits)), exponent - digits)
