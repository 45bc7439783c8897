"""Sequences of cubes of many times."""

from astropy.io import fits
from astropy.table import Table
from astropy.time import Time
from astropy.timeseries import TimeSeries
from ndcube import NDCubeSequence

from sunpy_deepem.calibrate.alignment import REFERENCE_CHANNEL
from sunpy_deepem.io.archive import DEMArchive
from sunpy_deepem.series.lazy_cubes import CubesInArchive, CubesInFiles, LazyCubes
from sunpy_deepem.series.light_curves import light_curve
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
    def read(cls, path):
        """
        Open the cubes that `invert_series` wrote.

        Parameters
        ----------
        path : `str` or `pathlib.Path`
            A folder of FITS files, or an archive, see `~sunpy_deepem.io.DEMArchive`.

        Returns
        -------
        `DEMCubeSequence`
            Cubes in order of time, read on access. Only the last one used stays in memory.

        Raises
        ------
        FileNotFoundError
            If the folder does not exist, or holds no FITS file of a DEM cube or no complete cube.
        ValueError
            If it is a Zarr store of another kind.
        ImportError
            If it is an archive and the extra ``zarr`` is not installed.
        """
        path = checked_path(path)
        cubes = CubesInArchive(DEMArchive(path)) if (path / "zarr.json").exists() else _cubes_of_folder(path)
        if not len(cubes):
            msg = (
                f"path: there is no FITS file of a DEM cube and no complete cube in {path}. invert_series writes them."
            )
            raise FileNotFoundError(msg)
        return cls(cubes)

    @property
    def times(self):
        """Start times of the exposures in 193 Å, `~astropy.time.Time` of shape ``(n,)``."""
        if isinstance(self.data, LazyCubes):
            return self.data.times
        return Time([_time(cube.inputs) for cube in self.data])

    @property
    def sequence_axis_coords(self):
        """Coordinates along the axis of the sequence, `dict` with the key ``"time"``."""
        return {"time": list(self.times)}

    def light_curve(self, region=None, *, bands=BANDS, follow_rotation=False, draws=True):
        """
        Return EM and temperature of a region against time.

        Of an archive only the region is read.

        Parameters
        ----------
        region : `~astropy.coordinates.SkyCoord`, region, `~numpy.ndarray` or `None`, optional
            See `DEMCube.curve`; by default all pixels.
        bands : sequence of pairs of `float`, optional
            Ranges of log10(T/K) to integrate the EM over, as in `DEMCube.band_maps`.
        follow_rotation : `bool`, optional
            Whether the region, which is that of the first cube, follows the differential rotation of the Sun, see
            `sunpy.physics.differential_rotation.solar_rotate_coordinate`. By default it is fixed on the sky.
        draws : `bool`, optional
            Whether to infer the EM of the region from its mean intensities, with posterior draws. Otherwise, the EM of
            a band is the mean of the EM of the pixels, without uncertainty, and the only column with ``n_pixels``;
            this is much faster.

        Returns
        -------
        `~astropy.timeseries.TimeSeries`
            Columns: mean ``total_em`` of the region in cm^-5; mean EM of each band, such as ``em_5.6_6.0``; ``log_t``,
            the EM-weighted log10(T/K); ``width``, its standard deviation in dex; and ``n_pixels``, the number of
            pixels. Uncertainties, such as
            ``total_em_uncertainty``, are half the 68 % interval of posterior draws, NaN if a cube has no posterior.
            All are NaN while a region that follows the rotation is behind the Sun or outside the field.

        Raises
        ------
        TypeError, ValueError
            See `DEMCube.curve`; or if a band is empty or exceeds the bins of the cubes; or if ``region`` follows the
            rotation and has no pixel on the disk.
        """
        columns = light_curve(self.data, region, bands, follow_rotation=follow_rotation, draws=draws)
        return TimeSeries(time=self.times, data=columns)


def _cubes_of_folder(folder):
    paths = sorted(folder.glob("*")) if folder.is_dir() else []
    paths = [path for path in paths if path.name.lower().endswith(FITS_SUFFIXES) and not path.name.startswith(".")]
    times = {path: time for path in paths if (time := _time_of_file(path)) is not None}
    return CubesInFiles(sorted(times, key=times.get), times)


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
