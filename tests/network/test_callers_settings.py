"""Answers do not depend on what the caller sets in torch, nor on the process in which they are computed."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
import torch
from spawned import inverted_sample
from threadpoolctl import threadpool_info

from sunpy_deepem import DeepEM, invert
from sunpy_deepem.sample import sample_maps
from sunpy_deepem.utils.parallel import single_blas_thread

N = 48
PIXELS = np.array([0.8, 4.5, 140.0, 170.0, 50.0, 2.7])[:, np.newaxis] * np.linspace(0.5, 2, 40)


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def default_device(device):
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


def answers(net=None):
    """Return everything that a network answers; by default, one that is read now."""
    net = DeepEM.load() if net is None else net
    em, std = net.predict(PIXELS, 0.1 * PIXELS)
    sharp, _ = net.predict(PIXELS, 0.02 * PIXELS)
    cube = invert(sample_maps((N, N)), weights=net)
    arrays = em, std, sharp, net.deviation(PIXELS, 0.1 * PIXELS), net.sample(PIXELS, 0.1 * PIXELS, n=8)
    return {"fingerprint": net.fingerprint, "arrays": arrays, "cube": (cube.data, cube.uncertainty.array, cube.quality)}


def assert_same(one, other):
    assert one["fingerprint"] == other["fingerprint"]
    for key in ("arrays", "cube"):
        for here, there in zip(one[key], other[key], strict=True):
            assert here.dtype == there.dtype
            np.testing.assert_array_equal(here, there)


@pytest.fixture(scope="module")
def expected():
    return answers()


@pytest.mark.parametrize(
    "setting",
    [
        partial(default_dtype, torch.float64),
        partial(default_dtype, torch.bfloat16),
        partial(default_device, "meta"),
        torch.inference_mode,
        torch.no_grad,
        partial(torch.autocast, "cpu", dtype=torch.bfloat16),
        partial(torch.device, "meta"),
    ],
    ids=["float64", "bfloat16", "default device", "inference mode", "no grad", "autocast", "device context"],
)
@pytest.mark.parametrize("read_before", [True, False])
def test_settings_of_torch(expected, setting, read_before):
    net = DeepEM.load() if read_before else None
    with setting():
        found = answers(net)
    assert_same(found, expected)
    # A network that was read or used under the setting answers the same afterwards.
    if net is not None:
        assert_same(answers(net), expected)


def test_settings_of_torch_and_blas_are_left_alone(expected):
    """Threads of torch and of linear algebra are limited meanwhile, and restored when the last thread is done."""

    def settings():
        blas = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
        return torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(), np.geterr(), blas

    before = settings()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: invert(sample_maps((N, N))).data, range(16)))
    assert settings() == before
    for data in found:
        np.testing.assert_array_equal(data, expected["cube"][0])


def test_blas_limit_of_overlapping_threads():
    """The first thread that leaves does not restore the limit, and the last one does."""

    def threads():
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    before = threads()
    first, second = single_blas_thread(), single_blas_thread()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert set(threads()) == {1}
    second.__exit__(None, None, None)
    assert threads() == before


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="forks do not exist here")
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_forked_processes(expected):
    """A fork does not copy the threads of OpenMP, for which torch would wait forever."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        torch.isfinite(torch.zeros(10**6)).all()  # starts the threads
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
            futures = [pool.submit(answers) for _ in range(4)]
            for future in futures:
                assert_same(future.result(timeout=120), expected)
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_spawned_processes(expected):
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        for future in [pool.submit(inverted_sample, N) for _ in range(2)]:
            np.testing.assert_array_equal(future.result(timeout=300), expected["cube"][0])


class _Inversions(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.from_numpy(inverted_sample(N))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="forks do not exist here")
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_workers_of_a_data_loader(expected):
    loader = torch.utils.data.DataLoader(_Inversions(), num_workers=2, multiprocessing_context="fork", timeout=120)
    for data in loader:
        np.testing.assert_array_equal(data[0].numpy(), expected["cube"][0])
