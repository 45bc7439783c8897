"""What several test files share."""

import os
from pathlib import Path

import matplotlib as mpl
import pytest
from hypothesis import settings

mpl.use("agg")
# How long an example takes depends on what else the machine does.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

SHARED = Path(os.environ.get("SUNPY_DEEPEM_SHARED", Path(__file__).parents[2] / "shared"))


def pytest_addoption(parser):
    parser.addoption("--run-remote", action="store_true", help="run the tests that need a network")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--run-remote"):
        return
    for item in items:
        if "remote_data" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs a network: run with --run-remote"))


@pytest.fixture(scope="session")
def real_sun():
    """Folder with six real AIA maps, for those who have them."""
    folder = SHARED / "data" / "aia_20140101"
    if not folder.is_dir():
        pytest.skip("the real Sun is not here; set SUNPY_DEEPEM_SHARED")
    return folder


@pytest.fixture(scope="session")
def response():
    from sunpy_deepem import TemperatureResponse

    return TemperatureResponse.default()


@pytest.fixture(scope="session")
def maps():
    """A small synthetic Sun with noise, 128 × 128."""
    from sunpy_deepem.sample.synthetic import sample_maps

    return sample_maps((128, 128))


@pytest.fixture(scope="session")
def cube(maps):
    """The small synthetic Sun inverted with the default weights."""
    from sunpy_deepem import invert

    return invert(maps)
