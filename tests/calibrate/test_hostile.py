"""Bad maps and options for preparing maps, and no network."""

import pytest
from hostile import Table, maps, offline
from sunpy.util.exceptions import SunpyUserWarning

from sunpy_deepem import ChannelStack, prepare

maps_table = Table("Maps")
network_table = Table("Without a network or a GPU")


@maps_table(
    "prepare(maps)",
    ("``None``", None, TypeError("maps must be AIA maps, found NoneType")),
    ("numbers", [1], TypeError("maps must contain AIA maps, found int")),
)
def test_source(value, expected):
    with expected:
        prepare(value)


@maps_table("prepare(maps)", ("nothing", "Nothing."))
def test_nothing():
    assert prepare([]) == []


@maps_table(
    "prepare(maps, pointing=)",
    ("another word", ValueError("pointing must be True, False, 'lmsal', 'jsoc' or a table")),
)
def test_pointing(expected):
    with expected:
        prepare(maps(lvl_num=1), pointing="x")


@network_table(
    "prepare(maps, pointing=True)", ("no network", ConnectionError("Without a network pass a table as pointing="))
)
def test_pointing_without_a_network(expected):
    with expected, offline():
        prepare(maps(lvl_num=1)[:1], pointing=True)


@network_table("prepare(maps, spikes=True)", ("no network", ConnectionError("Without a network pass spikes=False")))
def test_spikes_without_a_network(expected):
    with expected, offline():
        prepare(maps(lvl_num=1)[:1], spikes=True)


@network_table(
    'invert(maps, correction_table="JSOC")',
    ("no network", "Corrected with the packaged table, with a warning and a note in the provenance."),
)
def test_packaged_correction_table_without_a_network():
    with offline(), pytest.warns(SunpyUserWarning, match="could not be downloaded"):
        stack = ChannelStack.from_maps(maps(), correction_table="JSOC")
    assert stack.meta["correction_table"].startswith("packaged")
