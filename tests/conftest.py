"""Options and fixtures for all tests."""

import hashlib
import os
import tempfile
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
from hypothesis import settings

NETWORK = Path(__file__).parents[1] / "sunpy_deepem" / "network"
# Numba compiles a function again when its own file changes, but not when that of a function which it calls does.
sources = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(NETWORK.glob("*.py")))).hexdigest()[:16]
os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(tempfile.gettempdir()) / f"sunpy_deepem_numba_{sources}"))

mpl.use("agg")
# No deadline: the duration of an example depends on the load of the machine
settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")

SHARED = Path(os.environ.get("SUNPY_DEEPEM_SHARED", Path(__file__).parents[2] / "shared"))


def pytest_addoption(parser):
    parser.addoption("--run-slow", action="store_true", help="run slow tests, too")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--run-slow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="slow: run with --run-slow"))


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="session")
def real_sun():
    """Folder with six real AIA maps; tests are skipped without it."""
    folder = SHARED / "data" / "aia_20140101"
    if not folder.is_dir():
        pytest.skip("needs real AIA maps: set SUNPY_DEEPEM_SHARED")
    return folder


@pytest.fixture(scope="session")
def flare_folder():
    """Folder with cutouts of an X2.2 flare at ten times; tests are skipped without it."""
    folder = SHARED / "data" / "aia_flare_20110215"
    if not folder.is_dir():
        pytest.skip("needs AIA cutouts of a flare: set SUNPY_DEEPEM_SHARED")
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Run in an empty folder, in which no partial file may remain."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not list(tmp_path.rglob("*.part"))


@pytest.fixture(scope="session")
def response():
    from sunpy_deepem import TemperatureResponse

    return TemperatureResponse.default()


@pytest.fixture(scope="session")
def maps():
    """The synthetic Sun with noise, 128 × 128."""
    from sunpy_deepem.sample import sample_maps

    return sample_maps((128, 128))


@pytest.fixture(scope="session")
def cube(maps):
    """The synthetic Sun inverted with the default weights."""
    from sunpy_deepem import invert

    return invert(maps)


@pytest.fixture(scope="session")
def saturated_cube():
    """Part of the synthetic Sun, 8 × 8, with one pixel saturated in 171 Å."""
    from helpers import replaced, spoiled

    from sunpy_deepem import invert
    from sunpy_deepem.sample import sample_maps

    maps = replaced(sample_maps((64, 64)), 171, lambda smap: spoiled(smap, {(30, 30): 16383}))
    return invert(maps)[:, 28:36, 28:36]
