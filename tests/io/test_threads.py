"""Cubes that several threads and processes use at once."""

import multiprocessing
import warnings
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest
from astropy.utils.exceptions import AstropyUserWarning
from helpers import assert_same_cube, true_cube

from sunpy_deepem import DEMCube

N_THREADS = 8


@pytest.fixture(scope="module")
def shared():
    return true_cube(n=64)


def arrays_of(cube):
    return {"em": cube.data, "std": cube.uncertainty.array, "mask": cube.mask} | cube.planes.images


@pytest.mark.slow
@pytest.mark.parametrize("compress", [False, True])
def test_writing_leaves_arrays_alone(shared, tmp_path, compress):
    """astropy swaps bytes of arrays in place while it writes them."""
    before = {name: array.copy() for name, array in arrays_of(shared).items()}
    changed, stop = set(), Event()

    def watch():
        while not stop.is_set():
            changed.update(
                name
                for name, array in arrays_of(shared).items()
                if not np.array_equal(array, before[name], equal_nan=array.dtype.kind == "f")
            )

    with ThreadPoolExecutor(N_THREADS) as pool:
        watching = pool.submit(watch)
        paths = [tmp_path / f"{index}.fits" for index in range(4 * N_THREADS)]
        try:
            list(pool.map(lambda path: shared.write(path, compress=compress), paths))
        finally:
            stop.set()
        watching.result()
    assert not changed
    for path in paths[:: N_THREADS // 2]:
        assert_same_cube(DEMCube.read(path), shared)


def test_reading_leaves_warning_filters_alone(shared, tmp_path):
    shared.write(tmp_path / "dem.fits")
    with ThreadPoolExecutor(N_THREADS) as pool:
        list(pool.map(lambda _: DEMCube.read(tmp_path / "dem.fits"), range(4 * N_THREADS)))
    left = {(action, category) for action, _, category, *_ in warnings.filters}
    assert ("error", AstropyUserWarning) not in left


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="forks do not exist here")
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_lazy_cubes_in_forked_processes(shared, tmp_path):
    """A fork does not copy the threads of dask, for which it would wait forever."""
    pytest.importorskip("dask")
    shared.write(tmp_path / "dem.fits")
    lazy, context = DEMCube.read(tmp_path / "dem.fits", chunks=16), multiprocessing.get_context("fork")
    total, queue = lazy.compute().data.sum(), context.Queue()
    process = context.Process(target=lambda: queue.put(lazy.compute().data.sum()))
    process.start()
    try:
        assert queue.get(timeout=60) == total
    finally:
        process.kill()
        process.join()
