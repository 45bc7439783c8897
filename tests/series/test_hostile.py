"""Bad sources and outputs of series."""

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


@cubes_table("DEMCubeSequence.read(folder)", ("``None``", TypeError("folder must be a str")))
def test_read(expected):
    with expected:
        DEMCubeSequence.read(None)


@cubes_table("DEMCubeSequence.light_curve(bands=)", ("a number", ValueError("bands must be one or more pairs")))
def test_light_curve(expected):
    with expected:
        DEMCubeSequence([cube()]).light_curve(bands=3)


@writing_table("invert_series(source, out)", ("a file, not a folder", ValueError("out must be a folder")))
def test_out_is_a_file(expected):
    path = junk(b"")
    with expected:
        invert_series(maps(), path)
