"""Bad files and paths of cubes."""

import dataclasses
import gzip
import itertools
import os
import re
import struct
import sys
from pathlib import Path
from unittest import mock

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from hostile import QUICK, WRITE_FAILURES, Table, cube, cube_file, existing_file, junk, maps
from hypothesis import given
from hypothesis import strategies as st

from sunpy_deepem import DEMCube, LogTBins, invert
from sunpy_deepem.io import DEMArchive

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


# ---------------------------------------------------------------------------------------------------------------------
# Files of cubes that were changed by another program, with valid checksums
# ---------------------------------------------------------------------------------------------------------------------


def changed_file(change):
    """Write a cube and change its HDUs."""
    path = cube_file()
    with fits.open(path) as hdus:
        changed = fits.HDUList([hdu.copy() for hdu in hdus])
    changed = change(changed) or changed
    changed.writeto(path, overwrite=True, checksum=True)
    return path


def card(name, value, hdu="EM"):
    def change(hdus):
        if value is None:
            del hdus[hdu].header[name]
        else:
            hdus[hdu].header[name] = value

    return change


def without(name):
    return lambda hdus: fits.HDUList([hdu for hdu in hdus if hdu.name != name])


def image(name, array):
    def change(hdus):
        hdus[name].data = array

    return change


def rows_of_inputs(rows):
    def change(hdus):
        hdus["INPUTS"].data = hdus["INPUTS"].data[rows].copy()

    return change


@reading_table(
    "DEMCube.read(path)",
    *(
        (f"no HDU {name}", without(name), ValueError(f"it lacks the HDUs ['{name}']"))
        for name in ("MASK", "RESPONSE", "INPUTS", "PROVENANCE")
    ),
    *(
        (f"no HDU {name}", without(name), ValueError(f"it lacks the images ['{name.lower()}']"))
        for name in ("CHI2", "QUALITY", "SATURATION", "INTENSITY_171", "SIGMA_335")
    ),
    ("CTYPE3 of WAVE", card("CTYPE3", "WAVE"), ValueError("CTYPE3 of the HDU EM must be 'LOGT', found 'WAVE'")),
    ("no CTYPE3", card("CTYPE3", None), ValueError("CTYPE3 of the HDU EM must be 'LOGT', found ''")),
    ("CUNIT3 of K", card("CUNIT3", "K"), ValueError("CUNIT3 of the HDU EM must be '', found 'K'")),
    ("CDELT3 of 0", card("CDELT3", 0.0), ValueError("CDELT3 of the HDU EM must be a number, positive")),
    ("CDELT3 of -0.1", card("CDELT3", -0.1), ValueError("CDELT3 of the HDU EM must be a number, positive")),
    ("CRVAL3 of text", card("CRVAL3", "x"), ValueError("CRVAL3 of the HDU EM must be a number")),
    ("no CRPIX3", card("CRPIX3", None), ValueError("CRPIX3 of the HDU EM must be a number")),
    ("BUNIT of K", card("BUNIT", "K"), ValueError("BUNIT must be a unit of EM such as 'cm-5', found 'K'")),
    ("BUNIT of text", card("BUNIT", "foo"), ValueError("BUNIT must be a unit of EM such as 'cm-5', found 'foo'")),
    ("no BUNIT", card("BUNIT", None), ValueError("BUNIT must be a unit of EM")),
    ("DATE-OBS of text", card("DATE-OBS", "<script>"), ValueError("DATE-OBS of the HDU EM must be a time")),
    ("no DATE-OBS", card("DATE-OBS", None), ValueError("DATE-OBS of the HDU EM must be a time")),
    (
        "UNCERT of another shape",
        image("UNCERT", np.ones((18, 4, 8))),
        ValueError("UNCERT must have the shape (18, 8, 8)"),
    ),
    ("UNCERT of one image", image("UNCERT", np.ones((8, 8))), ValueError("UNCERT must have the shape (18, 8, 8)")),
    ("MASK of another shape", image("MASK", np.ones((18, 8, 4), np.uint8)), ValueError("MASK must have the shape")),
    ("CHI2 of another shape", image("CHI2", np.ones((4, 8))), ValueError("CHI2 must have the shape (8, 8)")),
    (
        "SIGMA_94 of another shape",
        image("SIGMA_94", np.ones((9, 9))),
        ValueError("SIGMA_94 must have the shape (8, 8)"),
    ),
    ("EM of two axes", image("EM", np.ones((8, 8))), ValueError("NAXIS of the HDU EM must be 3, found 2")),
    ("five rows of INPUTS", rows_of_inputs(slice(0, 5)), ValueError("INPUTS must have one row for each channel")),
    ("INPUTS in another order", rows_of_inputs([5, 4, 3, 2, 1, 0]), ValueError("INPUTS must have one row for each")),
    ("no rows of INPUTS", rows_of_inputs(slice(0, 0)), ValueError("INPUTS must have one row for each channel")),
)
def test_read_changed_file(value, expected):
    path = changed_file(value)
    with expected:
        DEMCube.read(path)


