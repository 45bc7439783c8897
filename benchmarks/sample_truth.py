"""
The package on the synthetic Sun: recovered against true EM, per bin and per region.

Usage: ``python benchmarks/sample_truth.py [--size 512] [--weights default]``. Maps have twice the size and are binned.
"""

import argparse

import numpy as np

from sunpy_deepem import CHANNELS, invert
from sunpy_deepem.sample import sample_em, sample_maps, sample_regions


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--weights", default="default")
    args = parser.parse_args()
    shape = (args.size, args.size)
    cube = invert(sample_maps((2 * args.size, 2 * args.size)), shape=shape, weights=args.weights)
    truth = sample_em(shape).value
    regions = sample_regions(shape)
    print("mean EM per bin (cm-5): true, recovered, and their ratio, by region\n")
    print("log T " + "".join(f"{name:^30s}" for name in regions))
    for index, log_t in enumerate(cube.log_t):
        row = f"{log_t:5.1f} "
        for region in regions.values():
            true, found = truth[index, region].mean(), cube.data[index, region].mean()
            row += f"{true:10.2e} {found:10.2e} {found / true if true else np.inf:7.2f} "
        print(row)
    print("\nregion            total EM/true  W1 (dex)  d log T   chi2   stated 68 %   (medians; the last is coverage)")
    for name, region in regions.items():
        true, found, std = truth[:, region], cube.data[:, region], cube.uncertainty.array[:, region]
        total = found.sum(axis=0) / true.sum(axis=0)
        cdf = np.cumsum(found / found.sum(axis=0) - true / true.sum(axis=0), axis=0)
        w1 = np.abs(cdf).sum(axis=0) * cube.bins.step
        shift = cube.log_t @ (found / found.sum(axis=0)) - cube.log_t @ (true / true.sum(axis=0))
        major = found > 0.02 * found.sum(axis=0)
        covered = (np.abs(found - true) < std)[major].mean()
        print(
            f"{name:16s}{np.median(total):12.3f}{np.median(w1):12.3f}{np.median(shift):10.3f}"
            f"{np.median(cube.chi2[region]):8.2f}{covered:12.2f}"
        )
    print("\nsynthetic / observed, median    " + "".join(f"{channel:8d}" for channel in CHANNELS))
    ratios = np.array([smap.data for smap in cube.synthesize()]) / cube.intensity.value
    for name, region in regions.items():
        print(f"{name:32s}" + "".join(f"{value:8.3f}" for value in np.nanmedian(ratios[:, region], axis=1)))


if __name__ == "__main__":
    main()
