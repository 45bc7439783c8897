"""
Kill runs at random moments, run them again, and compare with undisturbed runs.

Usage: ``python tools/kill_runs.py [--n 100] [--seed 0] [--output kills.jsonl [--resume]]``

A run is ``deepem invert -o``, ``invert(out=)``, a series, ``deepem train`` or ``fetch`` from a server on the loopback
interface, in a forked process. It is killed by SIGINT, SIGTERM or SIGKILL, in half of the cases once it has begun to
write files. In half of the cases, the file to write exists already. After each kill and after the next run:

- every file with a final name is that of an undisturbed run, or the one that existed before;
- after the next run, all files are there and no other;
- the next run of a training or a series continues where the killed one stopped, with the results of an undisturbed run.

Everything else is listed, and the exit status is then 1.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import numpy as np

# So that forked processes need not import them
import torch._dynamo  # noqa: F401
from safetensors.numpy import load_file

import sunpy_deepem.fetch
import sunpy_deepem.inversion
import sunpy_deepem.network.compiled_draws
import sunpy_deepem.training.recipe
from sunpy_deepem import DEMCube, invert
from sunpy_deepem.cli import main as deepem
from sunpy_deepem.sample import sample_maps

TESTS = Path(__file__).resolve().parents[1] / "tests"
KINDS, SIGNALS = ("invert", "out", "series", "train", "fetch"), ("SIGINT", "SIGTERM", "SIGKILL")
SHAPE, TIMES = (128, 128), [f"2014-01-01T00:{minute:02}:00" for minute in (0, 2, 4, 6)]
TRAINING = {"--prior": "neutral", "--pixels": "1000", "--epochs": "8", "--posterior-epochs": "4", "--hidden": "8,8"}
FORK = multiprocessing.get_context("fork")


# ---------------------------------------------------------------------------------------------------------------------
# The runs
# ---------------------------------------------------------------------------------------------------------------------


def run_invert(source, target):
    """Invert six files by the command line."""
    deepem(["invert", *map(str, sorted(source.glob("*_0.fits"))), "-o", str(target / "dem.fits"), "--overwrite", "-q"])


def run_out(source, target):
    """Invert six files into a file."""
    invert(sorted(source.glob("*_0.fits")), out=target / "dem.fits", overwrite=True)


def run_series(source, target):
    """Invert the files of several times by the command line."""
    deepem(["invert", str(source), "-o", f"{target}/", "-q", "--shape", "64"])


def run_train(source, target):
    """Train weights, from a checkpoint if there is one."""
    sys.argv = ["deepem", "train"]  # it is written into the file
    options = [word for option in TRAINING.items() for word in option]
    deepem(["train", *options, "--resume", "-q", "--overwrite", "-o", str(target / "mine.safetensors")])


def run_fetch(source, target):
    """Download the files of two times by the command line."""
    deepem(["fetch", "2014-01-01T00:00", "--end", "2014-01-01T00:02", "-o", str(target), "-q"])


@contextmanager
def archive():
    """Serve AIA files on the loopback interface, by the archive of the tests."""
    code = (
        "import sys, time; from file_server import PATTERN, open_archive\n"
        "with open_archive() as archive:\n"
        "    archive.add('2014-01-01T00:00'); archive.add('2014-01-01T00:02')\n"
        "    print(archive.url + PATTERN, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=TESTS) as server:
        from sunpy.net.dataretriever.sources.aia_synopsis import AIASynopsisClient

        AIASynopsisClient.pattern = server.stdout.readline().strip()
        yield
        server.stdin.close()


def start(kind, source, target):
    """Start a run in a forked process."""

    def run():
        for stream in (1, 2):
            os.dup2(os.open(target.parent / "output.txt", os.O_CREAT | os.O_WRONLY | os.O_APPEND), stream)
        warnings.simplefilter("ignore")
        signal.signal(signal.SIGINT, signal.default_int_handler)
        globals()[f"run_{kind}"](source, target)

    process = FORK.Process(target=run)
    process.start()
    return process


# ---------------------------------------------------------------------------------------------------------------------
# Results
# ---------------------------------------------------------------------------------------------------------------------


def contents(folder):
    """Return what identifies the content of each file of a folder, by name."""
    return {str(path.relative_to(folder)): content(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def content(path):
    """Return what identifies the content of a file, or why it cannot be read."""
    try:
        if path.name.startswith("report"):
            return "report"  # it says what was skipped
        if path.suffix == ".safetensors":
            arrays = load_file(path).values()
        elif path.name.startswith("AIA"):
            return hashlib.sha256(path.read_bytes()).hexdigest()
        elif path.suffix == ".fits":
            cube = DEMCube.read(path)
            arrays = [cube.data, cube.uncertainty.array, cube.mask, *cube.planes.images.values()]
        else:
            return path.name
        return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()
    except Exception as error:  # the file is damaged
        return f"{type(error).__name__}: {error}"


class Case:
    """One kind of run in a folder, with its undisturbed result and duration."""

    def __init__(self, kind, base):
        self.kind, self.base, self.source = kind, base, base / "source"
        self.folder = base / kind
        shutil.rmtree(self.folder, ignore_errors=True)
        self._prepare()
        began = time.monotonic()
        process = start(kind, self.source, self.target)
        process.join()
        self.duration = time.monotonic() - began
        if process.exitcode:
            raise RuntimeError((self.folder / "output.txt").read_text())
        self.expected = contents(self.target)

    @property
    def target(self):
        """The folder of results."""
        return self.folder / "target"

    def _prepare(self, existing=False):
        """Make an empty folder, or one with a file of the name that the run is to write."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.target.mkdir(parents=True)
        if existing:
            name = "mine.safetensors" if self.kind == "train" else "dem.fits"
            shutil.copy(self.base / name, self.target / name)
        return contents(self.target)

    def kill(self, rng):
        """Kill a run and run it again; return a record."""
        sent, existing = str(rng.choice(SIGNALS)), self.kind in ("invert", "out", "train") and rng.random() < 0.5
        while_writing = bool(rng.random() < 0.5)
        before = self._prepare(existing)
        names = set(os.listdir(self.target))
        process = start(self.kind, self.source, self.target)
        began = time.monotonic()
        while while_writing and process.is_alive() and set(os.listdir(self.target)) == names:
            time.sleep(0.001)
        elapsed = time.monotonic() - began
        time.sleep(rng.uniform(0, max(self.duration - elapsed, 0.1)))
        moment = time.monotonic() - began
        alive = process.is_alive()
        with suppress(ProcessLookupError):  # it has just ended
            os.kill(process.pid, getattr(signal, sent))
        process.join(60)
        problems = [] if process.exitcode is not None else ["the run did not end within 60 s"]
        killed = contents(self.target)
        problems += self._damaged(killed, before, hidden=sent == "SIGKILL" or (sent, self.kind) == ("SIGTERM", "out"))
        process = start(self.kind, self.source, self.target)
        process.join(600)
        after = contents(self.target)
        if process.exitcode:
            problems.append(f"the next run failed: {(self.folder / 'output.txt').read_text()[-300:]}")
        if after != self.expected:
            problems.append(f"after the next run {_difference(after, self.expected)}")
        return {
            "kind": self.kind,
            "signal": sent,
            "existing": bool(existing),
            "moment": round(moment, 3),
            "duration": round(self.duration, 3),
            "alive": alive,
            "files": sorted(killed),
            "problems": problems,
        }

    def _damaged(self, killed, before, *, hidden):
        """Return problems of the files after a kill; temporary files may be left if a process cannot catch a signal."""
        problems = []
        for name, found in killed.items():
            temporary = name.startswith(".")
            if temporary and not hidden:
                problems.append(f"{name} is left")
            whole = (self.expected.get(name), before.get(name))
            if not temporary and not name.endswith((".checkpoint", ".posterior")) and found not in whole:
                problems.append(f"{name} is half-written: {found}")
        return problems


