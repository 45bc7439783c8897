"""Series on a real cluster of two processes: the same files as alone, whatever happens to the workers."""

import os
import signal
import sys
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from helpers import changed

from sunpy_deepem import DEMCube, invert
from sunpy_deepem.sample import sample_maps
from sunpy_deepem.series import invert_series, jobs

dask = pytest.importorskip("dask", reason="dask is not installed: pip install sunpy_deepem[dask]")
distributed = pytest.importorskip("distributed", reason="distributed is not installed: pip install sunpy_deepem[dask]")

# Workers cannot import the test modules
cloudpickle = pytest.importorskip("cloudpickle")
cloudpickle.register_pickle_by_value(sys.modules[__name__])

N_SETS = 5
# Threads of dask change the filters of warnings at the same time as those of the tests.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five times of a Sun that becomes brighter."""
    folder = tmp_path_factory.mktemp("maps")
    for smap in sample_maps((64, 64)):
        for step in range(N_SETS):
            cards = {"date-obs": (smap.date + step * u.hour).isot}
            name = f"aia_{step}_{smap.wavelength.value:04.0f}.fits"
            changed(smap, data=smap.data * 1.2**step, **cards).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory, folder):
    """The files that one process makes."""
    out = tmp_path_factory.mktemp("alone")
    assert len(invert_series(folder, out).done) == N_SETS
    return contents(out)


def contents(out):
    """EM and provenance of all files of a folder, hidden ones as well, by name."""
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


def die_in_the_middle_of_a_file(once):
    """Make this worker die the first time that it has written half a cube; of all workers, only one does."""
    write = DEMCube.write

    def half(cube, path, **options):
        try:
            os.close(os.open(once, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return write(cube, path, **options)
        Path(path).with_name(f".{Path(path).name}.{os.getpid()}.part").write_bytes(b"half")
        return os.kill(os.getpid(), signal.SIGKILL)

    DEMCube.write = half


def allow_failures(number, dask_scheduler):
    dask_scheduler.allowed_failures = number


class Deadly(distributed.WorkerPlugin):
    """Makes workers, also those that are started later, die of a set of maps."""

    name = "deadly"

    def __init__(self, prefix):
        self.prefix = prefix

    def setup(self, worker):
        prefix, self.invert = self.prefix, jobs.invert

        def deadly(sources, **options):
            if sources[0].name.startswith(prefix):
                os.kill(os.getpid(), signal.SIGKILL)
            return invert(sources, **options)

        jobs.invert = deadly

    def teardown(self, worker):
        jobs.invert = self.invert


def test_the_same_files_as_alone(client, tmp_path, folder, alone):
    report = invert_series(folder, tmp_path, scheduler=client)
    assert [len(part) for part in (report.done, report.skipped, report.failed)] == [N_SETS, 0, 0]
    assert_same(contents(tmp_path), alone)
    again = invert_series(folder, tmp_path, scheduler=client)
    assert [len(part) for part in (again.done, again.skipped, again.failed)] == [0, N_SETS, 0]


def test_at_an_address(client, tmp_path, folder):
    address = client.scheduler_info()["address"]
    report = invert_series(sorted(folder.glob("aia_[01]_*")), tmp_path, scheduler=address)
    assert len(report.done) == 2


def test_cubes_come_back(client, folder):
    sequence = invert_series(folder, scheduler=client, shape=32)
    assert sequence.shape == (N_SETS, 18, 32, 32)
    expected = invert(sorted(folder.glob("aia_3_*")), shape=32)
    np.testing.assert_allclose(sequence[3].data, expected.data, rtol=1e-5)
    assert sequence[3].inputs == expected.inputs
    np.testing.assert_array_equal(sequence[3].quality, expected.quality)
    assert sequence[3, 4:9].chi2.shape == (32, 32)
    assert (np.diff(sequence.light_curve()["total_em"].value) > 0).all()


def test_a_bad_set_does_not_stop_the_others(client, tmp_path, folder):
    files = sorted(folder.glob("aia_*"))
    broken = tmp_path / "aia_0_0094.fits"
    broken.write_bytes(files[0].read_bytes()[:8640])
    report = invert_series([broken, *files[1:-1]], tmp_path / "dem", scheduler=client)
    assert [len(part) for part in (report.done, report.skipped, report.failed)] == [N_SETS - 2, 0, 2]
    assert "aia_0_0094.fits" in report.failed[0].reason
    assert report.failed[1].reason == "missing: 335 Å"


def test_a_worker_is_killed(client, tmp_path, folder, alone):
    """In the middle of a file: nothing is lost, and nothing is there twice."""
    before = set(client.run(os.getpid).values())
    client.run(die_in_the_middle_of_a_file, str(tmp_path / "died"))
    out = tmp_path / "dem"
    report = invert_series(folder, out, scheduler=client)
    assert (tmp_path / "died").exists()
    assert [len(part) for part in (report.done, report.skipped, report.failed)] == [N_SETS, 0, 0]
    assert_same(contents(out), alone)  # Which lists hidden files as well
    client.wait_for_workers(2, timeout=30)
    assert len(before - set(client.run(os.getpid).values())) == 1


def test_a_set_that_kills_every_worker(client, tmp_path, folder):
    """As one that does not fit in memory: it is given up, the others go on."""
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


def test_threads(tmp_path, folder, alone):
    report = invert_series(folder, tmp_path, scheduler="threads")
    assert len(report.done) == N_SETS
    assert_same(contents(tmp_path), alone)


def test_an_interrupted_run_goes_on(client, tmp_path, folder, alone, monkeypatch):
    """Ctrl-C while workers are busy: what is done stays, and what is not is made by the next run."""
    exit_of = distributed.as_completed.__next__
    seen = []

    def interrupted(completed):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(future := exit_of(completed))
        return future

    with monkeypatch.context() as patch:
        patch.setattr(distributed.as_completed, "__next__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            invert_series(folder, tmp_path, scheduler=client)
    report = invert_series(folder, tmp_path, scheduler=client)
    assert len(report.done) + len(report.skipped) == N_SETS
    assert len(report.skipped) >= 2
    assert_same(contents(tmp_path), alone)


@pytest.mark.parametrize("scheduler", ["process", 7, "localhost"])
def test_no_such_scheduler(tmp_path, folder, scheduler):
    with pytest.raises(ValueError, match="scheduler must be None, 'threads', 'processes'"):
        invert_series(folder, tmp_path, scheduler=scheduler)


def test_nobody_at_the_address(tmp_path, folder):
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(OSError, match=r"there is no dask scheduler at tcp://127\.0\.0\.1:9"),
    ):
        invert_series(folder, tmp_path, scheduler="tcp://127.0.0.1:9")
