"""Thread limits hold while several threads work side by side, and are restored afterwards."""

import operator
import threading

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from sunpy_deepem.methods import get_method
from sunpy_deepem.utils.parallel import background, n_cores, part_map, process_map, thread_map, tile_map

CPU = torch.device("cpu")
PARTS = {
    "part_map": lambda: part_map(CPU),
    "thread_map": lambda: thread_map(limit_blas=True),
    "network": lambda: get_method().workers(),
}


def blas_threads():
    libraries = [library for library in threadpool_info() if library["user_api"] == "blas"]
    return {library["filepath"]: library["num_threads"] for library in libraries}


@pytest.fixture
def two_blas_threads():
    with threadpool_limits(limits=2, user_api="blas"):
        before = blas_threads()
        if set(before.values()) != {2}:
            pytest.skip("the number of threads of this BLAS library cannot be set")
        yield before


@pytest.fixture
def two_torch_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", PARTS)
def test_blas_is_limited(name, two_blas_threads):
    with PARTS[name]():
        assert set(blas_threads().values()) == {1}
    assert blas_threads() == two_blas_threads


@pytest.mark.parametrize("name", PARTS)
def test_limit_is_removed_after_an_error(name, two_blas_threads):
    with pytest.raises(ZeroDivisionError), PARTS[name]():
        1 / 0  # noqa: B018
    assert blas_threads() == two_blas_threads


def test_blas_is_not_limited_by_default(two_blas_threads):
    with thread_map():
        assert blas_threads() == two_blas_threads


@pytest.mark.parametrize("make", [lambda: tile_map(CPU), lambda: part_map(CPU)])
def test_torch_uses_one_thread_per_tile(make, two_torch_threads):
    with make() as map_tiles:
        assert set(map_tiles(lambda _: torch.get_num_threads(), range(4))) == {1}
    assert torch.get_num_threads() == 2


def test_tiles_with_one_torch_thread_stay_on_this_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tile_map(CPU) as map_tiles:
            assert set(map_tiles(lambda _: threading.get_ident(), range(3))) == {threading.get_ident()}
    finally:
        torch.set_num_threads(before)


def test_threads_work_at_once():
    barrier = threading.Barrier(3, timeout=30)
    with thread_map(3) as map_parts:
        assert sorted(map_parts(lambda _: barrier.wait(), range(3))) == [0, 1, 2]
    assert n_cores() >= 1


def test_background():
    with background() as executor:
        assert executor.submit(threading.get_ident).result() != threading.get_ident()


@pytest.mark.parametrize("processes", [1, 2])
def test_process_map(processes):
    found = process_map(operator.mul, np.arange(3), [2, 3, 4], processes=processes)
    assert list(found) == [0, 3, 8]
