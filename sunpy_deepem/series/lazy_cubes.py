"""Cubes of many times on disk, which are read when they are used."""

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
from astropy.time import Time

from sunpy_deepem.cube.dem_cube import DEMCube
from sunpy_deepem.utils.regions import resolve_region
from sunpy_deepem.utils.wcs import sky_wcs

__all__ = ["CubesInArchive", "CubesInFiles", "CubesInMemory", "LazyCubes", "as_cubes"]


class _Cubes(Sequence):
    """Cubes in order of time, of which parts can be read."""

    def header(self, index):
        """Return the FITS header of the sky of a cube."""
        return self[index].sky_header

    def sky_shape(self, index):
        """Return the shape of the sky of a cube."""
        return self[index].data.shape[1:]

    def bins(self, index):
        """Return the bins of a cube."""
        return self[index].bins

    def read(self, index, region):
        """Return a cube or a part of it, and the region in it."""
        return self[index], region

    def mean_em(self, index, bins, region):
        """Return the mean EM in cm^-5 of some bins in the unmasked pixels of a region, and their number."""
        em = self._em(index, bins, region)
        found = np.isfinite(em).all(axis=0)
        with np.errstate(invalid="ignore"):
            return em[:, found].sum(axis=1, dtype=float) / found.sum(), int(found.sum())

    def _em(self, index, bins, region):
        """Return the EM of some bins in the pixels of a region, NaN where masked, shape ``(bins, pixels)``."""
        cube = self[index]
        rows, columns, inside = resolve_region(region, sky_wcs(cube.sky_header), cube.data.shape[1:])
        part = cube[bins, rows, columns].compute()
        em = part.data if part.mask is None else np.where(part.mask, np.nan, part.data)
        return _pixels(em, inside)


class CubesInMemory(_Cubes):
    """
    Cubes of a list.

    Parameters
    ----------
    cubes : sequence of `DEMCube`
    """

    def __init__(self, cubes):
        self._cubes = cubes

    def __len__(self):
        return len(self._cubes)

    def __getitem__(self, item):
        return self._cubes[item]


class LazyCubes(_Cubes):
    """Cubes on disk. They are large, so only the last one is kept."""

    _last = (None, None)

    @property
    @abstractmethod
    def times(self):
        """Times of the cubes, `~astropy.time.Time`."""

    @abstractmethod
    def part(self, item):
        """Return the cubes of a slice."""

    @abstractmethod
    def load(self, index):
        """Read a cube."""

    def __getitem__(self, item):
        if isinstance(item, slice):
            return self.part(item)
        index = range(len(self))[item]
        if self._last[0] != index:
            self._last = (index, self.load(index))
        return self._last[1]


class CubesInFiles(LazyCubes):
    """
    Cubes in files.

    Parameters
    ----------
    paths : `list` of `pathlib.Path`
        In order of time.
    times : `dict` of `~astropy.time.Time`
        By path.
    """

    def __init__(self, paths, times):
        self._paths, self._times = paths, times

    def __len__(self):
        return len(self._paths)

    @property
    def times(self):
        """Times of the cubes."""
        return Time([self._times[path] for path in self._paths])

    def part(self, item):
        """Return the cubes of a slice."""
        return type(self)(self._paths[item], self._times)

    def load(self, index):
        """Read a cube."""
        return DEMCube.read(self._paths[index])


class CubesInArchive(LazyCubes):
    """
    Cubes in an archive.

    Parameters
    ----------
    archive : `~sunpy_deepem.io.DEMArchive`
    """

    def __init__(self, archive):
        self._archive = archive

    def __len__(self):
        return len(self._archive)

    @property
    def times(self):
        """Times of the cubes."""
        return self._archive.times

    def part(self, item):
        """Return the cubes of a slice."""
        return type(self)(self._archive[item])

    def load(self, index):
        """Read a cube."""
        return self._archive[index]

    def header(self, index):
        """Return the FITS header of the sky of a cube."""
        return self._archive.facts(index)["header"]

    def sky_shape(self, index):
        """Return the shape of the sky of all cubes."""
        return self._archive.shape[-2:]

    def bins(self, index):
        """Return the bins of all cubes."""
        return self._archive.bins

    def read(self, index, region):
        """Return the part of a cube around a region, and the region as a mask."""
        return self._archive.read(index, region)

    def mean_em(self, index, bins, region):
        """Return the mean EM of some bins in the pixels of a region; that of all pixels is stored with the facts."""
        if region is not None:
            return super().mean_em(index, bins, region)
        mean = self._archive.facts(index)["mean"]
        return np.array(mean["em"])[bins], mean["pixels"]

    def _em(self, index, bins, region):
        shape = self.sky_shape(index)
        is_mask = isinstance(region, np.ndarray) and region.dtype == bool
        wcs = None if is_mask else sky_wcs(self.header(index))
        rows, columns, inside = resolve_region(region, wcs, shape)
        return _pixels(self._archive.read_em(index, bins, rows, columns), inside)


def as_cubes(data):
    """Return cubes of which parts can be read."""
    return data if isinstance(data, _Cubes) else CubesInMemory(data)


def _pixels(em, inside):
    return em.reshape(len(em), -1) if inside is None else em[:, inside]
