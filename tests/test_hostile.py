"""Bad options of ``invert`` and of the ``deepem`` command."""

from unittest import mock

import pytest
import torch
from click.testing import CliRunner
from hostile import ExitStatus, Table, cube_file, junk, maps, read_only, response, weights_file

from sunpy_deepem import invert
from sunpy_deepem.cli import main

options_table = Table("Options of an inversion")
device_table = Table("Without a network or a GPU")
command_table = Table("The ``deepem`` command")


@options_table("invert(maps, method=)", ("another word", ValueError("method must be one of")))
def test_method(expected):
    with expected:
        invert(maps(), method="x")


@options_table(
    "invert(maps, method=)",
    ("a function that returns 1", TypeError("must return the pair (em, status)")),
)
def test_method_returns_a_number(expected):
    with expected:
        invert(maps(), method=lambda *pixels: 1)


@options_table("invert(maps, response=)", ("a string", TypeError("response must be a Temp")))
def test_response(expected):
    with expected:
        invert(maps(), response="x")


@options_table(
    "invert(maps, response=)",
    ("one channel", ValueError("response must be that of all six channels")),
)
def test_response_of_one_channel(expected):
    with expected:
        invert(maps(), response=response().with_channels([171]))


@options_table(
    "invert(maps, chunks=)",
    ("0", 0, ValueError("chunks must be a positive")),
    ("three", (1, 2, 3), ValueError("chunks must be a positive")),
    ("a string", "a", ValueError("chunks must be a positive")),
)
def test_chunks(value, expected):
    with expected:
        invert(maps(), chunks=value)


@options_table("invert(maps, weights=)", ("``None``", TypeError("weights must be a str or")))
def test_weights(expected):
    with expected:
        invert(maps(), weights=None)


@options_table("invert(maps, nonsense=)", ("1", TypeError("keyword argument 'nonsense'")))
def test_unknown_option(expected):
    with expected:
        invert(maps(), nonsense=1)


DEVICE = "device must be 'auto', 'cpu', 'cuda' or another that torch has here, found"


@device_table(
    "invert(maps, device=)",
    ('``"cuda"`` without a GPU', "cuda", ValueError(f"{DEVICE} 'cuda'")),
    ('``"gpu"``', "gpu", ValueError(f"{DEVICE} 'gpu'")),
    ('``"meta"``', "meta", ValueError(f"{DEVICE} 'meta'")),
)
def test_device(value, expected):
    if value == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with expected:
        invert(maps(), device=value)


# ---------------------------------------------------------------------------------------------------------------------
# The command
# ---------------------------------------------------------------------------------------------------------------------


def deepem(*arguments):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exit_code:
        assert isinstance(result.exception, SystemExit)
        raise ExitStatus(result.exit_code, result.output)


@command_table(
    "deepem invert",
    ("nothing", ["invert"], ExitStatus(2, "Give six FITS files or a folder, or --date")),
    ("an empty folder", ["invert", "."], ExitStatus(1, "holds no FITS file")),
)
def test_invert(value, expected):
    with expected:
        deepem(*value)


@command_table("deepem invert no", ("no file", ExitStatus(1, "There is no file or folder no")))
def test_invert_no_file(expected):
    with expected:
        deepem("invert", "no")


@command_table("deepem invert", ("a file of another kind", ExitStatus(1, "which is not a folder")))
def test_invert_file_of_another_kind(expected):
    path = junk()
    with expected:
        deepem("invert", path)


@command_table("deepem invert --shape x", ("a string", ExitStatus(2, "--shape must be a whole number")))
def test_invert_shape_string(expected):
    with expected:
        deepem("invert", "--sample", "--shape", "x")


@command_table("deepem invert --shape 0", ("0", ExitStatus(1, "shape must")))
def test_invert_shape_zero(expected):
    with expected:
        deepem("invert", "--sample", "--shape", "0", "-o", "a.fits")


