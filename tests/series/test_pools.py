"""Tests of pools without dask."""

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from sunpy_deepem.series import cluster
from sunpy_deepem.series.cluster import JobPool, SerialPool, open_pool
from sunpy_deepem.utils.logger import log


def finish(job, ahead):
    return job, ahead.result()


class TestReadAhead:
    """The default: the next job is prepared while one runs."""

    def test_order(self):
        found = SerialPool().run(finish, {"a": 1, "b": 2, "c": 3}, prepare=lambda job: 10 * job)
        assert [(key, future.result()) for key, future in found] == [("a", (1, 10)), ("b", (2, 20)), ("c", (3, 30))]

    def test_prepares_exactly_one_job_ahead(self):
        prepared, second = [], threading.Event()

        def prepare(job):
            prepared.append(job)
            if job == 2:
                second.set()

        def while_second_is_prepared(job, ahead):
            assert second.wait(10)
            ahead.result()

        results = SerialPool().run(while_second_is_prepared, {job: job for job in (1, 2, 3)}, prepare)
        _, future = next(results)
        assert future.exception() is None
        assert prepared == [1, 2]
        list(results)
        assert prepared == [1, 2, 3]

    def test_prepared_by_one_other_thread(self):
        names = set()
        list(SerialPool().run(finish, {job: job for job in range(5)}, lambda job: names.add(threading.get_ident())))
        assert len(names - {threading.get_ident()}) == 1

    def test_error_of_preparation(self):
        def prepare(job):
            if job == 1:
                msg = "no such map"
                raise ValueError(msg)

        first, second = (future for _, future in SerialPool().run(finish, {1: 1, 2: 2}, prepare))
        assert str(first.exception()) == "no such map"
        assert second.exception() is None

    def test_interrupt(self):
        """Jobs that wait are not prepared any more, and the thread ends."""

        def interrupted(job, ahead):
            raise KeyboardInterrupt

        before = threading.active_count()
        with pytest.raises(KeyboardInterrupt):
            list(SerialPool().run(interrupted, {job: job for job in range(5)}, lambda job: None))
        assert threading.active_count() == before

    def test_without_preparation(self):
        assert [future.result() for _, future in SerialPool().run(abs, {"a": -1})] == [1]


def test_warning_filters_are_restored():
    before = list(warnings.filters)
    with open_pool(None):
        warnings.simplefilter("ignore")
    assert warnings.filters == before


@pytest.mark.parametrize("n_workers", [0, 1])
def test_lack_of_workers_is_logged_once(n_workers, monkeypatch):
    """As of a dask cluster whose workers were all killed; a slow worker is no reason."""
    monkeypatch.setattr(cluster, "_PATIENCE", 0.01)
    back = threading.Event()
    with log.log_to_list() as records, ThreadPoolExecutor(1) as executor:
        timer = threading.Timer(0.3, back.set)
        timer.start()
        found = list(JobPool(executor, lambda: n_workers).run(lambda job: back.wait(10) and job, {"a": 1, "b": 2}))
    assert [(key, future.result()) for key, future in found] == [("a", 1), ("b", 2)]
    expected = ["The scheduler has no workers. The series continues when there are some."]
    assert [record.message for record in records] == (expected if n_workers == 0 else [])
