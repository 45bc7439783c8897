"""Bad options for figures and pages."""

from hostile import WRITE_FAILURES, Table, cube, existing_file

from sunpy_deepem.visualization.viewer import write_page

cubes_table = Table("Cubes")
writing_table = Table("Writing files")


@cubes_table("DEMCube.plot_bins(fig=)", ("a number", TypeError("fig must be a matplotlib")))
def test_figure(expected):
    with expected:
        cube().plot_bins(fig=3)


@cubes_table("DEMCube.animate(interval=)", ("a string", ValueError("interval must be")))
def test_interval(expected):
    with expected:
        cube().animate(interval="a")


@cubes_table("DEMCube.view(max_pixels=)", ("0", ValueError("max_pixels must be")))
def test_max_pixels(expected):
    with expected:
        cube().view(max_pixels=0)


@writing_table("write_page(cube, path)", *WRITE_FAILURES)
def test_write_page_fails(value, expected):
    with expected, existing_file() as path, value():
        write_page(cube(), path, overwrite=True)
