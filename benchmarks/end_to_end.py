"""
Six files to a cube in a file: time and memory of every stage, and cost per pixel from 256² to 4096².

Usage: ``python benchmarks/end_to_end.py [--sizes 256 512 1024 2048 4096] [--quick] [--output FOLDER]``.
The files are maps of the synthetic Sun as the JSOC delivers them, 16-bit integers with Rice compression, made once and
kept in the output folder. Every case runs in its own process: ``n → n`` streams the cube of all native pixels with its
uncertainty into a FITS file; ``4096 → 512`` makes a cube in memory and writes it. Wall time depends on the load of the
machine, processor time (user and system, all threads) much less; both exclude imports. The start of Python, of the
package and of the command are timed by themselves. Prints tables and leaves ``end_to_end.json`` and ``end_to_end.png``.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np

_SIZES = (256, 512, 1024, 2048, 4096)
# Asked of the package on two idle cores: case, seconds, GiB.
_ASKED = {(4096, 512): (3, 1.5), (4096, 4096): (20, None)}
# Codes to start: name, code and seconds asked.
_STARTS = (
    ("python", "pass", None),
    ("import sunpy_deepem", "import sunpy_deepem", 0.4),
    ("deepem --help", "from sunpy_deepem.cli import main; main(['--help'])", 0.4),
    ("deepem invert (no arguments)", "from sunpy_deepem.cli import main; main(['invert'])", 0.4),
    ("from sunpy_deepem import invert", "from sunpy_deepem import invert", None),
)
_STARTED = 5


class Clock:
    """Wall and processor time by stage."""

    def __init__(self):
        self.stages = {}

    @contextmanager
    def stage(self, name):
        """Add the time of a block to ``name``."""
        before = _now()
        yield
        passed = self.stages.setdefault(name, np.zeros(2))
        passed += np.subtract(_now(), before)


def _now():
    return time.perf_counter(), time.process_time()


def make_files(size, folder):
    """Write the six files of a size unless they are there, and return their paths."""
    import sunpy.map
    from astropy.io import fits

    from sunpy_deepem import CHANNELS
    from sunpy_deepem.sample import sample_maps

    paths = [folder / f"aia_{size}_{channel}.fits" for channel in CHANNELS]
    if not all(path.exists() for path in paths):
        folder.mkdir(parents=True, exist_ok=True)
        for smap, path in zip(sample_maps((size, size)), paths, strict=True):
            counts = np.clip(np.rint(smap.data), -32768, 32767).astype(np.int16)
            sunpy.map.Map(counts, smap.meta).save(path, overwrite=True, hdu_type=fits.CompImageHDU)
    return paths


def run_whole(paths, shape, out):
    """Invert as a user does, and return seconds and peak memory of the process in GiB."""
    from sunpy_deepem import DeepEM, invert

    network = DeepEM.load("default")
    before, memory = _now(), _peak()
    if shape is None:
        invert(paths, weights=network, shape=None, out=out, overwrite=True)
    else:
        invert(paths, weights=network, shape=shape).write(out, overwrite=True)
    wall, cpu = np.subtract(_now(), before)
    return {"wall": wall, "cpu": cpu, "peak": _peak(), "peak_of_imports": memory}


def _peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def run_stages(paths, shape, out):
    """Do the same one stage and band after the other, and return seconds of each stage."""
    import sunpy.map
    from threadpoolctl import threadpool_limits

    from sunpy_deepem import DeepEM
    from sunpy_deepem.cube import DEMCube, Planes
    from sunpy_deepem.cube.fit import evaluate_fit
    from sunpy_deepem.inversion import invert_part
    from sunpy_deepem.io.stream import FitsSink
    from sunpy_deepem.response.temperature_response import TemperatureResponse
    from sunpy_deepem.stack.channel_stack import Observation

    clock, network, response = Clock(), DeepEM.load("default"), TemperatureResponse.default()
    with clock.stage("read"):
        maps = [sunpy.map.Map(path) for path in paths]
        observation = Observation(maps, shape=shape)
    columns = slice(0, observation.shape[1])
    first = invert_part(observation, network, response, slice(0, 1), columns)
    first = DEMCube.from_planes(first, response, observation.header, inputs=observation.inputs)
    with threadpool_limits(limits=1, user_api="blas"), FitsSink(out, first, observation.shape[0]) as file:
        for rows in observation.bands():
            with clock.stage("calibrate, align, bin"):
                stack = observation.part(rows, columns)
            intensity, sigma = stack.intensity.value, stack.uncertainty.value
            with clock.stage("predict"):
                em, std = network.predict(intensity, sigma)
            with clock.stage("compare channels"):
                network.deviation(intensity, sigma)
            with clock.stage("χ², flags"):
                chi2, quality = evaluate_fit(em, stack.intensity, stack.uncertainty, response, stack.quality)
            with clock.stage("write"):
                planes = Planes(em, std, stack.mask, intensity, sigma, chi2, quality, stack.saturation)
                file.write(planes, rows.start)
                file.release()
    return {name: {"wall": wall, "cpu": cpu} for name, (wall, cpu) in clock.stages.items()}


def measure_starts():
    """Return the median wall and processor time of each start, in seconds."""
    times = {name: [] for name, _, _ in _STARTS}
    # The first round fills the caches of the file system.
    for _ in range(_STARTED + 1):
        for name, code, _ in _STARTS:
            before, children = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime + after.ru_stime - children.ru_utime - children.ru_stime
            times[name].append((time.perf_counter() - before, cpu))
    medians = {name: np.median(seconds[1:], axis=0) for name, seconds in times.items()}
    return {name: {"wall": float(wall), "cpu": float(cpu)} for name, (wall, cpu) in medians.items()}


def print_starts(starts):
    """Print the times of starts."""
    print(f"\n{'start of':44s}{'wall, s':>14s}{'CPU, s':>10s}   asked")
    for name, _, asked in _STARTS:
        print(f"    {name:44s}{starts[name]['wall']:10.2f}{starts[name]['cpu']:10.2f}   {asked or ''}")


def measure(what, size, shape, args):
    """Run one case in its own process."""
    command = [sys.executable, __file__, "--case", what, str(size), str(shape or 0), "--output", str(args.output)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def case(what, size, shape, args):
    """Run one case in this process and print its result as JSON."""
    paths = make_files(size, args.output / "end_to_end")
    run = {"whole": run_whole, "stages": run_stages}[what]
    with tempfile.TemporaryDirectory(dir=args.output) as folder:
        print(json.dumps(run(paths, shape or None, Path(folder) / "dem.fits")))


def print_cases(cases):
    """Print totals and cost per pixel."""
    print(f"\n{'maps → cube':>14}{'wall, s':>10}{'CPU, s':>10}{'peak, GiB':>11}{'CPU µs/pixel':>14}   asked")
    for one in cases:
        asked = _ASKED.get((one["maps"], one["cube"]), ())
        words = ", ".join(f"{most} {unit}" for most, unit in zip(asked, ("s", "GiB"), strict=False) if most)
        per_pixel = 1e6 * one["cpu"] / one["cube"] ** 2
        name = f"{one['maps']} → {one['cube']}"
        print(f"{name:>14}{one['wall']:10.2f}{one['cpu']:10.2f}{one['peak']:11.2f}{per_pixel:14.2f}   {words}")


def print_stages(one):
    """Print the stages of a case."""
    print(f"\nStages of {one['maps']} → {one['cube']}, one after the other   wall, s    CPU, s")
    for name, seconds in one["stages"].items():
        print(f"    {name:44s}{seconds['wall']:10.2f}{seconds['cpu']:10.2f}")


def draw(cases, path):
    """Plot the cost per pixel of cubes of native pixels."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    native = [one for one in cases if one["maps"] == one["cube"]]
    sizes = np.array([one["cube"] for one in native])
    fig, axes = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
    bottom = np.zeros(sizes.size)
    names = list(native[0]["stages"])
    for name, color in zip(names, plt.get_cmap("cividis")(np.linspace(0, 0.95, len(names))), strict=True):
        cost = 1e6 * np.array([one["stages"][name]["cpu"] for one in native]) / sizes**2
        axes.bar(np.arange(sizes.size), cost, bottom=bottom, color=color, label=name, width=0.6)
        bottom += cost
    for key, marker in (("cpu", "o"), ("wall", "^")):
        cost = 1e6 * np.array([one[key] for one in native]) / sizes**2
        label = {"cpu": "all at once, processor time", "wall": "all at once, wall time"}[key]
        axes.plot(np.arange(sizes.size), cost, marker, color="black", mfc="white", label=label)
    axes.set_xticks(np.arange(sizes.size), [f"{n}²" for n in sizes])
    axes.set(xlabel="native pixels", ylabel="µs per pixel", title="Six files to a cube with uncertainty in a file")
    axes.set_yscale("log") if bottom.max() > 20 * bottom.min() else axes.set_ylim(0)
    axes.legend(fontsize="small")
    fig.savefig(path, dpi=150)


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=_SIZES)
    parser.add_argument("--quick", action="store_true", help="two small sizes: shows that it works")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "output")
    parser.add_argument("--case", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    if args.case:
        case(args.case[0], int(args.case[1]), int(args.case[2]), args)
        return
    from machine import describe

    machine, cases = describe(), []
    print("\n".join(f"{key}: {value}" for key, value in machine.items()))
    sizes = (64, 128) if args.quick else args.sizes
    for size, shape in [(n, None) for n in sizes] + [(n, 512) for n in sizes if n == max(_SIZES)]:
        make_files(size, args.output / "end_to_end")
        whole, stages = (measure(what, size, shape, args) for what in ("whole", "stages"))
        cases.append({"maps": size, "cube": shape or size, "stages": stages} | whole)
        print_stages(cases[-1])
    print_cases(cases)
    starts = measure_starts()
    print_starts(starts)
    load = [round(value, 2) for value in os.getloadavg()]
    print(f"\nLoad average at the end {load}")
    results = {"machine": machine, "load_at_end": load, "starts": starts, "cases": cases}
    (args.output / "end_to_end.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    draw(cases, args.output / "end_to_end.png")


if __name__ == "__main__":
    main()
