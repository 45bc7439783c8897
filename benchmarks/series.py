"""
A series of six-channel sets to cubes in files: seconds and bytes per set, and what a long run costs.

Usage: ``python benchmarks/series.py [FOLDER] [--sets N] [--shape N] [--quick] [--output FOLDER]``.
FOLDER has six AIA maps; without it those of the synthetic Sun of 1024² pixels are used. They are copied ``N`` times
with dates two minutes apart, and inverted by `sunpy_deepem.series.invert_series` in one process, which reads the next
set while it inverts one, and in one process per core. Seconds per set are from the times of the files written, without
those of the first sets, so that the start of processes is not counted. CPU seconds are of all threads. A table
extrapolates to a day, a year and a solar cycle at one set every two minutes. Prices are assumptions, see ``--help``.
Leaves ``series.json``.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

_MINUTES = 2
_SPANS = {"a day": 1.0, "a year": 365.25, "a solar cycle of 11 years": 11 * 365.25}
# Sets that are not counted: processes start, and Numba's functions are read from disk.
_FIRST = 4
_SCHEDULERS = {"one process": None, "one process per core": "processes"}


def long_run(days, cpu_seconds, megabytes, *, core_hour, gigabyte_month):
    """
    Return what the inversion of many days costs.

    Parameters
    ----------
    days : `float`
        Length of the series, one set every two minutes.
    cpu_seconds : `float`
        Processor time per set.
    megabytes : `float`
        Size of a cube.
    core_hour, gigabyte_month : `float`
        Prices of computing for an hour on a core, and of storing 10⁹ bytes for a month.

    Returns
    -------
    `dict`
        ``sets``; ``core_hours``; ``terabytes``; ``compute``, the price of the core-hours; and ``storage``, the price
        of storing all cubes for a month.
    """
    sets = round(days * 24 * 60 / _MINUTES)
    hours, terabytes = sets * cpu_seconds / 3600, sets * megabytes / 1e6
    return {
        "sets": sets,
        "core_hours": hours,
        "terabytes": terabytes,
        "compute": hours * core_hour,
        "storage": terabytes * 1e3 * gigabyte_month,
    }


def make_series(paths, folder, n):
    """Copy six files ``n`` times, two minutes apart."""
    import astropy.units as u

    from sunpy_deepem.stack.headers import observation_time
    from sunpy_deepem.utils.fits import headers

    for path in paths:
        header = next(each for each in headers(path) if "WAVELNTH" in each)
        start, content = observation_time(header, path.name), path.read_bytes()
        for step in range(n):
            at = (start + _MINUTES * step * u.min).utc.isot
            copy = dated(content, at, [name for name in ("DATE-OBS", "T_OBS") if name in header])
            (folder / f"aia_{step:05d}_{int(header['WAVELNTH']):04d}.fits").write_bytes(copy)


def dated(content, time_of_copy, names):
    """Return the content of a FITS file with other values of the cards ``names``."""
    from astropy.io import fits

    for name in names:
        start = content.index(f"{name:8s}=".encode())
        card = fits.Card(name, time_of_copy).image.encode()
        content = content[:start] + card + content[start + len(card) :]
    return content


def run(folder, out, scheduler, shape):
    """Invert a folder and return wall and processor time per set, the time of the first sets, and bytes."""
    from sunpy_deepem.series import group_maps, invert_series

    sets = group_maps(folder)
    if scheduler is None:  # the network is loaded, and Numba's functions are read from disk
        invert_series(sets.select(part=(1, len(sets.complete))), out, shape=shape)
    begin, cpu = time.time(), time.process_time()
    report = invert_series(sets, out, scheduler=scheduler, shape=shape)
    cpu = time.process_time() - cpu
    if report.failed:
        raise RuntimeError(str(report))
    written = np.sort([result.path.stat().st_mtime for result in report.done])
    first = min(_FIRST, len(written) - 1)
    return {
        "wall": float(written[-1] - written[first - 1]) / (len(written) - first),
        "first": float(written[first - 1] - begin),
        "cpu": cpu / len(written),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "megabytes": float(np.mean([path.stat().st_size for path in report.paths])) / 1e6,
    }


def rounded_size(cube_path, folder):
    """Return the size in MB of a cube rounded to 1 %, and the processor time to write it."""
    from sunpy_deepem import DEMCube

    cube, path = DEMCube.read(cube_path), folder / "rounded.fits"
    begin = time.process_time()
    cube.write(path, precision=0.01, overwrite=True)
    return {"megabytes": path.stat().st_size / 1e6, "write": time.process_time() - begin}


def measure(args):
    """Run each scheduler in its own process on the same files."""
    from end_to_end import make_files

    found = {}
    with tempfile.TemporaryDirectory(dir=args.output) as folder:
        maps, cubes = Path(folder) / "maps", Path(folder) / "cubes"
        maps.mkdir()
        size = 64 if args.quick else 1024
        paths = sorted(args.maps.glob("*.fits")) if args.maps else make_files(size, args.output / "end_to_end")
        make_series(paths, maps, args.sets)
        for name in _SCHEDULERS:
            command = [sys.executable, __file__, "--case", name, str(maps), str(cubes / name.replace(" ", "_"))]
            done = subprocess.run(
                [*command, "--shape", str(args.shape)], check=True, capture_output=True, text=True, env=os.environ
            )
            found[name] = json.loads(done.stdout.splitlines()[-1])
        rounded = rounded_size(next((cubes / "one_process").glob("*.fits")), Path(folder))
    return found, rounded


def print_tables(found, rounded, args):
    """Print times per set and the costs of long runs."""
    print(f"\n{args.sets} sets to {args.shape}² cubes in files")
    print(f"{'':24s}{'s/set':>8}{f'first {_FIRST}, s':>12}{'720 sets, min':>15}{'CPU s/set':>11}{'peak, GiB':>11}")
    for name, one in found.items():
        day = (one["first"] + 720 * one["wall"]) / 60
        print(f"{name:24s}{one['wall']:8.2f}{one['first']:12.1f}{day:15.1f}", end="")
        # Those of other processes are not known.
        print(f"{one['cpu']:11.2f}{one['peak']:11.2f}" if _SCHEDULERS[name] is None else "")
    lossless = found["one process"]["megabytes"]
    print(
        f"A cube has {lossless:.1f} MB, {rounded['megabytes']:.1f} MB if rounded to 1 % (CPU {rounded['write']:.2f} s)."
    )
    print(f"\nPrices assumed: {args.core_hour:g} per core-hour, {args.gigabyte_month:g} per GB and month")
    titles = "".join(f"{title:>11}" for title in ("TB", "per month", "TB at 1 %", "per month"))
    print(f"{'':28s}{'sets':>10}{'core-hours':>12}{'price':>9}{titles}")
    prices = {"core_hour": args.core_hour, "gigabyte_month": args.gigabyte_month}
    rows = {}
    for name, days in _SPANS.items():
        cpu = found["one process"]["cpu"]
        whole, less = (
            long_run(days, cpu_s, size, **prices)
            for cpu_s, size in ((cpu, lossless), (cpu + rounded["write"], rounded["megabytes"]))
        )
        values = f"{whole['sets']:10d}{whole['core_hours']:12.0f}{whole['compute']:9.0f}{whole['terabytes']:11.2f}"
        print(f"{name:28s}{values}{whole['storage']:11.0f}{less['terabytes']:11.2f}{less['storage']:11.0f}")
        rows[name] = {"lossless": whole, "rounded": less}
    return rows


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("maps", type=Path, nargs="?", help="folder with six AIA maps")
    parser.add_argument("--sets", type=int, default=24)
    parser.add_argument("--shape", type=int, default=512)
    parser.add_argument("--core-hour", type=float, default=0.04, help="price of an hour on a core")
    parser.add_argument("--gigabyte-month", type=float, default=0.02, help="price of storing a GB for a month")
    parser.add_argument("--quick", action="store_true", help="few small sets: shows that it works")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "output")
    parser.add_argument("--case", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        name, maps, cubes = args.case
        print(json.dumps(run(maps, cubes, _SCHEDULERS[name], args.shape)))
        return
    if args.quick:
        args.sets, args.shape = 6, 32
    args.output.mkdir(parents=True, exist_ok=True)
    from machine import describe

    machine = describe()
    print("\n".join(f"{key}: {value}" for key, value in machine.items()))
    found, rounded = measure(args)
    rows = print_tables(found, rounded, args)
    load = [round(value, 2) for value in os.getloadavg()]
    print(f"\nLoad average at the end {load}")
    results = {"machine": machine, "load_at_end": load, "series": found, "rounded": rounded, "long_runs": rows}
    (args.output / "series.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
