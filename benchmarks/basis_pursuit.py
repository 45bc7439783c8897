"""
Speed and exactness of `BasisPursuit`, compared with demregpy and with SciPy on the same linear programs.

It also prints χ² and the reproduced fraction of 94 Å of the method ``"demregpy"``, beside those of a call of ``dn2dem``
with its default options.

Run as ``python benchmarks/basis_pursuit.py [FOLDER]`` with one thread for the numerical libraries
(``OMP_NUM_THREADS=1``): speeds are per second of CPU time in one process. FOLDER holds level 1.5 AIA images of the six
channels in DN; pixels on the disc and a block of neighbours are taken from them. Without it pixels are synthetic.
"""

import argparse
import time
import warnings
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.time import Time
from scipy.optimize import linprog

from sunpy_deepem import CHANNELS, TemperatureResponse
from sunpy_deepem.analysis import fe_xviii
from sunpy_deepem.calibrate.degradation import degradation_factor
from sunpy_deepem.calibrate.photometry import counts_uncertainty, native_pixels
from sunpy_deepem.methods import BasisPursuit, SolveStatus, get_method
from sunpy_deepem.units import INTENSITY_UNIT

SYSTEMATIC = 0.1
BLOCK = 64
_HOT = 100


def observed_pixels(folder, n, rng):
    """Return intensity and uncertainty, ``(6, ...)``, of random pixels on the disc and of a block at its centre."""
    intensity, uncertainty = {}, {}
    for path in sorted(Path(folder).glob("*.fits")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # astropy repairs header cards of old synoptic images
            with fits.open(path) as hdus:
                hdus[-1].verify("fix")
                header, counts = hdus[-1].header.copy(), hdus[-1].data.astype(float)
        channel = int(header["WAVELNTH"])
        pixels = native_pixels([header["CDELT1"], header["CDELT2"]] * u.arcsec / u.pix)
        factor = header["EXPTIME"] * degradation_factor(channel, Time(header["DATE-OBS"]))
        intensity[channel] = counts / factor
        noise = counts_uncertainty(counts, channel, pixels) / factor
        uncertainty[channel] = np.hypot(noise, SYSTEMATIC * intensity[channel])
    missing = set(CHANNELS) - set(intensity)
    if missing:
        raise SystemExit(f"{folder} must hold FITS files of the channels {CHANNELS}, found none of {sorted(missing)}.")
    images = [np.stack([array[channel] for channel in CHANNELS]) for array in (intensity, uncertainty)]
    y, x = np.indices(counts.shape)
    x0, y0 = header["CRPIX1"] - 1, header["CRPIX2"] - 1
    on_disc = np.flatnonzero(np.hypot(x - x0, y - y0) < header["RSUN_OBS"] / header["CDELT1"])
    chosen = rng.choice(on_disc, n, replace=n > on_disc.size)
    half = BLOCK // 2
    block = (slice(None), slice(int(y0) - half, int(y0) + half), slice(int(x0) - half, int(x0) + half))
    hot = np.argsort(np.nan_to_num(fe_xviii(images[0] << INTENSITY_UNIT).value).ravel())[-_HOT:]
    return {
        f"{_HOT} pixels with the most Fe XVIII": [image.reshape(len(CHANNELS), -1)[:, hot] for image in images],
        f"{n} random pixels on the disc": [image.reshape(len(CHANNELS), -1)[:, chosen] for image in images],
        f"{BLOCK} x {BLOCK} block at disc centre": [image[block] for image in images],
    }


def synthetic_pixels(response, n, rng):
    """Return intensity and uncertainty, ``(6, n)``: quiet Sun, in every other pixel with an active region."""
    log_t = response.bins.centers[:, np.newaxis]
    em = np.zeros((log_t.size, n))
    for center, width, total, share in ((6.05, 0.12, 26.8, 1), (6.4, 0.12, 27.6, 0.5), (6.75, 0.1, 26.8, 0.1)):
        shape = np.exp(-0.5 * ((log_t - rng.normal(center, 0.05, n)) / rng.normal(width, 0.02, n)) ** 2)
        em += 10 ** rng.normal(total, 0.3, n) * (rng.random(n) < share) * shape / shape.sum(axis=0)
    intensity = response.matrix.value @ em
    exposure = np.array([2.9, 2.9, 2.0, 2.0, 2.9, 2.9])
    noise = [
        counts_uncertainty(counts, channel, 16) / t
        for counts, channel, t in zip(intensity * exposure[:, np.newaxis], CHANNELS, exposure, strict=True)
    ]
    uncertainty = np.hypot(noise, SYSTEMATIC * intensity)
    # The systematic part is common to neighbors and mostly within the tolerance, so half of it is added as scatter.
    return intensity + rng.standard_normal(intensity.shape) * np.hypot(noise, 0.5 * SYSTEMATIC * intensity), uncertainty


def timed(function, *arguments):
    """Return the result of ``function`` and its CPU seconds."""
    start = time.process_time()
    result = function(*arguments)
    return result, time.process_time() - start


def linprog_objectives(solver, response, intensity, uncertainty, tolerance):
    """Return the least objective of each pixel by SciPy, scaled as in `BasisPursuit`, shape ``(n,)``."""
    matrix = response.matrix.value @ solver.basis(response.bins)
    row_scale = matrix.max(axis=1, keepdims=True)
    rows, cost = np.vstack([matrix, -matrix]) / np.vstack([row_scale] * 2), np.ones(matrix.shape[1])
    lower, upper = ((intensity + sign * tolerance * uncertainty) / row_scale for sign in (-1, 1))
    objectives = []
    for low, high in zip(lower.T, upper.T, strict=True):
        answer = linprog(cost, rows, np.concatenate([high, -low]) / high.max(), method="highs")
        objectives.append(answer.fun * high.max() if answer.success else np.nan)
    return np.array(objectives)


def plain_dn2dem(intensity, uncertainty, response):
    """Return the EM of a call of ``dn2dem`` with its default options."""
    from demregpy import dn2dem

    bins, em = response.bins, []
    # From 200 pixels on, demregpy starts its own processes. Ones are the default, which version 0.6.2 cannot use.
    for part in np.array_split(np.arange(intensity.shape[1]), -(-intensity.shape[1] // 100)):
        pixels, weights = (array[:, part].T for array in (intensity, uncertainty)), np.ones((part.size, len(bins)))
        arguments = response.matrix.value.T, bins.centers, 10**bins.edges
        with np.errstate(all="ignore"):
            em.append(dn2dem(*pixels, *arguments, dem_norm0=weights, emd_ret=True)[0])
    return np.concatenate(em).T


def fit_line(em, intensity, uncertainty, response):
    """Return χ² and synthetic over observed in 94 Å of EM in words."""
    synthetic = response.matrix.value @ em
    chi2 = np.nanquantile((((synthetic - intensity) / uncertainty) ** 2).mean(axis=0), (0.1, 0.5, 0.9))
    ratio = np.nanmedian(synthetic[0] / intensity[0])
    return f"χ² {chi2[0]:.2f}, {chi2[1]:.2f}, {chi2[2]:.2f} (10, 50, 90 %); {ratio:.2f} of {CHANNELS[0]} Å"


def report(title, intensity, uncertainty, response, arguments, rng):
    """Print the figures for one set of pixels."""
    solver = BasisPursuit()
    solution, seconds = timed(solver.solve, intensity, uncertainty, response)
    speed = solution.status.size / seconds
    print(f"\n{title}")
    print(f"  {'BasisPursuit (HiGHS, warm)':<32} {speed:9.0f} DEM/s")
    for name, n in (("linprog", arguments.linprog), ("demregpy", arguments.demreg)):
        chosen = rng.choice(solution.status.size, min(n, solution.status.size), replace=False)
        pixels = [array.reshape(len(CHANNELS), -1)[:, chosen] for array in (intensity, uncertainty)]
        if name == "linprog":
            tolerance = np.where(solution.status == 0, solution.tolerance, np.nan).ravel()[chosen]
            solved = np.isfinite(tolerance)
            pixels = [array[:, solved] for array in pixels]
            expected, seconds = timed(linprog_objectives, solver, response, *pixels, tolerance[solved])
            difference = np.abs(solution.objective.ravel()[chosen][solved] / expected - 1)
            note = f"largest relative difference of the objective {np.max(difference):.1e} in {difference.size} pixels"
        else:
            try:
                answer, seconds = timed(get_method("demregpy").solve, *pixels, response)
            except ImportError as error:
                print(f"  {error}")
                continue
            note = f"status {counted(answer.status)}"
            print(f"  {'demregpy, this package':<32} {fit_line(answer.em, *pixels, response)}")
            print(f"  {'demregpy, plain call':<32} {fit_line(plain_dn2dem(*pixels, response), *pixels, response)}")
        other = pixels[0].shape[1] / seconds
        print(f"  {name:<32} {other:9.0f} DEM/s, BasisPursuit is {speed / other:.1f} times as fast; {note}")
    print(f"  status: {counted(solution.status)}")
    used, counts = np.unique(solution.tolerance[solution.status == 0], return_counts=True)
    print("  tolerance: " + ", ".join(f"{value:.3g} sigma {count}" for value, count in zip(used, counts, strict=True)))


def counted(status):
    """Return the names of the statuses with the number of pixels of each."""
    values, counts = np.unique(status, return_counts=True)
    return ", ".join(f"{SolveStatus(value).name} {count}" for value, count in zip(values, counts, strict=True))


def main():
    """Read the arguments and report on each set of pixels."""
    parser = argparse.ArgumentParser(description="Speed and exactness of basis pursuit.")
    parser.add_argument("folder", nargs="?", help="folder with level 1.5 AIA images of the six channels, in DN")
    parser.add_argument("--pixels", type=int, default=20000, help="pixels for BasisPursuit (default: %(default)s)")
    parser.add_argument("--linprog", type=int, default=500, help="pixels for linprog (default: %(default)s)")
    parser.add_argument("--demreg", type=int, default=1000, help="pixels for demregpy (default: %(default)s)")
    arguments = parser.parse_args()
    rng = np.random.default_rng(2014)
    response = TemperatureResponse.default()
    if arguments.folder:
        samples = observed_pixels(arguments.folder, arguments.pixels, rng)
    else:
        samples = {f"{arguments.pixels} synthetic pixels": synthetic_pixels(response, arguments.pixels, rng)}
    for title, (intensity, uncertainty) in samples.items():
        report(title, intensity, uncertainty, response, arguments, rng)


if __name__ == "__main__":
    main()
