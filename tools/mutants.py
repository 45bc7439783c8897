"""
Break the package in one place at a time and see whether a test notices.

Usage: ``python tools/mutants.py [WORD ...]``, from anywhere, in an environment in which the tests run. Each mutant is a
line of the package that is changed in a copy of it; only the tests that are named beside it are run on the copy. Prints
a line for each mutant, those that survived at the end, and ends with their number as exit status. With words only the
mutants in files of which the name holds one of them are tried.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "sunpy_deepem"
LIMIT = 300  # seconds for the tests of a mutant


class Mutant(NamedTuple):
    """What to change where, and the tests that should notice."""

    file: str
    old: str
    new: str
    tests: str


STACK = "test_stack.py test_calibrated_stack.py"
MUTANTS = [
    # Calibration: noise, exposure, degradation, flags
    Mutant(
        "stack.py",
        "np.hypot(sigma, np.float32(self._systematic) * intensity, out=sigma)",
        "np.add(sigma, np.float32(self._systematic) * intensity, out=sigma)",
        STACK,
    ),
    Mutant(
        "stack.py",
        'np.float32(self._channels[index].exposure * self.inputs[index]["degradation"])',
        "np.float32(self._channels[index].exposure)",
        STACK,
    ),
    Mutant("stack.py", "where=~(sigma > 0)", "where=sigma < 0", STACK),
    Mutant("stack.py", "native_pixels(self._scale) * binned.valid_share", "native_pixels(self._scale)", STACK),
    Mutant("stack.py", "np.maximum(saturation[here], saturated", "np.minimum(saturation[here], saturated", STACK),
    Mutant("stack.py", "np.hypot(*shift) > 1", "np.hypot(*shift) > 100", STACK),
    Mutant("stack.py", "_flagged(~self._inside[rows", "_flagged(self._inside[rows", "test_inversion.py::TestRegion"),
    Mutant("stack.py", "(nx * multiple))) * multiple", "(nx * multiple)))", "test_streaming.py"),
    Mutant("_counts.py", "smap.data >= SATURATION / to_counts", "smap.data >= SATURATION", STACK),
    Mutant("_counts.py", "_MIN_VALID = 0.5", "_MIN_VALID = 0.0", STACK),
    Mutant("_counts.py", "max(0, first - length) : last + length", "first:last", STACK),
    Mutant("_counts.py", "_BLOOMING_RUN = 5", "_BLOOMING_RUN = 9", STACK),
    Mutant(
        "_counts.py",
        "np.sqrt(_area_sum(np.where(valid, counts.noise, 0) ** 2, overlaps)) / weight",
        "_area_sum(np.where(valid, counts.noise, 0), overlaps) / weight",
        STACK,
    ),
    Mutant(
        "_counts.py",
        "_area_sum(np.where(valid, counts.values, 0), overlaps) / weight",
        "_area_sum(np.where(valid, counts.values, 0), overlaps) / area",
        STACK,
    ),
    Mutant("_counts.py", "np.sqrt(onto(counts.noise**2) / averaged)", "np.sqrt(onto(counts.noise**2))", STACK),
    Mutant("_counts.py", "registered(_filled(whole.values, bad), 3", "registered(whole.values, 3", STACK),
    Mutant("_counts.py", "_ALIGNMENT_TOLERANCE = 0.1", "_ALIGNMENT_TOLERANCE = 10", STACK),
    Mutant("_counts.py", "if averaged > 1.02", "if averaged > 1e9", STACK),
    # Grids
    Mutant("_grid.py", "return max(channels, key=", "return min(channels, key=", STACK),
    Mutant("_grid.py", "(np.array(reference) + 0.5) / [fx, fy] - 0.5", "np.array(reference) / [fx, fy]", STACK),
    Mutant("_grid.py", "[[1, fy / fx], [fx / fy, 1]]", "[[1, fx / fy], [fy / fx, 1]]", STACK),
    Mutant(
        "_grid.py",
        'header["crpix1"] - columns.start',
        'header["crpix1"] + columns.start',
        "test_inversion.py::TestRegion",
    ),
    Mutant("_grid.py", "np.floor(points.min() + 0.5", "np.ceil(points.min() + 0.5", "test_inversion.py::TestRegion"),
    # Responses
    Mutant(
        "response.py",
        "np.interp(fine, log_t, curve).mean(axis=1)",
        "np.interp(fine, log_t, curve).max(axis=1)",
        "test_response.py",
    ),
    Mutant("response.py", "_POINTS_PER_BIN = 100", "_POINTS_PER_BIN = 1", "test_response.py"),
    Mutant(
        "response.py",
        'response[CHANNELS.index(94)] += table["chiantifix_94"]',
        'response[CHANNELS.index(131)] += table["chiantifix_94"]',
        "test_response.py",
    ),
    Mutant(
        "response.py",
        "response = response * factors[:, np.newaxis]",
        "response = response / factors[:, np.newaxis]",
        "test_response.py",
    ),
    Mutant(
        "response.py",
        "calibration.degradation_factor(channel, obstime, table=correction)",
        "calibration.degradation_factor(171, obstime, table=correction)",
        "test_response_aiapy.py",
    ),
    Mutant("response.py", "_chiantifix(temperature) * factor", "_chiantifix(temperature)", "test_response_aiapy.py"),
    Mutant("response.py", "self.bins.edges[0] < log_t[0] or", "self.bins.edges[0] < log_t[0] and", "test_response.py"),
    # The network
    Mutant(
        "network.py",
        "good = finite & torch.isfinite(uncertainty)",
        "good = finite",
        "test_network.py",
    ),
    Mutant(
        "network.py", "(finite & ~(uncertainty > 0)).sum()", "(finite & (uncertainty < 0)).sum()", "test_network.py"
    ),
    Mutant("network.py", ".clamp(*_LEVELS)", "", "test_network.py"),
    Mutant("network.py", "_RESPONSE_TOLERANCE = 1e-3", "_RESPONSE_TOLERANCE = 1e3", "test_network.py"),
    Mutant("layers.py", "outputs += last.bias[:n_outputs, None]", "pass", "test_network.py"),
    Mutant("network.py", "(root * root.abs() if self.training else root**2)", "root**2", "test_training.py"),
    Mutant("_tensors.py", "        torch.set_num_threads(threads)\n", "        pass\n", "test_network.py"),
    Mutant(
        "network.py", "for layer in list(reduced.layers)[1:]:", "for layer in list(reduced.layers):", "test_network.py"
    ),
    Mutant("network.py", "reduced = copy.deepcopy(module)", "reduced = module", "test_network.py"),
    Mutant("_tensors.py", "after_in_child=_threads.cache_clear", "after_in_child=int", "test_network.py"),
    Mutant("_tensors.py", "if threads == 1:", "if threads == 0:", "test_network.py"),
    Mutant("consistency.py", "layer.weight *= mask[:, :, None, None]", "pass", "test_consistency.py"),
    # Refinement
    Mutant("refinement.py", "row[0] += noise", "pass", "test_refinement.py"),
    Mutant("refinement.py", "_LEAST_GAIN = 0.99", "_LEAST_GAIN = 0.5", "test_refinement.py"),
    Mutant("refinement.py", "result[:, pixels[~going]] = current[:, ~going]", "pass", "test_refinement.py"),
    Mutant(
        "refinement.py",
        "em_std *= torch.where(better & (current > 0)",
        "torch.where(better & (current > 0)",
        "test_refinement.py",
    ),
    Mutant("refinement.py", "inputs[1].clone() if em_std is out else inputs[1]", "inputs[1]", "test_refinement.py"),
    # The forward model
    Mutant("forward.py", "np.mean(residual**2, axis=0)", "np.sum(residual**2, axis=0)", "test_forward.py"),
    Mutant(
        "forward.py",
        "intensity * np.reshape(degradation",
        "intensity / np.reshape(degradation",
        "test_products.py",
    ),
    Mutant("forward.py", 'else "DN / s"}', 'else "DN"}', "test_forward.py"),
    Mutant("forward.py", '"exptime": observation["exposure_time"]', '"exptime": 1.0', "test_forward.py test_cube.py"),
    # Cubes
    Mutant("cube.py", 'return float(observation["degradation"])', "return 1.0", "test_cube.py test_products.py"),
    Mutant(
        "cube.py",
        "share = ((end - begin) / self.bins.step).round(9)",
        "share = (end > begin).astype(float)",
        "test_products.py",
    ),
    Mutant(
        "cube.py",
        "np.sqrt(np.tensordot(share[part] ** 2, std[part] ** 2, axes=1))",
        "np.tensordot(share[part], std[part], axes=1)",
        "test_products.py",
    ),
    Mutant("cube.py", 'log_t, side="right")', 'log_t, side="left")', "test_products.py test_cube.py"),
    Mutant("cube.py", "depth.to_value(u.cm) * filling_factor", "depth.to_value(u.cm)", "test_products.py"),
    Mutant("_derived.py", "+ bins.step**2 / 12", "", "test_products.py"),
    Mutant(
        "_derived.py",
        "np.sqrt(total / (hydrogen_ratio * depth))",
        "np.sqrt(total * hydrogen_ratio / depth)",
        "test_products.py",
    ),
    Mutant("_derived.py", "may_be = em + std >= least", "may_be = em >= least", "test_products.py"),
    Mutant(
        "_derived.py",
        "(10**end - 10**begin) / (np.log(10) * bins.step)",
        "10 ** ((begin + end) / 2)",
        "test_products.py",
    ),
    Mutant("_operations.py", "np.sqrt(mean(noise) / n", "np.sqrt(mean(noise)", "test_cube_operations.py"),
    Mutant("_operations.py", "_EDGE_SHARE = 0.25", "_EDGE_SHARE = 0.5", "test_cube.py"),
    Mutant("_operations.py", "block_reduce(mean(std) ** 2,", "block_reduce(mean(std**2),", "test_cube_operations.py"),
    Mutant(
        "_operations.py", "(wcs.wcs.crpix - 0.5) / factors + 0.5", "wcs.wcs.crpix / factors", "test_cube_operations.py"
    ),
    Mutant("_operations.py", "np.hypot(*terms) if", "sum(terms) if", "test_cube_operations.py"),
    Mutant("_operations.py", " | ~(share >= _MIN_VALID)", "", "test_cube_operations.py"),
    Mutant(
        "_operations.py",
        "cube.intensity_uncertainty.value * np.abs(number)",
        "cube.intensity_uncertainty.value * number",
        "test_cube_operations.py",
    ),
    Mutant(
        "_operations.py", "sign * to_unit * other.values.value", "sign * other.values.value", "test_cube_operations.py"
    ),
]


def survives(mutant, copy, left_out):
    """Whether the tests pass on the copy with the mutant in it."""
    path = copy / PACKAGE / mutant.file
    source = path.read_text(encoding="utf-8")
    if source.count(mutant.old) != 1:
        msg = f"{mutant.file} must hold {mutant.old!r} once, found it {source.count(mutant.old)} times."
        raise ValueError(msg)
    path.write_text(source.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        return not failures(mutant.tests, copy, ["-x", *(f"--deselect={test}" for test in left_out)])
    except subprocess.TimeoutExpired:
        return False
    finally:
        path.write_text(source, encoding="utf-8")


def failures(tests, copy, options):
    """Return the names of the tests, of files of them or of parts of those, that fail on the copy."""
    # Of the options of pytest.ini without those that collect the documentation's examples and compare figures.
    options = ["-q", "-rfE", "-p", "no:cacheprovider", "-p", "no:unraisableexception", *options]
    options += ["-c", ROOT / "pytest.ini", "-o", "addopts=", "--rootdir", ROOT]
    paths = [str(copy), *filter(None, [os.environ.get("PYTHONPATH")])]
    run = subprocess.run(
        # -P, lest the package be found here rather than in the copy.
        [sys.executable, "-P", "-m", "pytest", *options, *(f"tests/{name}" for name in tests.split())],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "1000"},
        capture_output=True,
        timeout=LIMIT,
        check=False,
        text=True,
    )
    # Status 1 is that of a test that failed, 2 of one that cannot be imported; others mean that nothing was tested.
    if run.returncode not in (0, 1, 2):
        msg = f"{tests} did not run:\n{run.stdout[-2000:]}"
        raise RuntimeError(msg)
    failed = re.findall(r"^(?:FAILED|ERROR) (.*?)(?: - .*)?$", run.stdout, re.MULTILINE)
    return failed or ["an unnamed one"] * run.returncode


def main(words):
    """Try the mutants and tell which survive."""
    chosen = [mutant for mutant in MUTANTS if not words or any(word in mutant.file for word in words)]
    survivors = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        shutil.copytree(ROOT / PACKAGE, copy / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
        # A test that fails on the package as it is tells nothing of a mutant.
        left_out = {tests: failures(tests, copy, []) for tests in dict.fromkeys(mutant.tests for mutant in chosen)}
        for test in sorted({test for tests in left_out.values() for test in tests}):
            print(f"left out, as it fails anyway: {test}", flush=True)
        for mutant in chosen:
            alive = survives(mutant, copy, left_out[mutant.tests])
            survivors += [mutant] * alive
            word = "SURVIVED" if alive else "killed  "
            print(f"{word}  {mutant.file}: {mutant.old.strip()} -> {mutant.new.strip()}", flush=True)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} mutants killed.")
    return len(survivors)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
