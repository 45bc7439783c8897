"""
An archive of a series: its size, its errors, and the time to write it and to read light curves from it.

Usage: ``python benchmarks/archive.py [FOLDER] [--sets N] [--written N] [--shape N] [--quick] [--output FOLDER]``.
FOLDER has six AIA maps; without it those of the synthetic Sun are used. They are inverted as they are and, up to
``--written`` times, with photon noise added to theirs, and appended to an archive at a precision of 1 %, by one thread.
The other times of the ``--sets`` are links to these files, so that a light curve reads and decodes as many bytes as of
as many cubes, from memory. Light curves are of a square of 100″ at the center of the disc, and of all pixels. Errors
are the largest of all values above 10⁻⁴ of the total EM of their pixel. Leaves ``archive.json``.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np

_MINUTES = 2
_BAND = (6.6, 7.0)
_SQUARE = 100
# Light curves that take long per set are of fewer sets.
_FEW = 72


def noisy_cubes(maps, shape, n):
    """Yield the cube of maps, then cubes of the maps with added photon noise."""
    import sunpy.map

    from sunpy_deepem import DeepEM, invert

    network, rng = DeepEM.load(), np.random.default_rng(0)
    yield invert(maps, shape=shape, weights=network)
    for _ in range(n - 1):
        noisy = []
        for smap in maps:
            # A pixel is the mean of native ones; the gain is about 1 DN per photon.
            native = max(1.0, (smap.scale[0].value / 0.6) ** 2)
            noise = rng.normal(0, np.sqrt(np.maximum(smap.data, 1) / native))
            noisy.append(sunpy.map.Map((smap.data + noise).astype(np.float32), smap.meta))
        yield invert(noisy, shape=shape, weights=network)


def errors(found, cube):
    """Return the largest relative errors, and whether masks, flags and NaN are equal."""
    floor = 1e-4 * np.nansum(cube.data, axis=0)

    def largest(one, other, smallest):
        with np.errstate(invalid="ignore", divide="ignore"):
            return float(np.nanmax(np.abs(one / other - 1)[other > smallest]))

    g, again = cube.intensity.value, found.intensity.value
    exact = [
        np.array_equal(np.isnan(found.data), np.isnan(cube.data)),
        np.array_equal(found.mask, cube.mask),
        np.array_equal(found.quality, cube.quality),
        np.array_equal(found.meta["saturation"], cube.meta["saturation"]),
    ]
    return {
        "em": largest(found.data, cube.data, floor),
        "std": largest(found.uncertainty.array, cube.uncertainty.array, floor),
        "intensity": float(np.nanmax(np.abs(again - g) / np.hypot(g, 0.1))),
        "sigma": largest(found.intensity_uncertainty.value, cube.intensity_uncertainty.value, 0),
        "exact": all(exact),
    }


def write(path, cubes, start):
    """Append cubes and return seconds, processor seconds and errors of each."""
    import astropy.units as u

    from sunpy_deepem.io import DEMArchive

    archive, rows = None, []
    for index, cube in enumerate(cubes):
        archive = archive or DEMArchive.create(path, cube.data.shape[1:], cube.bins)
        before, cpu = time.perf_counter(), time.process_time()
        archive.append(cube, time=start + _MINUTES * index * u.min)
        seconds = {"wall": time.perf_counter() - before, "cpu": time.process_time() - cpu}
        begin = time.perf_counter()
        found = archive[index]
        rows.append(seconds | {"read": time.perf_counter() - begin} | errors(found, cube))
    return rows


def lengthen(path, start, written, n):
    """Add times whose files are links to those that were written, in turn."""
    import astropy.units as u
    import zarr

    from sunpy_deepem.io import DEMArchive

    DEMArchive(path).reserve([start + _MINUTES * index * u.min for index in range(n)])
    shards = [file for file in path.glob("*/c.*") if file.parent.name not in ("time", "complete")]
    for shard in shards:
        _, slot, *rest = shard.name.split(".")
        for index in range(int(slot) + written, n, written):
            os.link(shard, shard.with_name(".".join(["c", str(index), *rest])))
    zarr.open_group(path)["complete"][:] = True


def light_curves(path, few):
    """Return the seconds of light curves and the number of their sets, by name."""
    from sunpy_deepem.series import DEMCubeSequence

    sequence = DEMCubeSequence.read(path)
    ny, nx = sequence[0].data.shape[1:]
    half = max(1, round(_SQUARE / 2 / abs(sequence[0].sky_header["cdelt1"])))
    square = np.zeros((ny, nx), dtype=bool)
    square[ny // 2 - half : ny // 2 + half, nx // 2 - half : nx // 2 + half] = True
    northern = np.zeros((ny, nx), dtype=bool)
    northern[ny // 2 :] = True
    cases = {
        "band of a square": (sequence, square, {"draws": False}),
        "band of all pixels": (sequence, None, {"draws": False}),
        "band of half the pixels": (sequence[:few], northern, {"draws": False}),
        "band of a rotating square": (sequence[:few], square, {"draws": False, "follow_rotation": True}),
        "square with intervals": (sequence[:few], square, {}),
    }
    rows = {}
    for name, (cubes, region, options) in cases.items():
        # Numba compiles what it has not compiled before.
        cubes[:1].light_curve(region, bands=[_BAND], **options)
        before, cpu = time.perf_counter(), time.process_time()
        curve = cubes.light_curve(region, bands=[_BAND], **options)
        rows[name] = {"sets": len(curve), "wall": time.perf_counter() - before, "cpu": time.process_time() - cpu}
    return rows


def sizes(path, n):
    """Return megabytes of each set and files per set."""
    found = [[*path.glob(f"*/c.{index}"), *path.glob(f"*/c.{index}.*")] for index in range(n)]
    found = [[file for file in files if file.parent.name not in ("time", "complete")] for files in found]
    return [sum(file.stat().st_size for file in files) / 1e6 for files in found], max(map(len, found))


def report(rows, curves, megabytes, files):
    """Return lines of what was measured and asked."""
    worst = {name: max(row[name] for row in rows) for name in ("em", "std", "intensity", "sigma")}
    # The first append imports and creates.
    timed = rows[1:] or rows
    middle = {name: float(np.median([row[name] for row in timed])) for name in ("wall", "cpu", "read")}
    lines = [("MB of the maps as they are", f"{megabytes[0]:.2f}", "≤ 8 at 512²")]
    lines += [("MB with added noise, median", f"{np.median(megabytes[1:]):.2f}", ""), ("files per set", f"{files}", "")]
    lines += [(f"largest error of {name}", f"{100 * worst[name]:.3f} %", "≤ 5 %") for name in ("std", "sigma")]
    lines += [(f"largest error of {name}", f"{100 * worst[name]:.3f} %", "≤ 1 %") for name in ("em", "intensity")]
    lines.append(("mask, flags, saturation and NaN exact", str(all(row["exact"] for row in rows)), "True"))
    lines.append(("write a set, median", f"{middle['wall']:.2f} s, CPU {middle['cpu']:.2f} s", "≤ 0.5 s at 512²"))
    lines.append(("read a whole set, median", f"{middle['read']:.2f} s", ""))
    for name, row in curves.items():
        asked = "≤ 5 s for 720 sets" if name in ("band of a square", "band of all pixels") else ""
        per_set = 1e3 * row["wall"] / row["sets"]
        text = f"{row['wall']:.2f} s, CPU {row['cpu']:.2f} s, {row['sets']} sets, {per_set:.1f} ms a set"
        lines.append((f"light curve, {name}", text, asked))
    return lines


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="folder with six full-disc AIA maps")
    parser.add_argument("--sets", type=int, default=720, help="times of the archive")
    parser.add_argument("--written", type=int, default=6, help="cubes that are inverted and written")
    parser.add_argument("--shape", type=int, default=512, help="pixels along a side of a cube")
    parser.add_argument("--quick", action="store_true", help="few small sets: shows that it works")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "output")
    args = parser.parse_args()
    if args.quick:
        args.sets, args.written, args.shape = 6, 2, 64
    import logging
    import warnings

    import sunpy.map
    from astropy.time import Time
    from machine import describe

    from sunpy_deepem.sample import sample_maps

    logging.getLogger("sunpy_deepem").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message="Numcodecs codecs")
    args.output.mkdir(parents=True, exist_ok=True)
    size = 2 * args.shape
    maps = sunpy.map.Map(sorted(args.folder.glob("*.fits"))) if args.folder else sample_maps((size, size))
    machine, start = describe(), Time("2014-01-01T00:00:00")
    print("\n".join(f"{key}: {value}" for key, value in machine.items()))
    with tempfile.TemporaryDirectory(dir=args.output) as folder:
        path = Path(folder) / "series.zarr"
        rows = write(path, noisy_cubes(maps, args.shape, args.written), start)
        megabytes, files = sizes(path, args.written)
        lengthen(path, start, args.written, args.sets)
        curves = light_curves(path, min(_FEW, args.sets))
    lines = report(rows, curves, megabytes, files)
    print(f"\n{args.written} sets of {args.shape}² written, light curves of the EM at log T {_BAND[0]} to {_BAND[1]}\n")
    for what, found, asked in lines:
        print(f"{what:40s} {found:50s} {asked}".rstrip())
    results = {"machine": machine, "sets": rows, "light_curves": curves, "megabytes": megabytes, "files": files}
    (args.output / "archive.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
