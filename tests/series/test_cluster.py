"""Tests of series on a cluster of two processes, also with workers that are killed."""

import os
import signal
import sys
from concurrent.futures import BrokenExecutor, ThreadPoolExecutor, wait

import astropy.units as u
import numpy as np
import pytest
from helpers import later

from sunpy_deepem import DEMCube, invert
from sunpy_deepem.sample import sample_maps
from sunpy_deepem.series import cluster, invert_series, jobs
from sunpy_deepem.utils.files import atomic_path

dask = pytest.importorskip("dask", reason="dask is not installed: pip install sunpy_deepem[dask]")
distributed = pytest.importorskip("distributed", reason="distributed is not installed: pip install sunpy_deepem[dask]")

# Workers cannot import the test modules.
cloudpickle = pytest.importorskip("cloudpickle")
cloudpickle.register_pickle_by_value(sys.modules[__name__])

N_SETS = 5
# Threads of dask and of the tests share the warning filters.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as two_processes,
        distributed.Client(two_processes) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder with the maps of five times of increasing brightness."""
    folder = tmp_path_factory.mktemp("maps")
    for smap in sample_maps((64, 64)):
        for step in range(N_SETS):
            name = f"aia_{step}_{smap.wavelength.value:04.0f}.fits"
            later(smap, step * u.hour, data=smap.data * 1.2**step).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def serial(tmp_path_factory, folder):
    """Files made by one process."""
    out = tmp_path_factory.mktemp("serial")
    assert len(invert_series(folder, out).done) == N_SETS
    return contents(out)


def contents(out):
    """Return EM and provenance of all files of a folder, hidden ones included, by name."""
    found = {}
    for path in out.iterdir():
        if path.name != "report.json":
            cube = DEMCube.read(path)
            found[path.name] = (cube.data, cube.uncertainty.array, cube.meta["provenance"]["series"], cube.inputs)
    return found


def assert_same(found, expected):
    assert sorted(found) == sorted(expected)
    for name, (em, std, *facts) in expected.items():
        np.testing.assert_allclose(found[name][0], em, rtol=1e-5)
        np.testing.assert_allclose(found[name][1], std, rtol=1e-5)
        assert list(found[name][2:]) == facts


def die_while_writing(once):
    """Kill one of the workers in the middle of writing a cube."""
    write = DEMCube.__dict__["write"]

    def half(cube, path, **options):
        try:
            os.close(os.open(once, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return write.__get__(cube, type(cube))(path, **options)
        with atomic_path(path) as partial:
            partial.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        return None

    DEMCube.write = half


def allow_failures(number, dask_scheduler):
    dask_scheduler.allowed_failures = number


class Deadly(distributed.WorkerPlugin):
    """Kills every worker, also later ones, that inverts a certain set."""

    name = "deadly"

    def __init__(self, prefix):
        self.prefix = prefix

    def setup(self, worker):
        prefix, self.read_stack = self.prefix, jobs.read_stack

        def deadly(sources, **options):
            if sources[0].name.startswith(prefix):
                os.kill(os.getpid(), signal.SIGKILL)
            return self.read_stack(sources, **options)

        jobs.read_stack = deadly

    def teardown(self, worker):
        jobs.read_stack = self.read_stack


def test_same_files_as_serial(client, tmp_path, folder, serial):
    report = invert_series(folder, tmp_path, scheduler=client)
    assert [len(part) for part in (report.done, report.skipped, report.failed)] == [N_SETS, 0, 0]
    assert_same(contents(tmp_path), serial)
    again = invert_series(folder, tmp_path, scheduler=client)
    assert [len(part) for part in (again.done, again.skipped, again.failed)] == [0, N_SETS, 0]


def test_address(client, tmp_path, folder):
    address = client.scheduler_info()["address"]
    report = invert_series(sorted(folder.glob("aia_[01]_*")), tmp_path, scheduler=address)
    assert len(report.done) == 2


def test_cubes_in_memory(client, folder):
    sequence = invert_series(folder, scheduler=client, shape=32)
    assert sequence.shape == (N_SETS, 18, 32, 32)
    expected = invert(sorted(folder.glob("aia_3_*")), shape=32)
    np.testing.assert_allclose(sequence[3].data, expected.data, rtol=1e-5)
    assert sequence[3].inputs == expected.inputs
    np.testing.assert_array_equal(sequence[3].quality, expected.quality)
    assert sequence[3, 4:9].chi2.shape == (32, 32)
    assert (np.diff(sequence.light_curve()["total_em"].value) > 0).all()


def test_bad_set_does_not_stop_others(client, tmp_path, folder):
    files = sorted(folder.glob("aia_*"))
    broken = tmp_path / "aia_0_0094.fits"
    broken.write_bytes(files[0].read_bytes()[:8640])
    report = invert_series([broken, *files[1:-1]], tmp_path / "dem", scheduler=client)
    assert [len(part) for part in (report.done, report.skipped, report.failed)] == [N_SETS - 2, 0, 2]
    assert "aia_0_0094.fits" in report.failed[0].reason
    assert report.failed[1].reason == "missing: 335 Å"


def test_killed_worker(client, tmp_path, folder, serial):
    """Another worker takes over the set; no partial file is left."""
    before = set(client.run(os.getpid).values())
    client.run(die_while_writing, str(tmp_path / "died"))
    out = tmp_path / "dem"
    report = invert_series(folder, out, scheduler=client)
    assert (tmp_path / "died").exists()
    assert [len(part) for part in (report.done, report.skipped, report.failed)] == [N_SETS, 0, 0]
    assert_same(contents(out), serial)  # includes hidden files
    client.wait_for_workers(2, timeout=30)
    assert len(before - set(client.run(os.getpid).values())) == 1


def test_set_that_kills_every_worker(client, tmp_path, folder):
    """The set fails, as one that needs too much memory does; the others are inverted."""
    client.run_on_scheduler(allow_failures, 0)
    try:
        client.register_plugin(Deadly("aia_2_"))
        report = invert_series(folder, tmp_path, scheduler=client)
    finally:
        client.unregister_worker_plugin("deadly")
        client.run_on_scheduler(allow_failures, 3)
    assert [len(part) for part in (report.done, report.skipped, report.failed)] == [N_SETS - 1, 0, 1]
    assert report.failed[0].reason.startswith("KilledWorker: ")
    assert all("aia_2_" in name for name in report.failed[0].inputs)


@pytest.mark.parametrize("kind", ["threads", "executor"])
def test_threads(tmp_path, folder, serial, kind):
    with ThreadPoolExecutor(2) as executor:
        report = invert_series(folder, tmp_path, scheduler="threads" if kind == "threads" else executor)
    assert len(report.done) == N_SETS
    assert_same(contents(tmp_path), serial)


def test_broken_executor(tmp_path, folder):
    class Broken(ThreadPoolExecutor):
        def submit(self, *arguments):
            raise BrokenExecutor("all workers died")

    report = invert_series(folder, tmp_path, scheduler=Broken())
    assert [result.reason for result in report.failed] == ["BrokenExecutor: all workers died"] * N_SETS


def test_continue_after_interrupt(client, tmp_path, folder, serial, monkeypatch):
    """After Ctrl-C, the next run inverts the missing sets."""
    calls = []

    def interrupted(futures, **options):
        calls.append(futures)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return wait(futures, **options)

    with monkeypatch.context() as patch:
        patch.setattr(cluster, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            invert_series(folder, tmp_path, scheduler=client)
    report = invert_series(folder, tmp_path, scheduler=client)
    assert len(report.done) + len(report.skipped) == N_SETS
    assert len(report.skipped) >= 2
    assert_same(contents(tmp_path), serial)


@pytest.mark.parametrize("scheduler", ["process", 7, "localhost"])
def test_invalid_scheduler(tmp_path, folder, scheduler):
    with pytest.raises(ValueError, match="scheduler must be None, 'threads', 'processes'"):
        invert_series(folder, tmp_path, scheduler=scheduler)


def test_no_scheduler_at_address(tmp_path, folder):
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(OSError, match=r"there is no dask scheduler at tcp://127\.0\.0\.1:9"),
    ):
        invert_series(folder, tmp_path, scheduler="tcp://127.0.0.1:9")
