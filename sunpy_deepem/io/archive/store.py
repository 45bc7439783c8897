"""All cubes of a series in one Zarr store: `DEMArchive`."""

import json
from collections.abc import Sequence
from functools import lru_cache

import astropy.units as u
import numpy as np
from astropy.time import Time

from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.cube.dem_cube import DEMCube
from sunpy_deepem.cube.planes import Planes
from sunpy_deepem.cube.precision import checked_precision
from sunpy_deepem.io.archive.layout import FLOOR, create_group, extend, import_zarr, open_group, remove_partial, scales
from sunpy_deepem.response.temperature_response import TemperatureResponse
from sunpy_deepem.units import EM_UNIT, RESPONSE_UNIT
from sunpy_deepem.utils.checks import one_time
from sunpy_deepem.utils.files import checked_path, file_lock
from sunpy_deepem.utils.regions import resolve_region
from sunpy_deepem.utils.serialization import json_facts
from sunpy_deepem.utils.wcs import cube_wcs, sky_wcs

__all__ = ["DEMArchive"]

# 16-bit codes of ln EM do not reach further.
_FINEST = 0.005
# Largest EM in cm^-5.
_MAX_EM = 1e38


class DEMArchive(Sequence):
    """
    Cubes of many times in one Zarr store, with a bounded relative error.

    Parameters
    ----------
    path : `str` or `pathlib.Path`
        An archive by `create` or `invert_series`.

    Raises
    ------
    FileNotFoundError
        If ``path`` does not exist.
    ValueError
        If it is not an archive.
    ImportError
        If the extra ``zarr`` is not installed.

    Notes
    -----
    The complete cubes, in order of time. Each is read when it is accessed. Any number of threads and processes may call
    `append` at the same time.

    EM and intensities have a relative error of at most ``precision``; standard deviations, σ and χ² five times that.
    This holds for EM above 10⁻⁴ of the total EM of the pixel, smaller EM except zero is stored as 10⁻⁴ of it; and for
    its standard deviation likewise. The error of intensities is at most ``precision`` times the intensity or
    0.1 DN s^-1 pix^-1, added in quadrature. Masks, flags, saturation, NaN and zeros are exact.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from sunpy_deepem.io import DEMArchive
    >>> with TemporaryDirectory() as folder:
    ...     dem = invert(sample_maps((32, 32)))
    ...     archive = DEMArchive.create(Path(folder) / "series.zarr", dem.data.shape[1:], dem.bins)
    ...     archive.append(dem)
    ...     again = archive[0]
    >>> bool((abs(again.data / dem.data - 1) < 0.01)[dem.data > 1e-4 * dem.data.sum(axis=0)].all())
    True
    """

    def __init__(self, path):
        self.path = checked_path(path).absolute()
        self._open(write=False)

    @classmethod
    def create(cls, path, shape, bins, *, precision=0.01):
        """
        Create an archive without cubes.

        Parameters
        ----------
        path : `str` or `pathlib.Path`
            Folder to create; it should end in ``.zarr``.
        shape : `tuple` of `int`
            Shape of the sky of all cubes, ``(ny, nx)``.
        bins : `LogTBins`
            Their bins.
        precision : `float`, optional
            Largest relative error of EM, from 0.005 to 0.1.

        Returns
        -------
        `DEMArchive`

        Raises
        ------
        FileExistsError
            If ``path`` exists.
        TypeError, ValueError
            If ``precision`` is not a number from 0.005 to 0.1.
        ImportError
            If the extra ``zarr`` is not installed.
        """
        path, precision = checked_path(path).absolute(), checked_precision(precision)
        if precision < _FINEST:
            msg = f"precision of an archive must be at least {_FINEST}, found {precision}. Write FITS files instead."
            raise ValueError(msg)
        if not path.parent.is_dir():
            msg = f"{path} lies in a folder that does not exist. Create {path.parent} first."
            raise FileNotFoundError(msg)
        create_group(path, tuple(shape), bins, precision)
        return cls(path)

    # -- content ------------------------------------------------------------------------------------------------------

    @property
    def times(self):
        """Times of the cubes in ascending order, `~astropy.time.Time` of shape ``(n,)``."""
        return Time(_isot(self._milliseconds[self._order]), scale="utc", format="isot")

    @property
    def shape(self):
        """Number of cubes and their shape, ``(n, number of bins, ny, nx)``."""
        return (len(self), len(self.bins), *self._sky)

    def __len__(self):
        return len(self._order)

    def __getitem__(self, item):
        if isinstance(item, slice):
            part = object.__new__(type(self))
            part.__dict__ |= self.__dict__ | {"_order": self._order[item]}
            return part
        return self.read(item)[0]

    def __repr__(self):
        return f"<DEMArchive {self.path.name}: {len(self)} cubes of {self.shape[1:]}, EM to {self.precision:.2g}>"

    def facts(self, index):
        """
        Return facts about a cube, without its arrays.

        Parameters
        ----------
        index : `int`
            Position in order of time.

        Returns
        -------
        `dict`
            ``header`` of the sky, ``inputs``, ``provenance``, ``meta``; ``mean``, the mean EM in cm^-5 of the bins and
            number of all unmasked pixels, before rounding; and others.
        """
        return self._facts(self._order[index])

    def read(self, index, region=None):
        """
        Read a cube, or the part that contains a region.

        Parameters
        ----------
        index : `int`
            Position in order of time.
        region : optional
            As for `DEMCube.curve`. Only the chunks that it touches are read.

        Returns
        -------
        cube : `DEMCube`
            The smallest rectangle around the region.
        inside : `~numpy.ndarray`
            `True` for its pixels that belong to the region.

        Raises
        ------
        IndexError
            If there is no such cube.
        ValueError
            If the arrays are damaged, or ``region`` holds no pixel.
        """
        slot = self._order[index]
        facts = self._facts(slot)
        rows, columns, inside = resolve_region(region, sky_wcs(facts["header"]), self._sky)
        planes = self._planes(slot, facts, rows, columns)
        header = dict(facts["header"])
        header["crpix1"], header["crpix2"] = header["crpix1"] - columns.start, header["crpix2"] - rows.start
        bound = {name: self._group.attrs["precision"][name] for name in ("em", "std", "intensity", "sigma", "chi2")}
        cube = DEMCube.from_planes(
            planes,
            _response(facts["response"], self.bins),
            cube_wcs(header, self.bins),
            inputs=facts["inputs"],
            provenance=facts["provenance"] | {"precision": bound},
            meta=facts["meta"],
        )
        return cube, np.ones(planes.em.shape[1:], dtype=bool) if inside is None else inside

    def read_em(self, index, bins, rows, columns):
        """
        Read the EM of some bins and pixels.

        Parameters
        ----------
        index : `int`
            Position in order of time.
        bins, rows, columns : `slice`

        Returns
        -------
        `~numpy.ndarray`
            EM in cm^-5, NaN where it is masked.
        """
        slot = self._order[index]
        em = self._decoded("ln_em", slot, bins, rows, columns)
        return np.where(self._array("mask", slot, bins, rows, columns), np.nan, em)

    # -- writing ------------------------------------------------------------------------------------------------------

    def append(self, cube, *, time=None):
        """
        Write a cube, in place of one of the same time if there is one.

        It counts as complete when all its arrays are written.

        Parameters
        ----------
        cube : `DEMCube`
            Of the bins and shape of the archive.
        time : `~astropy.time.Time`, optional
            By default ``cube.date``.

        Raises
        ------
        TypeError
            If ``cube`` is not a `DEMCube`.
        ValueError
            If it has other bins, another shape or unit, negative EM, or images that the archive does not hold.
        OSError
            If writing fails.
        """
        self._check(cube)
        cube = cube.compute()
        (slot,) = self.reserve([cube.date if time is None else time])
        if self._complete[slot]:
            self._mark(slot, False)
        planes = cube.planes
        for name, values in self._encoded(planes).items():
            self._group[name][slot] = values
        facts = {
            "header": cube.sky_header,
            "inputs": cube.inputs,
            "provenance": cube.meta["provenance"],
            "meta": cube.user_meta,
            "response": _response_text(cube.response),
            "has_std": planes.std is not None,
            "has_limit": planes.limit is not None,
            "has_mask": planes.mask is not None,
            "mean": _mean(planes),
        }
        self._group["facts"][slot] = json.dumps(json_facts(facts))
        self._mark(slot, True)

    def reserve(self, times):
        """
        Add times whose cubes are to be appended, so that the store has them in this order.

        Parameters
        ----------
        times : iterable of `~astropy.time.Time`

        Returns
        -------
        `list` of `int`
            Index of each along the time axis of the store.
        """
        milliseconds = [_milliseconds(time) for time in times]
        with self._lock():
            self._open(write=True)
            slots = {int(time): slot for slot, time in enumerate(self._milliseconds)}
            new = [time for time in dict.fromkeys(milliseconds) if time not in slots]
            if new:
                extend(self._group, np.array(new))
                slots |= {time: len(slots) + index for index, time in enumerate(new)}
                self._open(write=True)
        return [slots[time] for time in milliseconds]

    def find(self, time):
        """
        Return the position of the complete cube of a time, or `None`.

        Parameters
        ----------
        time : `~astropy.time.Time`
        """
        position = np.searchsorted(self._milliseconds[self._order], found := _milliseconds(time))
        there = position < len(self) and self._milliseconds[self._order[position]] == found
        return int(position) if there else None

    def clean(self):
        """Remove the temporary files of processes that were killed hours ago."""
        remove_partial(self.path)

    @staticmethod
    def check_installed():
        """Raise `ImportError` if the extra ``zarr`` is not installed."""
        import_zarr()

    # -- arrays -------------------------------------------------------------------------------------------------------

    def _open(self, *, write):
        self._group, self.bins, self.precision = open_group(self.path, write=write)
        self._milliseconds, self._complete = self._group["time"][:], self._group["complete"][:]
        self._sky = self._group["quality"].shape[1:]
        self._scales = scales(self.precision)
        self._sort()

    def _sort(self):
        complete = np.flatnonzero(self._complete)
        self._order = complete[np.argsort(self._milliseconds[complete], kind="stable")]

    def _lock(self):
        # In the folder of an array, which Zarr does not list.
        return file_lock(self.path / "complete" / ".lock")

    def _mark(self, slot, complete):
        with self._lock():
            # With a shape that others have since extended, Zarr would take this for a whole chunk and drop their flags.
            self._open(write=True)
            self._group["complete"][slot] = complete
        self._complete[slot] = complete
        self._sort()

    def _facts(self, slot):
        return json.loads(str(self._group["facts"][int(slot)]))

    def _array(self, name, slot, *part):
        try:
            return self._group[name][(int(slot), *part)]
        except Exception as error:  # of any type, for chunks that are truncated or damaged
            time = str(_isot(self._milliseconds[slot]))[:19]
            msg = (
                f"{self.path}: {name} of {time} cannot be read ({type(error).__name__}: {error}). It may be damaged. "
                "Invert this time again with overwrite=True."
            )
            raise ValueError(msg) from error

    def _decoded(self, name, slot, *part):
        return self._scales[name].decode(self._array(name, slot, *part))

    def _planes(self, slot, facts, rows, columns):
        bins = slice(None)
        codes = self._array("ln_em", slot, bins, rows, columns)
        em, std = self._scales["ln_em"].decode(codes), None
        if facts["has_std"]:
            std = self._decoded("ln_em_relative_std", slot, bins, rows, columns)
            std *= np.exp(self._scales["ln_em"].logarithm(codes), dtype=float)
        images = {
            "chi2": self._decoded("ln_chi2", slot, rows, columns).astype(np.float32),
            "quality": self._array("quality", slot, rows, columns),
            "saturation": self._array("saturation", slot, rows, columns),
        }
        kinds = {"intensity": "asinh_intensity", "sigma": "ln_sigma"}
        kinds |= {"limit": "asinh_limit"} if facts["has_limit"] else {}
        for kind, name in kinds.items():
            decoded = self._decoded(name, slot, bins, rows, columns).astype(np.float32)
            images |= {f"{kind}_{channel}": image for channel, image in zip(CHANNELS, decoded, strict=True)}
        mask = self._array("mask", slot, bins, rows, columns) if facts["has_mask"] else None
        return Planes.from_images(em, std, mask, images)

    def _encoded(self, planes):
        """Return the values of each array."""
        of_em, of_std = self._scales["ln_em"], self._scales["ln_em_relative_std"]
        floor = FLOOR * np.nansum(planes.em, axis=0, dtype=float)
        em = of_em.encode(planes.em, floor=floor)
        std = np.zeros_like(em)
        if planes.std is not None:
            std = of_std.encode(planes.std, floor=floor, log_unit=of_em.logarithm(em))
        limit = np.full((len(CHANNELS), *self._sky), np.nan) if planes.limit is None else np.stack(planes.limit)
        return {
            "ln_em": em,
            "ln_em_relative_std": std,
            "asinh_intensity": self._scales["asinh_intensity"].encode(np.stack(planes.intensity)),
            "ln_sigma": self._scales["ln_sigma"].encode(np.stack(planes.sigma)),
            "asinh_limit": self._scales["asinh_limit"].encode(limit),
            "ln_chi2": self._scales["ln_chi2"].encode(planes.chi2),
            "mask": np.broadcast_to(False if planes.mask is None else planes.mask, planes.em.shape),
            "quality": planes.quality,
            "saturation": planes.saturation,
        }

    def _check(self, cube):
        if not isinstance(cube, DEMCube):
            msg = f"cube must be a DEMCube, found {type(cube).__name__}."
            raise TypeError(msg)
        cube._require_3d("append")
        if cube.data.shape[1:] != self._sky:
            msg = (
                f"cube must have the sky of the archive, {self._sky} pixels, found {cube.data.shape[1:]}. Invert with "
                "shape= and region=, or use another archive."
            )
            raise ValueError(msg)
        if cube.bins != self.bins:
            msg = f"cube must have the bins of the archive, {self.bins}, found {cube.bins}. Use another archive."
            raise ValueError(msg)
        if cube.unit != EM_UNIT:
            msg = f"cube must be in {EM_UNIT}, found {cube.unit}. Convert it with DEMCube.to."
            raise ValueError(msg)
        if others := sorted(cube.planes.others):
            msg = f"cube has the images {others}, which an archive does not hold. Remove them from meta, or write FITS."
            raise ValueError(msg)
        if bad := np.count_nonzero((cube.data < 0) | (cube.data > _MAX_EM)):
            msg = f"cube must have an EM from 0 to {_MAX_EM:g} cm-5, found {bad} other values. Write FITS instead."
            raise ValueError(msg)