@command_table("deepem invert --weights no", ("no file", ExitStatus(1, "there is no file no")))
def test_invert_weights(expected):
    with expected:
        deepem("invert", "--sample", "--weights", "no", "-o", "a.fits")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@command_table(
    "deepem invert --device cuda",
    ("no GPU", ExitStatus(1, "device must be 'auto', 'cpu', 'cuda' or another")),
)
def test_invert_device(expected):
    with expected:
        deepem("invert", "--sample", "--shape", "8", "--device", "cuda", "-o", "a.fits")


@command_table("deepem invert -o", ("a folder that does not exist", ExitStatus(1, "Create no first")))
def test_invert_to_missing_folder(expected):
    with expected:
        deepem("invert", "--sample", "-o", "no/a.fits")


@command_table("deepem invert -o", ("an existing file", ExitStatus(1, "Pass --overwrite to replace")))
def test_invert_does_not_overwrite(expected):
    path = cube_file()
    with expected:
        deepem("invert", "--sample", "-o", path)


@command_table(
    "deepem invert -o",
    ("a folder without write permission", ExitStatus(1, "cannot be written to. Choose another")),
)
def test_invert_to_read_only_folder(expected):
    with expected, read_only():
        deepem("invert", "--sample", "-o", "a.fits")


@command_table("deepem invert", ("Ctrl-C", ExitStatus(1, "Aborted!")))
def test_invert_interrupted(expected):
    with expected, mock.patch("sunpy_deepem.invert", side_effect=KeyboardInterrupt):
        deepem("invert", "--sample", "-o", "a.fits")


@command_table("deepem synthesize", ("no file", ExitStatus(2, "Path 'no.fits' does not exist")))
def test_synthesize_no_file(expected):
    with expected:
        deepem("synthesize", "no.fits")


@command_table("deepem synthesize", ("a file of another kind", ExitStatus(1, "is neither FITS nor ASDF")))
def test_synthesize_file_of_another_kind(expected):
    path = junk()
    with expected:
        deepem("synthesize", path)


@command_table("deepem show", ("a file of another kind", ExitStatus(1, "is neither FITS nor ASDF")))
def test_show_file_of_another_kind(expected):
    path = junk()
    with expected:
        deepem("show", path)


@command_table("deepem show -o a.pdf", ("another suffix", ExitStatus(2, "--out must end in .html")))
def test_show_to_another_suffix(expected):
    path = cube_file()
    with expected:
        deepem("show", path, "-o", "a.pdf")


@command_table("deepem train", ("no --out", ExitStatus(2, "Missing option '-o' / '--out'")))
def test_train_without_out(expected):
    with expected:
        deepem("train", "--prior")


@command_table("deepem train", ("no training data", ExitStatus(2, "either --prior or --maps FOLDER")))
def test_train_without_data(expected):
    with expected:
        deepem("train", "-o", "a")


@command_table("deepem train --hidden x", ("a string", ExitStatus(2, "--hidden must be widths")))
def test_train_hidden(expected):
    with expected:
        deepem("train", "--prior", "-q", "--pixels", "10", "--hidden", "x", "-o", "a")


@command_table("deepem train --pixels 0", ("0", ExitStatus(1, "n must be a positive")))
def test_train_pixels(expected):
    with expected:
        deepem("train", "--prior", "-q", "--pixels", "0", "-o", "a")


@command_table("deepem train --epochs 0", ("0", ExitStatus(1, "epochs must")))
def test_train_epochs(expected):
    with expected:
        deepem("train", "--prior", "-q", "--pixels", "10", "--epochs", "0", "-o", "a")


@command_table("deepem info", ("no file", ExitStatus(1, "there is no file no")))
def test_info_no_file(expected):
    with expected:
        deepem("info", "no")


@command_table("deepem info", ("weights of an older version", ExitStatus(1, "format must be")))
def test_info_of_older_weights(expected):
    path = weights_file(format="sunpy_deepem weights 1")
    with expected:
        deepem("info", path)
