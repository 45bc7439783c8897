"""The logger has the habits of sunpy's: astropy's class, level INFO, records on the console."""

import logging
import os
import subprocess
import sys
import time

import pytest
from astropy.logger import AstropyLogger
from tqdm import tqdm

import sunpy_deepem
from sunpy_deepem import invert, invert_series
from sunpy_deepem.sample import sample_maps
from sunpy_deepem.utils.logger import explained_wait


@pytest.fixture(autouse=True)
def _restored():
    level = sunpy_deepem.log.level
    sunpy_deepem.log.setLevel("INFO")
    yield
    sunpy_deepem.log.setLevel(level)


def run(code, cwd):
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=os.environ, capture_output=True, text=True, check=True
    )
    return done.stdout, done.stderr


def test_it_is_the_logger_of_the_standard_library():
    assert sunpy_deepem.log is logging.getLogger("sunpy_deepem")
    assert isinstance(sunpy_deepem.log, AstropyLogger)


def test_default_level(tmp_path):
    assert run("import sunpy_deepem; print(sunpy_deepem.log.level)", tmp_path) == (f"{logging.INFO}\n", "")


def test_level_that_was_set_before_the_import(tmp_path):
    code = """
import logging
logging.getLogger("sunpy_deepem").setLevel("DEBUG")
from sunpy_deepem import log
log.debug("hello")
"""
    assert run(code, tmp_path) == ("", "DEBUG: hello [sunpy_deepem]\n")


def test_inversion(capsys, tmp_path):
    invert(sample_maps((16, 16)))
    out, err = capsys.readouterr()
    assert out == ""
    line = err.splitlines()[-1]
    assert line.startswith("INFO: Inverted maps of 2014-01-01T00:00:05: 16 × 16 pixels by network in ")
    assert line.endswith(" s. [sunpy_deepem.inversion]")


def test_levels(capsys):
    sunpy_deepem.log.setLevel("WARNING")
    invert(sample_maps((16, 16)))
    assert capsys.readouterr().err == ""
    sunpy_deepem.log.setLevel("DEBUG")
    invert(sample_maps((16, 16)))
    assert "DEBUG: Calibrated, aligned and binned the maps in " in capsys.readouterr().err


def test_streaming(tmp_path, capsys):
    invert(sample_maps((16, 16)), out=tmp_path / "dem.fits")
    assert "16 × 16 pixels" in capsys.readouterr().err


def test_records_are_printed_once(tmp_path):
    code = """
import logging
logging.basicConfig()
from sunpy_deepem import log
log.info("hello")
"""
    assert run(code, tmp_path) == ("", "INFO: hello [unknown]\n")


def test_log_to_list():
    with sunpy_deepem.log.log_to_list() as records:
        invert_series(sample_maps((16, 16)))
    assert [record.levelname for record in records] == ["INFO"] * 3
    assert records[0].message == "Found 1 set of channels, 0 incomplete or ambiguous; ignored maps: 0."
    assert records[2].message == "1 inverted, 0 skipped as done before, 0 failed"


def test_failed_sets_are_warnings(tmp_path):
    with sunpy_deepem.log.log_to_list(filter_level="WARNING") as records:
        invert_series(list(sample_maps((16, 16)))[1:], tmp_path / "out")
    assert [record.message.splitlines() for record in records] == [
        [
            "0 inverted, 0 skipped as done before, 1 failed",
            "  2014-01-01T00:00:05: missing: 94 Å",
            f"Report: {tmp_path / 'out' / 'report.json'}",
        ]
    ]


@pytest.mark.slow
def test_workers_have_the_level_of_the_process_that_started_them(tmp_path, capfd):
    sunpy_deepem.log.setLevel("WARNING")
    invert_series(sample_maps((16, 16)), tmp_path / "out", scheduler="processes")
    assert "INFO" not in capfd.readouterr().err


def test_records_are_written_above_progress_bars(capsys):
    with tqdm(total=2) as bar:
        bar.update()
        sunpy_deepem.log.info("hello")
    lines = capsys.readouterr().err.replace("\r", "\n").splitlines()
    assert "INFO: hello [test_logger]" in [line.replace("tests.utils.", "").strip() for line in lines]


def test_long_waits_are_explained(capsys):
    with explained_wait("quick", seconds=60):
        pass
    for _ in range(2):
        with explained_wait("slow", seconds=0.01):
            time.sleep(0.2)
    err = capsys.readouterr().err
    assert err.count("INFO: slow") == 1
    assert "quick" not in err
