"""
Run all benchmarks, one after the other.

Usage: ``python benchmarks [FOLDER] [--quick] [--only speed accuracy ...] [--output benchmarks/output]``, where FOLDER
holds six full-disc AIA maps for the benchmarks of a real Sun, which are left out without it. Prints the machine, the
output of the benchmarks and a summary; leaves ``benchmarks.json``, a log of each and their own files in the output
folder. Each runs in its own process. The exit status is the number of benchmarks that failed.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from machine import describe

_HERE = Path(__file__).parent


class Benchmark(NamedTuple):
    """A program of this folder."""

    #: Options of a quick run, which shows that it works.
    quick: tuple = ()
    #: Whether it needs maps of the real Sun.
    real: bool = False
    #: Whether it takes ``--output``.
    writes: bool = False


BENCHMARKS = {
    "speed": Benchmark(
        (
            "--shape",
            "64",
            "--rounds",
            "2",
            "--slow",
            "20",
            "--compiled",
            "500",
            "--training",
            "5000",
            "--sampled",
            "500",
        ),
        writes=True,
    ),
    "end_to_end": Benchmark(("--quick",), writes=True),
    "series": Benchmark(("--quick",), writes=True),
    "archive": Benchmark(("--quick",), real=True, writes=True),
    "device": Benchmark(("--shape", "64", "--rounds", "1"), writes=True),
    "accuracy": Benchmark(
        ("--pixels", "50", "--limit", "5", "--demreg", "20", "--emtoolkit", "20", "--draws", "20000"), writes=True
    ),
    "calibration": Benchmark(("--method", "importance", "--quick"), writes=True),
    "exact": Benchmark(("--pixels", "5", "--draws", "200", "--prior-draws", "50000"), writes=True),
    "mcmc": Benchmark(("--pixels", "1", "--steps", "200", "--image", "500"), writes=True),
    "basis_pursuit": Benchmark(("--pixels", "500", "--linprog", "20", "--demreg", "20")),
    "sample_truth": Benchmark(("--size", "64")),
    "real_sun": Benchmark(real=True, writes=True),
    "chapter": Benchmark(("--epochs", "2"), real=True, writes=True),
}


def command(name, args):
    """Return the command line of a benchmark."""
    benchmark = BENCHMARKS[name]
    parts = [sys.executable, str(_HERE / f"{name}.py")]
    parts += [str(args.folder)] if benchmark.real else []
    parts += benchmark.quick if args.quick else ()
    parts += ["--output", str(args.output)] if benchmark.writes else []
    return parts


def run(parts, log):
    """Run a command, print its output and write it to ``log``; return exit status and seconds."""
    start = time.perf_counter()
    with (
        log.open("w", encoding="utf-8") as file,
        subprocess.Popen(
            parts, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8"
        ) as process,
    ):
        for line in process.stdout:
            sys.stdout.write(line)
            file.write(line)
    return process.returncode, time.perf_counter() - start


def left_out(name, args):
    """Return why a benchmark is not run, or `None`."""
    if name not in args.only:
        return "not asked for"
    if not (_HERE / f"{name}.py").exists():
        return "no such file"
    return "needs a FOLDER of maps" if BENCHMARKS[name].real and args.folder is None else None


def main():
    """Run them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="folder with six full-disc AIA maps")
    parser.add_argument("--quick", action="store_true", help="few pixels: shows that all benchmarks run")
    parser.add_argument("--only", nargs="+", choices=list(BENCHMARKS), default=list(BENCHMARKS))
    parser.add_argument("--output", type=Path, default=_HERE / "output")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    machine = describe()
    print("\n".join(f"{key}: {value}" for key, value in machine.items()))
    runs = {}
    for name in BENCHMARKS:
        why = left_out(name, args)
        if why is not None:
            runs[name] = {"status": why}
            continue
        print(f"\n== {name}", flush=True)
        status, seconds = run(command(name, args), args.output / f"{name}.log")
        runs[name] = {"status": "done" if status == 0 else f"failed with status {status}", "seconds": round(seconds, 1)}
        results = args.output / f"{name}.json"
        if status == 0 and results.exists():
            runs[name]["results"] = json.loads(results.read_text(encoding="utf-8"))
    content = json.dumps({"machine": machine, "quick": args.quick, "runs": runs}, indent=1)
    (args.output / "benchmarks.json").write_text(content + "\n", encoding="utf-8")
    print()
    for name, facts in runs.items():
        print(f"{name:16s}{facts.get('seconds', ''):>8}  {facts['status']}")
    sys.exit(sum(facts["status"].startswith("failed") for facts in runs.values()))


if __name__ == "__main__":
    main()
