"""Figures of cubes that are read from a file when they are needed."""

import os
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from sunpy_deepem import invert
from sunpy_deepem.sample import real_maps
from sunpy_deepem.visualization import panels

pytest.importorskip("dask")
FIGURES = ["plot_summary", "plot_roundtrip", "plot_temperature", "plot_bins", "plot_contraction"]


def pictures(cubes, name):
    """Return the figures of cubes as arrays."""
    for cube in cubes:
        getattr(cube, name)()
    found = []
    for number in plt.get_fignums():
        figure = plt.figure(number)
        figure.canvas.draw()
        found.append(np.asarray(figure.canvas.buffer_rgba()))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_same_figure_as_in_memory(tmp_path, name):
    lazy = invert(real_maps(), shape=32, out=tmp_path / "dem.fits")
    assert hasattr(lazy.data, "dask")
    np.testing.assert_array_equal(*pictures([lazy, lazy.compute()], name))


@pytest.mark.parametrize("name", FIGURES)
def test_large_cubes_are_drawn_by_every_kth_pixel(monkeypatch, name):
    monkeypatch.setattr(panels, "_PANEL", 16)
    dem = invert(real_maps(), shape=32)
    getattr(dem, name)()
    image = plt.gcf().axes[0].images[0].get_array()
    assert image.shape == (16, 16)
    # The field stays, to within a pixel.
    shown, whole = plt.gcf().axes[0].wcs.celestial, dem.wcs.celestial
    corners = [wcs.pixel_to_world(*place) for wcs, place in ((shown, (7.5, 7.5)), (whole, (15.5, 15.5)))]
    assert corners[0].separation(corners[1]).arcsec < 1.5 * 2400 / 32


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of memory")
def test_memory_at_native_resolution(tmp_path):
    """Figures need as much memory at any resolution; plot_roundtrip of a whole cube takes 17 GB at 4096²."""
    code = """
import threading, time
from sunpy_deepem import invert
from sunpy_deepem.sample import sample_maps

def memory():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) / 1e6

def watch():
    while True:
        seen.append(memory())
        time.sleep(0.01)

dem = invert(sample_maps((2048, 2048)), shape=None, out="native.fits")
seen = [memory()]
threading.Thread(target=watch, daemon=True).start()
dem.plot_summary().savefig("summary.png", dpi=50)
dem.plot_roundtrip().savefig("roundtrip.png", dpi=50)
print(max(seen) - seen[0])
"""
    environment = os.environ | {"MPLBACKEND": "agg"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 2.5
    assert {"summary.png", "roundtrip.png"} <= {path.name for path in tmp_path.iterdir()}
