"""Light curves of a region in cubes of many times."""

import astropy.units as u
import numpy as np

from sunpy_deepem.analysis.derived import band_em, band_limits, checked_bands
from sunpy_deepem.series.lazy_cubes import as_cubes
from sunpy_deepem.series.rotation import RotatingRegion
from sunpy_deepem.units import EM_UNIT

__all__ = ["light_curve"]


def light_curve(cubes, region, bands, *, follow_rotation, draws):
    """
    Return the columns of a light curve.

    Parameters
    ----------
    cubes : sequence of `DEMCube`
        In order of time, in memory or `LazyCubes`.
    region, bands, follow_rotation, draws
        See `DEMCubeSequence.light_curve`.

    Returns
    -------
    `dict`
        Arrays and quantities by name.
    """
    cubes, bands = as_cubes(cubes), checked_bands(bands)
    one = _inferred if draws else _averaged
    rotating = RotatingRegion.from_region(region, cubes.header(0), cubes.sky_shape(0)) if follow_rotation else None
    rows = []
    for index in range(len(cubes)):
        where = region
        if rotating is not None:
            where = rotating.on_grid(cubes.header(index), cubes.sky_shape(index))
        is_hidden = rotating is not None and where is None
        rows.append({} if is_hidden else one(cubes, index, where, bands))
    return _columns(rows)


def _inferred(cubes, index, region, bands):
    """Return EM and temperature of a region with uncertainties, from its mean intensities."""
    cube, where = cubes.read(index, region)
    curve, row = cube.curve(where), {}
    for name, (value, lower, upper) in curve.products(bands).items():
        row |= {name: value, f"{name}_uncertainty": (upper - lower) / 2}
    return row | {"n_pixels": curve.n_pixels}


def _averaged(cubes, index, region, bands):
    """Return the mean EM of the pixels of a region in each band."""
    bins = cubes.bins(index)
    needed = np.zeros(len(bins), dtype=bool)
    for low, high in bands:
        begin, end = band_limits(bins, low, high)
        needed |= end > begin
    part = slice(int(np.argmax(needed)), len(bins) - int(np.argmax(needed[::-1])))
    mean, n_pixels = cubes.mean_em(index, part, region)
    row = {f"em_{low}_{high}": band_em(mean, bins[part], low, high) << EM_UNIT for low, high in bands}
    return row | {"n_pixels": n_pixels}


def _columns(rows):
    """Return columns of rows; those of empty rows are NaN, and no pixels."""
    names = max(rows, key=len)
    empty = {name: value * np.nan for name, value in names.items()} | {"n_pixels": 0}
    columns = {name: [(row or empty)[name] for row in rows] for name in names}
    return {
        name: u.Quantity(each) if isinstance(each[0], u.Quantity) else np.array(each) for name, each in columns.items()
    }
