"""Importing the package, help, completion and errors in arguments need no other large package."""

import os
import subprocess
import sys

import pytest

from sunpy_deepem.cli.inversion import METHODS as CLI_METHODS
from sunpy_deepem.methods import METHODS

# Each takes between a tenth of a second and seconds to import.
LARGE = ("astropy", "dask", "matplotlib", "numpy", "scipy", "sunpy", "torch")


def imported(code, cwd, **variables):
    """Return the large packages that another Python has imported after ``code``, and its output."""
    code = f"import sys\n{code}\nprint('imported:', *(name for name in {LARGE} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    output, names = done.stdout.rsplit("imported:", 1)
    return names.split(), output + done.stderr


def command(*arguments):
    return f"""
from sunpy_deepem.cli import main
try:
    main({list(arguments)}, prog_name="deepem")
except SystemExit:
    pass
"""


def test_import(tmp_path):
    assert imported("import sunpy_deepem; sunpy_deepem.__version__; dir(sunpy_deepem)", tmp_path) == ([], "")


def test_names_are_imported_when_used(tmp_path):
    names, _ = imported("from sunpy_deepem import LogTBins", tmp_path)
    assert "numpy" in names
    assert "torch" not in names


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--help"], "Usage: deepem"),
        (["invert", "--help"], "Usage: deepem invert"),
        (["train", "--help"], "Usage: deepem train"),
        (["--version"], "deepem, version"),
        (["abacus"], "No such command"),
        (["invert"], "Give six FITS files or a folder"),
        (["invert", "nowhere"], "There is no file or folder nowhere"),
        (["invert", ".", "--shape", "half"], "--shape must be a whole number"),
        (["invert", ".", "--method", "abacus"], "is not one of"),
        (["invert", ".", "--weights", "none.safetensors"], "There is no file none.safetensors"),
        (["invert", ".", "-o", "a.fits"], "a.fits exists"),
        (["invert", ".", "-o", ".", "--part", "0/2"], "must be K/N with 1 <= K <= N, such as 3/40, found '0/2'"),
        (["invert", ".", "-o", ".", "--part", "3"], "must be K/N with 1 <= K <= N, such as 3/40, found '3'"),
        (["invert", ".", "-o", ".", "--since", "now"], "must be a date such as 2014-01-01 or 2014-01-01T00:00"),
        (["invert", "--sample", "--part", "1/2"], "--part needs maps of many times"),
        (["show", "nowhere.fits"], "'nowhere.fits' does not exist"),
        (["show", "a.fits", "-o", "a.pdf"], "--out must end in .html"),
        (["synthesize", "nowhere.fits"], "'nowhere.fits' does not exist"),
        (["info", "none.safetensors"], "There is no file none.safetensors"),
        (["train", "--out", "w.safetensors"], "either --prior or --maps"),
        (["train", "--out", "w.safetensors", "--prior", "--hidden", "x"], "--hidden must be widths"),
        (["train", "--out", "w.safetensors", "--maps", "nowhere"], "There is no folder nowhere"),
    ],
)
def test_command(tmp_path, arguments, words):
    (tmp_path / "a.fits").write_text("a file")
    names, output = imported(command(*arguments), tmp_path)
    assert words in output
    assert names == []


def test_completion(tmp_path):
    variables = {"_DEEPEM_COMPLETE": "bash_complete", "COMP_WORDS": "deepem in", "COMP_CWORD": "1"}
    names, output = imported(command(), tmp_path, **variables)
    assert output.split() == ["plain,info", "plain,invert"]
    assert names == []


def test_choices_of_the_command():
    assert METHODS == CLI_METHODS
