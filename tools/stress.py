"""
Use shared cubes in threads, forked and spawned processes at once, and compare all results with those of one thread.

Usage: ``python tools/stress.py [--seconds 60] [--threads 16] [--processes 4] [--size 96] [--seed 0]``

Each worker writes, reads, inverts, rebins, draws from, synthesizes and plots the same cube, its file and its maps, in
random order. Threads share the cube of the parent; forked processes inherit it after the parent has used everything,
and spawned ones read it from the file. A result that differs, or an error, is listed, and the exit status is then 1.
"""

import argparse
import hashlib
import io
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from sunpy_deepem import DeepEM, DEMCube, invert
from sunpy_deepem.sample import sample_maps
from sunpy_deepem.visualization import plot_bins


class Shared:
    """A cube, its file, its maps and a network, and what can be done with them."""

    NAMES = ("write", "stream", "read", "invert", "rebin", "sample", "synthesize", "plot")

    def __init__(self, folder, size):
        self.folder, self.file = Path(folder), Path(folder) / "shared.fits"
        self.maps, self.network = list(sample_maps((size, size))), DeepEM.load()
        if not self.file.exists():
            invert(self.maps, weights=self.network).write(self.file)
        self.cube = DEMCube.read(self.file)
        self.few = self.cube[:, :16, :16]

    def do(self, name, own):
        """Return the digest of one result; ``own`` is a name that no other worker uses."""
        return getattr(self, f"_{name}")(self.folder / f"{own}.fits")

    def _write(self, path):
        self.cube.write(path, overwrite=True, compress=hash(path.name) % 2 == 0)
        return _digest(*_arrays(DEMCube.read(path)))

    def _stream(self, path):
        return _digest(*_arrays(invert(self.maps, weights=self.network, out=path, overwrite=True).compute()))

    def _read(self, path):
        return _digest(*_arrays(DEMCube.read(self.file)))

    def _invert(self, path):
        return _digest(*_arrays(invert(self.maps, weights=self.network)))

    def _rebin(self, path):
        return _digest(*_arrays(self.cube.rebin((1, 2, 2))))

    def _sample(self, path):
        return _digest(self.few.distribution(n=8).distribution.value)

    def _synthesize(self, path):
        return _digest(*(smap.data for smap in self.few.synthesize()))

    def _plot(self, path):
        image, fig = io.BytesIO(), Figure(figsize=(6, 4))
        plot_bins(self.cube, fig=fig)
        fig.savefig(image, format="raw", dpi=40)
        return hashlib.sha256(image.getvalue()).hexdigest()


def _arrays(cube):
    return [cube.data, cube.uncertainty.array, cube.mask, *cube.planes.images.values()]


def _digest(*arrays):
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


def work(shared, expected, seconds, seed, worker):
    """Do things in random order until the time is over; return counts and problems."""
    rng, counts, problems = np.random.default_rng([seed, worker]), Counter(), []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for name in rng.permutation(Shared.NAMES).tolist():
            try:
                if shared.do(name, f"worker {worker}") != expected[name]:
                    problems.append(f"worker {worker}: {name} differs")
            except Exception as error:
                problems.append(f"worker {worker}: {name}: {type(error).__name__}: {error}")
            counts[name] += 1
            if time.monotonic() > end:
                break
    return counts, problems


def work_in_fork(queue, shared, *args):
    """Work in a forked process, with the cube of the parent."""
    queue.put(work(shared, *args))


def work_in_spawn(queue, folder, size, *args):
    """Work in a new process, with the cube of the file."""
    queue.put(work(Shared(folder, size), *args))


def stress(folder, *, seconds, threads, processes, size, seed):
    """
    Run threads and processes at once.

    Returns
    -------
    counts : `dict` of `~collections.Counter`
        How often each thing was done, by kind of worker.
    problems : `list` of `str`
    """
    shared = Shared(folder, size)
    expected = {name: shared.do(name, "alone") for name in Shared.NAMES}
    problems = [
        f"{name} differs the second time" for name in Shared.NAMES if shared.do(name, "alone") != expected[name]
    ]
    counts = {"threads": Counter(), "forked": Counter(), "spawned": Counter()}
    started = []
    for kind, target, given in (("fork", work_in_fork, (shared,)), ("spawn", work_in_spawn, (folder, size))):
        context = multiprocessing.get_context(kind)
        queue = context.Queue()
        for _ in range(processes):
            worker = len(started) + threads
            process = context.Process(target=target, args=(queue, *given, expected, seconds, seed, worker))
            process.start()
            started.append((f"{kind}ed", process, queue))
    with ThreadPoolExecutor(threads) as pool:
        results = pool.map(lambda worker: work(shared, expected, seconds, seed, worker), range(threads))
        found = [("threads", *result) for result in results]
    for kind, process, queue in started:
        try:
            found.append((kind, *queue.get(timeout=300 + seconds)))
        except Exception:  # the queue is empty
            problems.append(f"a {kind} process did not answer; its exit status is {process.exitcode}")
            process.kill()
        process.join()
    for kind, count, worse in found:
        counts[kind] += count
        problems += [f"{kind}: {problem}" for problem in worse]
    return counts, problems


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--processes", type=int, default=4, help="Forked, and as many spawned, processes.")
    parser.add_argument("--size", type=int, default=96, help="Pixels along each side.")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts, problems = stress(folder, **vars(args))
    for kind, count in counts.items():
        print(f"{kind:8} {count.total():5d}:", ", ".join(f"{name} {count[name]}" for name in Shared.NAMES))
    print(*sorted(problems), sep="\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
