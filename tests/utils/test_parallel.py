"""Linear algebra keeps to one thread while several threads work side by side, and gets its threads back."""

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from sunpy_deepem.methods.base import get_engine


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


@pytest.mark.parametrize("method", ["network", "basis-pursuit"])
def test_while_bands_are_worked_on(method, two_threads):
    with get_engine(method).workers():
        assert set(blas_threads().values()) == {1}
    assert blas_threads() == two_threads


def test_after_an_error(two_threads):
    with pytest.raises(ZeroDivisionError), get_engine("network").workers():
        1 / 0  # noqa: B018
    assert blas_threads() == two_threads
