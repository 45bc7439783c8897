"""Tests of ``deepem invert --watch``."""

import json
import signal

import astropy.units as u
import pytest
from click.testing import CliRunner
from helpers import later

from sunpy_deepem.cli import main
from sunpy_deepem.sample import sample_maps
from sunpy_deepem.series import watching


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Folder with maps of two times."""
    folder = tmp_path_factory.mktemp("maps")
    for smap in sample_maps((32, 32)):
        for step in range(2):
            later(smap, 2 * step * u.min).save(folder / f"aia_{step}_{smap.wavelength.value:04.0f}.fits")
    return folder


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(autouse=True)
def _files_are_complete(monkeypatch):
    monkeypatch.setattr(watching, "_SETTLED", -1)


def test_until_idle(folder, many):
    result = run("invert", many, "-o", "dem", "--watch", "--until-idle", "0.001", "--plot")
    assert result.exit_code == 0
    names = [f"deepem_2014-01-01T000{minute}05" for minute in (0, 2)]
    written = sorted(path.name for path in (folder / "dem").iterdir())
    assert written == [f"{name}{suffix}" for name in names for suffix in (".fits", ".png")] + ["report.json"]


def test_failed_set(folder, many):
    run("invert", many, "-o", "dem", "-q", "--watch", "--until-idle", "0.001")
    (folder / "dem" / "deepem_2014-01-01T000005.fits").write_bytes(b"")
    result = run("invert", many, "-o", "dem", "-q", "--watch", "--until-idle", "0.001", "--shape", "16")
    assert result.exit_code == 1
    assert "2014-01-01T00:02:05: deepem_2014-01-01T000205.fits exists, made with other shape" in " ".join(
        result.stderr.split()
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_after_the_current_set(folder, many, monkeypatch, number):
    invert_set, before = watching.run_jobs, signal.getsignal(number)

    def run_jobs(*args):
        for outcome in invert_set(*args):
            signal.raise_signal(number)
            yield outcome

    monkeypatch.setattr(watching, "run_jobs", run_jobs)
    result = run("invert", many, "-o", "dem", "--watch")
    assert result.exit_code == 0
    assert json.loads((folder / "dem" / "report.json").read_text(encoding="utf-8"))["done"] == 1
    assert signal.getsignal(number) is before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere", "--watch", "-o", "dem"], "There is no file or folder nowhere"),
        ([".", "--watch"], "--watch needs one existing folder MAPS, and a folder for the cubes, --out FOLDER"),
        (["--sample", "--watch", "-o", "dem"], "--watch needs one existing folder MAPS"),
        ([".", "--until-idle", "5"], "--until-idle needs --watch"),
        ([".", "--watch", "-o", "dem", "--part", "1/2", "--overwrite"], "--watch excludes --part, --overwrite"),
        ([".", "--watch", "-o", "dem", "--until-idle", "-1"], "is not in the range x>=0"),
    ],
)
def test_errors_in_arguments(folder, arguments, words):
    result = run("invert", *arguments)
    assert result.exit_code != 0
    assert words in " ".join(result.stderr.split())