@reading_table(
    "DEMCube.read(path)",
    ("a map of AIA", ValueError("found None, from AIA_1: pass AIA's maps to invert")),
)
def test_read_map(expected):
    maps()[0].save("aia.fits")
    with expected:
        DEMCube.read("aia.fits")


@reading_table(
    "DEMCube.read(path, chunks=8)",
    ("without its last bytes", ValueError("so it was truncated")),
)
def test_read_truncated_file_by_chunks(expected):
    path = cube_file(lambda content: content[:-1000])
    with expected:
        DEMCube.read(path, chunks=8)


# ---------------------------------------------------------------------------------------------------------------------
# Small files that become large
# ---------------------------------------------------------------------------------------------------------------------


def zeros_header(n, **cards):
    header = fits.PrimaryHDU(np.zeros((1, 1), np.float32)).header
    header.update({"NAXIS1": n, "NAXIS2": n} | cards)
    return header.tostring().encode()


def fits_bomb(claimed):
    """Write a gzipped FITS file whose header claims, or does not claim, the pixels that follow it."""
    content = zeros_header(40000 if claimed else 4) + bytes(2 * limit())
    return junk(gzip.compress(content), "bomb.fits.gz")


def tile_bomb():
    """Write a FITS file with an image in compressed tiles that claims to be larger than the memory."""
    path = Path("bomb.fits").absolute()
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(np.zeros((64, 64), np.int16))]).writeto(path, overwrite=True)
    with fits.open(path, mode="update", disable_image_compression=True) as hdus:
        hdus[1].header["ZNAXIS1"] = hdus[1].header["ZNAXIS2"] = 1_000_000
    return path


def yaml_bomb():
    """Write an ASDF file of a few hundred bytes whose tree has ten million nodes."""
    lines = ["#ASDF 1.0.0", "#ASDF_STANDARD 1.5.0", "%YAML 1.1", "--- ", f"a: &a [{','.join('1' * 10)}]"]
    lines += [f"{name}: &{name} [{','.join([f'*{before}'] * 10)}]" for before, name in itertools.pairwise("abcdefg")]
    return junk("\n".join([*lines, "...", ""]).encode(), "bomb.asdf")


def block_bomb():
    """Write an ASDF file with a compressed block that claims to hold a terabyte."""
    tree = b"#ASDF 1.0.0\n#ASDF_STANDARD 1.5.0\n%YAML 1.1\n--- \na: 1\n...\n"
    header = struct.pack(">I4sQQQ16s", 0, b"zlib", 8, 8, 2**40, bytes(16))
    return junk(tree + b"\xd3BLK" + struct.pack(">H", len(header)) + header + bytes(8), "bomb.asdf")


def limit():
    return 2**16


@pytest.fixture
def _low_limit(monkeypatch):
    """Lower the limit of 4 GiB, so that the test does not need so much."""
    for module in ("utils.fits", "io.limits"):
        monkeypatch.setattr(f"sunpy_deepem.{module}.MAX_BYTES", limit())


@reading_table(
    "DEMCube.read(path)",
    ("a gzipped file that is far larger", lambda: fits_bomb(claimed=True), ValueError("of data after decompression")),
    ("the same with a header that lies", lambda: fits_bomb(claimed=False), ValueError("of data after decompression")),
    ("an image of a terapixel in tiles", tile_bomb, ValueError("of data after decompression, the limit is")),
    ("YAML aliases of aliases", yaml_bomb, ValueError("more than 1000000 nodes, as aliases repeat them")),
    ("a block of a terabyte", block_bomb, ValueError("have 1024.0 GiB after decompression, the limit is")),
)
@pytest.mark.usefixtures("_low_limit")
def test_read_bomb(value, expected):
    path = value()
    with expected:
        DEMCube.read(path)