def _mean(planes):
    """Return the mean EM of each bin of all unmasked pixels, and their number."""
    used = np.isfinite(planes.em.sum(axis=0))
    if planes.mask is not None:
        used &= ~np.broadcast_to(planes.mask, planes.em.shape).any(axis=0)
    n = int(used.sum())
    with np.errstate(invalid="ignore"):
        return {"em": (planes.em.sum(axis=(1, 2), where=used) / np.float64(n)).tolist(), "pixels": n}


def _milliseconds(time):
    """Return a time in ms since 1970."""
    return round(one_time(time, "time").utc.unix * 1000)


def _isot(milliseconds):
    """Return times in ms since 1970 as texts."""
    return np.datetime_as_string(milliseconds.astype("datetime64[ms]"))


def _response_text(response):
    curves = {"temperature": response.temperature.to_value(u.K), "curves": response.curves.to_value(RESPONSE_UNIT)}
    return json.dumps(json_facts(curves | {"channels": response.channels, "meta": response.meta}))


@lru_cache(maxsize=4)
def _response(text, bins):
    facts = json.loads(text)
    return TemperatureResponse(
        np.array(facts["temperature"]) << u.K,
        np.array(facts["curves"]) << RESPONSE_UNIT,
        bins=bins,
        channels=facts["channels"],
        meta=facts["meta"],
    )
