"""Bad files and paths of cubes."""

import os
import re
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hostile import QUICK, WRITE_FAILURES, Table, cube, cube_file, existing_file, junk, maps
from hypothesis import given
from hypothesis import strategies as st

from sunpy_deepem import DEMCube, invert

reading_table = Table("Reading files")
writing_table = Table("Writing files")


@reading_table(
    "DEMCube.read(path)",
    ("``None``", None, TypeError("path must be a str or pathlib.Path")),
    ("no file", "no.fits", FileNotFoundError("There is no file no.fits")),
    ("a folder", ".", ValueError("is a folder")),
)
def test_read_path(value, expected):
    with expected:
        DEMCube.read(value)


@reading_table("DEMCube.read(path)", ("an empty file", ValueError("is neither FITS nor ASDF")))
def test_read_empty_file(expected):
    path = junk(b"")
    with expected:
        DEMCube.read(path)


@reading_table(
    "DEMCube.read(path)",
    ("half of a file", lambda content: content[: len(content) // 2], ValueError("cannot be read as a DEM cube")),
    (
        "a damaged byte",
        lambda content: content[:20000] + bytes([content[20000] ^ 1]) + content[20001:],
        ValueError("cannot be read as a DEM cube"),
    ),
    (
        "a cube of an older format",
        lambda content: content.replace(b"sunpy_deepem 2", b"sunpy_deepem 1"),
        ValueError("cannot be read as a DEM cube"),
    ),
)
def test_read_damaged_file(value, expected):
    path = cube_file(value)
    with expected:
        DEMCube.read(path)


@reading_table(
    "DEMCube.read(path, chunks=)",
    ("0", 0, ValueError("chunks must be a positive whole number")),
    ("-5", -5, ValueError("chunks must be a positive whole number")),
    ("a string", "x", ValueError("chunks must be a positive whole number")),
)
def test_read_chunks(value, expected):
    path = cube_file()
    with expected:
        DEMCube.read(path, chunks=value)


@QUICK
@given(data=st.data())
def test_damaged_file_is_rejected_or_complete(folder, data):
    content = cube_file().read_bytes()
    at = data.draw(st.integers(0, len(content) - 1))
    cut = data.draw(st.booleans())
    damaged = content[:at] if cut else content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
    try:
        read = DEMCube.read(junk(damaged))
    except ValueError as error:
        assert re.search(r"cannot be read as a DEM cube|is neither FITS nor ASDF", str(error))  # noqa: PT017
        return
    # Padding of headers is not part of a checksum
    assert not cut
    np.testing.assert_array_equal(read.data, cube().data)
    np.testing.assert_array_equal(read.intensity, cube().intensity)


@writing_table(
    "DEMCube.write(path)",
    ("``None``", None, TypeError("path must be a str or pathlib.Path")),
    ("another suffix", "dem.png", ValueError("path must end in .fits")),
    (
        "a folder that does not exist",
        "no/dem.fits",
        FileNotFoundError("lies in a folder that does not exist. Create"),
    ),
)
def test_write_path(value, expected):
    with expected:
        cube().write(value)


@writing_table("DEMCube.write(path)", ("an existing file", FileExistsError("Pass overwrite=True to replace it")))
def test_write_does_not_overwrite(expected):
    with expected, existing_file() as path:
        cube().write(path)


@writing_table("DEMCube.write(path)", *WRITE_FAILURES)
def test_write_fails(value, expected):
    with expected, existing_file() as path, value():
        cube().write(path, overwrite=True)


@writing_table("invert(maps, out=)", *WRITE_FAILURES)
def test_streaming_fails(value, expected):
    with expected, existing_file() as path, value():
        invert(maps(), out=path, overwrite=True)


@writing_table(
    "invert(maps, out=)",
    ("one of the maps", "aia_171.fits", ValueError("out is one of the files to read")),
    ("a link to one of the maps", "link.fits", ValueError("out is one of the files to read")),
)
def test_output_is_an_input(value, expected, folder):
    for smap in maps():
        smap.save(f"aia_{smap.wavelength.value:.0f}.fits")
    Path("link.fits").symlink_to("aia_171.fits")
    with expected:
        invert(sorted(folder.glob("aia*")), out=value, overwrite=True)


@writing_table(
    "DEMCube.write(path, overwrite=False)",
    ("a file that another process writes meanwhile", FileExistsError("another process wrote it meanwhile")),
)
def test_written_meanwhile(expected):
    written = Path("dem.fits")
    with expected, mock.patch("os.link", side_effect=FileExistsError(17, "", "", None, str(written.absolute()))):
        cube().write(written)


@writing_table(
    "DEMCube.write(path, overwrite=True)",
    ("a link to a file", "The file is replaced, and the link stays."),
    ("a link to no file", "The file is written."),
)
def test_link(folder):
    for name in ("target.fits", "none.fits"):
        Path(f"link_to_{name}").symlink_to(name)
    cube().write("target.fits")
    for name in ("target.fits", "none.fits"):
        cube().write(f"link_to_{name}", overwrite=True)
        assert Path(f"link_to_{name}").is_symlink()
        np.testing.assert_array_equal(DEMCube.read(name).data, cube().data)


@writing_table("DEMCube.write(path)", ("a name that is not UTF-8", "Written."))
def test_name_that_is_not_utf8(folder):
    if sys.platform != "linux":
        pytest.skip("names of files are bytes on Linux")
    path = Path(os.fsdecode(b"\xff.fits"))
    cube().write(path)
    np.testing.assert_array_equal(DEMCube.read(path).data, cube().data)
