"""Maps of several times."""

import functools

import astropy.units as u
import pytest
from helpers import later

from sunpy_deepem import invert, invert_series
from sunpy_deepem.sample import sample_maps
from sunpy_deepem.series import jobs


@pytest.fixture(scope="session")
def sun():
    return list(sample_maps((32, 32)))


@pytest.fixture(scope="session")
def dim_to_bright(sun):
    """Maps of three times, two minutes apart, each 1.5 times brighter than the one before."""
    return [later(smap, 2 * step * u.min, data=smap.data * 1.5**step) for step in range(3) for smap in sun]


@pytest.fixture(scope="session")
def sequence(dim_to_bright):
    return invert_series(dim_to_bright)


@pytest.fixture
def maps_folder(tmp_path, dim_to_bright):
    """Folder with the FITS files of ``dim_to_bright``."""
    folder = tmp_path / "maps"
    folder.mkdir()
    for index, smap in enumerate(dim_to_bright):
        smap.save(folder / f"aia_{index // 6}_{smap.wavelength.value:04.0f}.fits")
    return folder


@pytest.fixture
def interrupted_once(monkeypatch):
    """The calls of `invert`, of which the second is interrupted as by Ctrl-C."""
    calls = []

    @functools.wraps(invert)
    def interrupted(*args, **options):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return invert(*args, **options)

    monkeypatch.setattr(jobs, "invert", interrupted)
    return calls
