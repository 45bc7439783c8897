"""Linear algebra keeps to one thread while several threads work side by side, and gets its threads back."""

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from sunpy_deepem.methods import get_method
from sunpy_deepem.utils.parallel import thread_map


def blas_threads():
    libraries = [library for library in threadpool_info() if library["user_api"] == "blas"]
    return {library["filepath"]: library["num_threads"] for library in libraries}


@pytest.fixture(autouse=True)
def two_threads():
    with threadpool_limits(limits=2, user_api="blas"):
        before = blas_threads()
        if set(before.values()) != {2}:
            pytest.skip("this linear algebra cannot be told how many threads to use")
        yield before


@pytest.mark.parametrize("workers", [get_method().workers, lambda: thread_map(limit_blas=True)])
def test_while_bands_are_worked_on(workers, two_threads):
    with workers():
        assert set(blas_threads().values()) == {1}
    assert blas_threads() == two_threads


def test_after_an_error(two_threads):
    with pytest.raises(ZeroDivisionError), get_method("network").workers():
        1 / 0  # noqa: B018
    assert blas_threads() == two_threads
