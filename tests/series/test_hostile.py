"""Bad sources and outputs of series."""

from pathlib import Path

import numpy as np
import pytest
from hostile import Table, cube, junk, maps

from sunpy_deepem import DEMCubeSequence, invert_series
from sunpy_deepem.series import group_maps

maps_table = Table("Maps")
cubes_table = Table("Cubes")
writing_table = Table("Writing files")


@maps_table("group_maps(source)", ("nothing", "No sets."))
def test_nothing():
    assert group_maps([]).complete == ()


@maps_table("group_maps(source)", ("a number", TypeError("source must be a folder, a pattern")))
def test_source(expected):
    with expected:
        group_maps(3)


@maps_table("invert_series(source)", ("a file of another kind", ValueError("No set of source could be inverted")))
def test_file_of_another_kind(expected):
    path = junk()
    with expected:
        invert_series([path])


@cubes_table("DEMCubeSequence.read(path)", ("``None``", TypeError("path must be a str")))
def test_read(expected):
    with expected:
        DEMCubeSequence.read(None)


@cubes_table("DEMCubeSequence.read(path)", ("a Zarr store of another kind", ValueError("is not an archive of cubes")))
def test_read_another_store(expected):
    zarr = pytest.importorskip("zarr")
    zarr.open_group("other.zarr", mode="w", zarr_format=3)
    with expected:
        DEMCubeSequence.read("other.zarr")


@cubes_table(
    "DEMCubeSequence.light_curve(follow_rotation=True)",
    ("a region off the disk", ValueError("region must hold pixels on the solar disk")),
)
def test_rotation_off_the_disk(expected):
    region = np.zeros((8, 8), dtype=bool)
    region[0, 0] = True
    with expected:
        DEMCubeSequence([cube()]).light_curve(region, follow_rotation=True)


@cubes_table("DEMCubeSequence.light_curve(bands=)", ("a number", ValueError("bands must be one or more pairs")))
def test_light_curve(expected):
    with expected:
        DEMCubeSequence([cube()]).light_curve(bands=3)


@writing_table("invert_series(source, out)", ("a file, not a folder", ValueError("out must be a folder")))
def test_out_is_a_file(expected):
    path = junk(b"")
    with expected:
        invert_series(maps(), path)


@writing_table(
    "invert_series(source, out='series.zarr')",
    ("a file", lambda: junk(name="series.zarr"), ValueError("is not an archive of cubes")),
    ("an empty folder", lambda: Path("series.zarr").mkdir(), ValueError("is not an archive of cubes")),
)
def test_out_is_not_an_archive(value, expected):
    pytest.importorskip("zarr")
    value()
    with expected:
        invert_series(maps(), "series.zarr")
