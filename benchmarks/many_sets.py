"""
Many small sets on a dask cluster whose workers are killed at random: nothing is lost and nothing is there twice.

Usage: ``python benchmarks/many_sets.py [--sets 10000] [--shape 16] [--workers 2] [--every SECONDS] [--quick]``.
Copies six maps of the synthetic Sun with dates two minutes apart, inverts them by `sunpy_deepem.series.invert_series`
on a ``LocalCluster``, and sends SIGKILL to a random worker at random times, every so many seconds on average. Prints
progress with the memory of the process of the scheduler and the number of tasks that the scheduler knows, which must
not grow with the number of sets. Then checks that each set has one result and one file that is made of its maps, that
no partial file is left, and that a second run skips what is done. The exit status is 1 if not. Leaves
``many_sets.json``.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

from series import dated

# Sets that a second run must skip.
_CHECKED = 100


class Killer(threading.Thread):
    """
    Kills a random worker of a cluster at random times.

    Workers that are still starting are spared, because dask does not replace a worker that dies before it has started.
    """

    def __init__(self, cluster, every, seed):
        super().__init__(daemon=True)
        self.cluster, self.every, self.kills = cluster, every, 0
        self._random, self._end = random.Random(seed), threading.Event()

    def run(self):
        """Kill until `stop`."""
        while not self._end.wait(self._random.expovariate(1 / self.every)):
            nannies = [nanny for nanny in self.cluster.workers.values() if nanny.pid]
            if pids := [nanny.pid for nanny in nannies if nanny.process.status.name == "running"]:
                os.kill(self._random.choice(pids), signal.SIGKILL)
                self.kills += 1

    def stop(self):
        """Kill no more."""
        self._end.set()
        self.join()


class Progress(threading.Thread):
    """Prints progress and memory."""

    def __init__(self, cluster, out, n, killer):
        super().__init__(daemon=True)
        self.cluster, self.out, self.n, self.killer = cluster, out, n, killer
        self.rows, self.most_tasks, self._end = [], 0, threading.Event()

    def run(self):
        """Print a row for every tenth of the sets."""
        import psutil

        begin, process = time.monotonic(), psutil.Process()
        print(f"{'sets':>8}{'seconds':>9}{'killed':>8}{'memory, MiB':>13}{'tasks':>7}", flush=True)
        while not self._end.wait(1):
            tasks = len(self.cluster.scheduler.tasks)
            self.most_tasks = max(self.most_tasks, tasks)
            done = len(list(self.out.glob("deepem_*.fits")))
            if done >= (len(self.rows) + 1) * self.n / 10:
                memory = process.memory_info().rss / 2**20
                row = {"sets": done, "seconds": time.monotonic() - begin, "killed": self.killer.kills}
                row |= {"memory": memory, "tasks": tasks}
                self.rows.append(row)
                print("{sets:8d}{seconds:9.0f}{killed:8d}{memory:13.0f}{tasks:7d}".format(**row), flush=True)

    def stop(self):
        """Print no more."""
        self._end.set()
        self.join()


def make_sets(folder, n, shape):
    """Write the maps of ``n`` times."""
    import astropy.units as u

    from sunpy_deepem.sample import sample_maps

    for smap in sample_maps((shape, shape)):
        path = folder / f"aia_{smap.wavelength.value:04.0f}.fits"
        smap.save(path)
        content = path.read_bytes()
        path.unlink()
        names = [name for name in ("DATE-OBS", "T_OBS") if name.lower() in smap.meta]
        for step, time_of_copy in enumerate((smap.date + 2 * u.min * range(n)).utc.isot):
            (folder / f"{step:06d}_{path.name}").write_bytes(dated(content, str(time_of_copy), names))


def run(args, folder):
    """Invert all sets on a cluster, and return the report and facts."""
    import dask
    from distributed import Client, LocalCluster

    from sunpy_deepem.series import group_maps, invert_series
    from sunpy_deepem.utils.logger import log

    log.setLevel("WARNING")  # of the workers, too
    maps, out = folder / "maps", folder / "dem"
    for one in (maps, out):
        one.mkdir()
    make_sets(maps, args.sets, args.shape)
    sets = group_maps(maps)
    # Workers do not die of their task here. By default dask gives up a task whose worker died four times, and no longer
    # restarts a worker that is absent 15 s after it was killed, for example because its replacement was killed as well.
    patience = {"scheduler.allowed-failures": 100, "deploy.lost-worker-timeout": "1 hour"}
    patience = dask.config.set({f"distributed.{name}": value for name, value in patience.items()})
    with (
        patience,
        LocalCluster(
            n_workers=args.workers, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50
        ) as cluster,
        Client(cluster) as client,
    ):
        killer = Killer(cluster, args.every, args.seed)
        progress = Progress(cluster, out, args.sets, killer)
        begin = time.monotonic()
        for thread in (progress, killer):
            thread.start()
        report = invert_series(sets, out, scheduler=client)
        seconds = time.monotonic() - begin
        for thread in (killer, progress):
            thread.stop()
        facts = {
            "sets": args.sets,
            "seconds": seconds,
            "killed": killer.kills,
            "most_tasks": progress.most_tasks,
            "progress": progress.rows,
        }
    return sets, report, out, facts


def problems(sets, report, out, args):
    """Return what is wrong after a run, a list of `str`."""
    from sunpy_deepem.series import invert_series

    expected = {str(each.time.isot): tuple(map(str, each.sources)) for each in sets.complete}
    found = [(str(result.time.isot), result.inputs) for result in report.done]
    names = [path.name for path in out.iterdir() if path.name != "report.json"]
    wrong = []
    if len(expected) != args.sets or sorted(found) != sorted(expected.items()):
        wrong.append(f"{len(found)} sets are done, of {len(expected)}:\n{report}")
    if sorted(names) != sorted(path.name for path in report.paths) or len(set(names)) != args.sets:
        wrong.append(f"there are {len(names)} files for {args.sets} sets")
    step = max(1, args.sets // _CHECKED)
    again = invert_series(sets.select(part=(1, step)), out)
    if len(again.skipped) != len(again.results):
        wrong.append(f"a second run does not skip what is done:\n{again}")
    return wrong


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=10_000)
    parser.add_argument("--shape", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--every", type=float, default=20.0, help="mean seconds between two kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="few sets: shows that it works")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "output")
    args = parser.parse_args()
    if args.quick:
        args.sets, args.every = 40, 5.0
    args.output.mkdir(parents=True, exist_ok=True)
    from machine import describe

    machine = describe()
    print("\n".join(f"{key}: {value}" for key, value in machine.items()))
    with tempfile.TemporaryDirectory(dir=args.output) as folder:
        sets, report, out, facts = run(args, Path(folder))
        wrong = problems(sets, report, out, args)
    rate = facts["seconds"] / args.sets
    print(f"\n{args.sets} sets in {facts['seconds']:.0f} s, {rate:.3f} s each; {facts['killed']} workers killed")
    print(f"The scheduler knew at most {facts['most_tasks']} tasks at once.")
    print("\n".join(wrong) or "Each set has one result and one file; nothing is lost and nothing is there twice.")
    content = json.dumps({"machine": machine, "run": facts, "wrong": wrong}, indent=1)
    (args.output / "many_sets.json").write_text(content + "\n", encoding="utf-8")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
