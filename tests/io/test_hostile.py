"""Bad files and paths of cubes."""

import re

import numpy as np
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