def _difference(found, expected):
    names = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    return ", ".join(f"{name} is {found.get(name, 'missing')}, not {expected.get(name, 'missing')}" for name in names)


@cache
def case(kind, base):
    """Return the `Case` of a kind."""
    return Case(kind, base)


def make_sources(base):
    """Write the files to invert, and old results that are to be replaced."""
    source = base / "source"
    source.mkdir(parents=True)
    for number, obstime in enumerate(TIMES):
        for smap in sample_maps(SHAPE, obstime=obstime, seed=number):
            smap.save(source / f"aia_{smap.wavelength.value:.0f}_{number}.fits")
    process = FORK.Process(target=lambda: invert(sorted(source.glob("*_1.fits"))).write(base / "dem.fits"))
    process.start()
    process.join()
    shutil.copy(Path(sunpy_deepem.__file__).parent / "data" / "neutral.safetensors", base / "mine.safetensors")


def read_records(path):
    """Return the records of an earlier run."""
    lines = path.read_text(encoding="utf-8").splitlines() if path is not None and path.exists() else []
    # A line may be incomplete if the run was killed.
    return [json.loads(line) for line in lines if line.endswith("}")]


def report(records):
    """Print a summary; return the exit status."""
    counts = Counter((record["kind"], record["signal"]) for record in records)
    print(f"{len(records)} kills, {sum(record['alive'] for record in records)} of them before the end of the run")
    for kind in KINDS:
        print(f"{kind:8}", *(f"{sent} {counts[kind, sent]:3d}" for sent in SIGNALS), sep="  ")
    bad = [record for record in records if record["problems"]]
    for record in bad:
        print(json.dumps(record))
    return 1 if bad else 0


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--n", type=int, default=100, help="Number of kills.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=np.inf, help="Stop after this time.")
    parser.add_argument("--output", type=Path, help="File of results, one JSON object per line.")
    parser.add_argument("--resume", action="store_true", help="Keep the results in --output and run only the others.")
    args = parser.parse_args()
    records, began = read_records(args.output) if args.resume else [], time.monotonic()
    with tempfile.TemporaryDirectory() as base, archive(), open(args.output or os.devnull, "w") as file:
        make_sources(Path(base))
        for record in records:
            print(json.dumps(record), file=file, flush=True)
        for number in range(len(records), args.n):
            if time.monotonic() - began > args.seconds:
                break
            rng = np.random.default_rng([args.seed, number])
            records.append(case(KINDS[number % len(KINDS)], Path(base)).kill(rng))
            print(json.dumps(records[-1]), file=file, flush=True)
            print(f"{len(records)} of {args.n}: {records[-1]}", file=sys.stderr)
    return report(records)


if __name__ == "__main__":
    sys.exit(main())