@reading_table(
    "invert(paths)",
    ("a gzipped map that is far larger", lambda: fits_bomb(claimed=True), ValueError("of data after decompression")),
    ("a map of a terapixel in tiles", tile_bomb, ValueError("of data after decompression")),
)
@pytest.mark.usefixtures("_low_limit")
def test_map_bomb(value, expected):
    path = value()
    with expected:
        invert([path])


# ---------------------------------------------------------------------------------------------------------------------
# Archives
# ---------------------------------------------------------------------------------------------------------------------

archives_table = Table("Archives")


def archive(shape=(8, 8), bins=None, **options):
    pytest.importorskip("zarr")
    return DEMArchive.create("series.zarr", shape, LogTBins() if bins is None else bins, **options)


def with_em(change):
    """Copy a cube with another EM."""
    planes = cube().planes
    return cube().with_planes(dataclasses.replace(planes, em=change(planes.em)))


@archives_table(
    "DEMArchive(path)",
    ("nothing there", lambda: None, FileNotFoundError("There is no archive")),
    ("a file", lambda: junk(name="series.zarr"), ValueError("is not an archive of cubes")),
    ("an empty folder", lambda: Path("series.zarr").mkdir(), ValueError("is not an archive of cubes")),
)
def test_open_archive(value, expected):
    pytest.importorskip("zarr")
    value()
    with expected:
        DEMArchive("series.zarr")


@archives_table(
    "DEMArchive(path)",
    ("damaged metadata", "{", ValueError("is not an archive of cubes")),
    ("the metadata of another store", '{"zarr_format": 3, "node_type": "group"}', ValueError("is not an archive")),
)
def test_damaged_archive(value, expected):
    archive()
    Path("series.zarr/zarr.json").write_text(value, encoding="utf-8")
    with expected:
        DEMArchive("series.zarr")


@archives_table(
    "DEMArchive.create(path, ...)",
    ("an existing path", {}, FileExistsError("exists. Open it with DEMArchive")),
    ("``precision=0``", {"precision": 0}, ValueError("precision must be a relative error")),
    ("``precision=0.001``", {"precision": 0.001}, ValueError("precision of an archive must be at least 0.005")),
    ('``precision="1 %"``', {"precision": "1 %"}, TypeError("precision must be a relative error")),
)
def test_create_archive(value, expected):
    archive()
    with expected:
        archive(**value)
    assert [path.name for path in Path().iterdir()] == ["series.zarr"]


@archives_table("DEMArchive.create(path, ...)", ("a folder that does not exist", FileNotFoundError("Create")))
def test_create_archive_nowhere(expected):
    pytest.importorskip("zarr")
    with expected:
        DEMArchive.create("no/series.zarr", (8, 8), LogTBins())


@archives_table(
    "archive.append(cube)",
    ("``None``", lambda: None, TypeError("cube must be a DEMCube")),
    ("another shape", lambda: cube()[:, :4], ValueError("cube must have the sky of the archive, (8, 8) pixels")),
    ("other bins", lambda: cube()[3:9], ValueError("cube must have the bins of the archive")),
    ("an image", lambda: cube()[3], ValueError("append needs the axes log T, y, x")),
    ("another unit", lambda: cube().with_planes(cube().planes, unit=u.K), ValueError("cube must be in 1 / cm5")),
    ("negative EM", lambda: with_em(np.negative), ValueError("cube must have an EM from 0 to 1e+38 cm-5")),
    ("infinite EM", lambda: with_em(lambda em: em + np.inf), ValueError("cube must have an EM from 0 to 1e+38 cm-5")),
)
def test_append(value, expected):
    target = archive()
    with expected:
        target.append(value())
    assert len(DEMArchive("series.zarr")) == 0


@archives_table(
    "archive.append(cube, time=)", ("a word", ValueError("time must be a time such as '2014-01-01T00:00:00'"))
)
def test_append_at_a_word(expected):
    target = archive()
    with expected:
        target.append(cube(), time="noon")
