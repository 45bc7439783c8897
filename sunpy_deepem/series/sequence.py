"""Sequences of cubes of many times."""

from collections.abc import Sequence

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.time import Time
from astropy.timeseries import TimeSeries
from ndcube import NDCubeSequence

from sunpy_deepem.analysis.derived import checked_bands
from sunpy_deepem.calibrate.alignment import REFERENCE_CHANNEL
from sunpy_deepem.cube.dem_cube import DEMCube
from sunpy_deepem.temperature import BANDS
from sunpy_deepem.utils.files import FITS_SUFFIXES, checked_path
from sunpy_deepem.utils.fits import headers
from sunpy_deepem.visualization.movies import animate_series

__all__ = ["DEMCubeSequence"]


class DEMCubeSequence(NDCubeSequence):
    """
    Sequence of cubes of many times.

    Parameters
    ----------
    data_list : sequence of `DEMCube`
        In order of time.
    meta : `dict`, optional
        Metadata of the sequence.
    common_axis : `None`, optional
        Not used: time is the axis of the sequence, not of its cubes.

    Examples
    --------
    >>> from sunpy_deepem.series import DEMCubeSequence
    >>> times = ["2014-01-01T00:00", "2014-01-01T00:02"]
    >>> sequence = DEMCubeSequence([invert(sample_maps((32, 32), obstime=time)) for time in times])
    >>> sequence.shape
    (2, 18, 32, 32)
    >>> sequence.light_curve().colnames[:3]
    ['time', 'total_em', 'total_em_uncertainty']
    """

    animate = animate_series

    @classmethod
    def read(cls, folder):
        """
        Open the cubes that `invert_series` wrote to a folder.

        Parameters
        ----------
        folder : `str` or `pathlib.Path`

        Returns
        -------
        `DEMCubeSequence`
            Cubes in order of time, read on access. Only the last one used stays in memory.

        Raises
        ------
        FileNotFoundError
            If the folder does not exist or holds no FITS file of a DEM cube.
        """
        folder = checked_path(folder, "folder")
        paths = sorted(folder.glob("*")) if folder.is_dir() else []
        paths = [path for path in paths if path.name.lower().endswith(FITS_SUFFIXES) and not path.name.startswith(".")]
        times = {path: time for path in paths if (time := _time_of_file(path)) is not None}
        if not times:
            msg = f"folder: there is no FITS file of a DEM cube in {folder}. invert_series writes them."
            raise FileNotFoundError(msg)
        return cls(_CubesOnDisk(sorted(times, key=times.get), times))

    @property
    def times(self):
        """Start times of the exposures in 193 Å, `~astropy.time.Time` of shape ``(n,)``."""
        if isinstance(self.data, _CubesOnDisk):
            return Time([self.data.times[path] for path in self.data.paths])
        return Time([_time(cube.inputs) for cube in self.data])

    @property
    def sequence_axis_coords(self):
        """Coordinates along the axis of the sequence, `dict` with the key ``"time"``."""
        return {"time": list(self.times)}

    def light_curve(self, region=None, *, bands=BANDS):
        """
        Return EM and temperature of a region against time.

        Parameters
        ----------
        region : `~astropy.coordinates.SkyCoord`, region, `~numpy.ndarray` or `None`, optional
            See `DEMCube.curve`; by default all pixels. A sky region is fixed on the sky and does not follow solar
            rotation.
        bands : sequence of pairs of `float`, optional
            Ranges of log10(T/K) to integrate the EM over, as in `DEMCube.band_maps`.

        Returns
        -------
        `~astropy.timeseries.TimeSeries`
            Columns: mean ``total_em`` of the region in cm^-5; mean EM of each band, such as ``em_5.6_6.0``; ``log_t``,
            the EM-weighted log10(T/K); ``width``, its standard deviation in dex; and ``n_pixels``, the number of
            pixels. Uncertainties, such as
            ``total_em_uncertainty``, are half the 68 % interval of posterior draws, NaN if a cube has no posterior.

        Raises
        ------
        TypeError, ValueError
            See `DEMCube.curve`; or if a band is empty or exceeds the bins of the cubes.
        """
        bands = checked_bands(bands)
        rows = [_row(cube.curve(region), bands) for cube in self.data]
        return TimeSeries(time=self.times, data={name: _column([row[name] for row in rows]) for name in rows[0]})


def _row(curve, bands):
    """Return one row of a light curve, by column name."""
    row = {}
    for name, (value, lower, upper) in curve.products(bands).items():
        row |= {name: value, f"{name}_uncertainty": (upper - lower) / 2}
    return row | {"n_pixels": curve.n_pixels}


def _column(values):
    return u.Quantity(values) if isinstance(values[0], u.Quantity) else np.array(values)


class _CubesOnDisk(Sequence):
    """Cubes read on access. They are large, so only the last one is kept."""

    def __init__(self, paths, times):
        self.paths, self.times = paths, times
        self._last = (None, None)

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, item):
        if isinstance(item, slice):
            return type(self)(self.paths[item], self.times)
        path = self.paths[item]
        if self._last[0] != path:
            self._last = (path, DEMCube.read(path))
        return self._last[1]


def _time(inputs):
    """Return the start of the exposure in 193 Å."""
    (date,) = (each["date"] for each in inputs if each["channel"] == REFERENCE_CHANNEL)
    return Time(str(date), scale="utc")


def _time_of_file(path):
    """Return the time of the cube in a FITS file, without reading its images; `None` if it holds no cube."""
    try:
        # Problems of the file are reported when its cube is read.
        if "DEMFMT" in next(headers(path)):
            with fits.open(path) as hdus:
                return _time(Table.read(hdus["INPUTS"], mask_invalid=False))
    except (OSError, LookupError, ValueError, StopIteration):
        return None
    return None
