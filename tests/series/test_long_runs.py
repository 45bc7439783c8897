"""Tests of the benchmarks of long series: many sets with workers that are killed, and the cost of months."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from astropy.time import Time

from sunpy_deepem.sample import sample_maps
from sunpy_deepem.series import group_maps

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
import many_sets  # noqa: E402 - it is in another folder
import series  # noqa: E402

pytest.importorskip("distributed", reason="distributed is not installed: pip install sunpy_deepem[dask]")


def test_cost_of_a_day():
    cost = series.long_run(1, cpu_seconds=5, megabytes=50, core_hour=0.5, gigabyte_month=0.1)
    assert cost["sets"] == 720
    assert cost["core_hours"] == pytest.approx(1)
    assert cost["compute"] == pytest.approx(0.5)
    assert cost["terabytes"] == pytest.approx(0.036)
    assert cost["storage"] == pytest.approx(3.6)


def test_copies_of_a_set_are_two_minutes_apart(tmp_path):
    """Also of compressed files, whose header is in the second HDU."""
    (tmp_path / "copies").mkdir()
    for smap in sample_maps((16, 16)):
        smap.save(tmp_path / f"{smap.wavelength.value:.0f}.fits")
    series.make_series(sorted(tmp_path.glob("*.fits")), tmp_path / "copies", 3)
    sets = group_maps(tmp_path / "copies")
    assert (len(sets.complete), len(sets.failed)) == (3, 0)
    assert [each.time.isot[:16] for each in sets.complete] == [f"2014-01-01T00:0{minute}" for minute in (0, 2, 4)]


def test_many_sets_have_different_times(tmp_path):
    many_sets.make_sets(tmp_path, 4, 16)
    sets = group_maps(tmp_path).complete
    assert len({str(Time(each.time).isot) for each in sets}) == 4


@pytest.mark.slow
def test_nothing_is_lost_when_workers_are_killed(tmp_path):
    command = [sys.executable, BENCHMARKS / "many_sets.py", "--quick", "--output", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "many_sets.json").read_text(encoding="utf-8"))
    assert found["wrong"] == []
    assert found["run"]["killed"] > 0
    # Two workers with one set each; the third may be one that has just ended.
    assert found["run"]["most_tasks"] <= 4
