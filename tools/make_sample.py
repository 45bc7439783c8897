"""
Make the packaged sample: six AIA files of a full disk, binned and compressed.

Usage: ``python tools/make_sample.py FOLDER [--output FOLDER]``. FOLDER holds the six synoptic level 1.5 files of
2014-01-01 00:00 UT, 1024 × 1024 pixels in DN (AIA20140101_0000_0094.fits to ..._0335.fits), from
http://jsoc.stanford.edu/data/aia/synoptic/2014/01/01/H0000/.

A pixel of the sample holds the mean of 4 × 4 pixels, rounded to steps of 1/64 DN. Counts
remain counts: the exposure time and all other cards are kept, so that the sample needs the calibration that the files
need.
"""

import argparse
from pathlib import Path

import astropy.units as u
import numpy as np
import sunpy.map
from astropy.io import fits

from sunpy_deepem.stack.maps import load_maps, one_of_each
from sunpy_deepem.units import SATURATION

PACKAGED = Path(__file__).resolve().parents[1] / "sunpy_deepem" / "data" / "aia_20140101"
BLOCK = 4
# The error of rounding, 0.0045 DN, is 2 % of the noise of a pixel without signal, 0.19 DN
STEP = 0.015625
# Statistics of the data before binning, and cards of the compression that astropy writes anew
STALE = {"DATAMIN", "DATAMAX", "DATAMEDN", "DATAMEAN", "DATARMS", "DATASKEW", "DATAKURT", "DATAVALS", "TOTVALS"}
STORAGE = {"BSCALE", "BZERO", "BLANK", "CHECKSUM", "DATASUM"}


def binned(smap):
    """Return the map binned by `BLOCK`; a block with missing or saturated pixels is not averaged."""
    if not np.isfinite(smap.data).all():
        raise ValueError(f"The map of {smap.wavelength} has missing pixels, which integers cannot store.")

    def mean_of_valid(blocks, axis):
        highest = blocks.max(axis=axis)
        # The mean of a saturated pixel and its neighbors would look valid
        return np.where(highest >= SATURATION, highest, blocks.mean(axis=axis))

    return smap.superpixel([BLOCK, BLOCK] * u.pix, func=mean_of_valid)


def file_of(smap):
    """Return a compressed image of the map with its header."""
    image = fits.CompImageHDU(smap.data.astype(float), compression_type="RICE_1")
    for card in smap.fits_header.cards:
        absent = isinstance(card.value, str) and card.value.strip() in ("", "nan")
        if card.keyword not in image.header and card.keyword not in STALE | STORAGE and not absent:
            image.header.append(card)
    image.header["HISTORY"] = f"Mean of {BLOCK} x {BLOCK} pixels, in steps of {STEP} DN, by tools/make_sample.py"
    image.scale("int32", bscale=STEP)
    return fits.HDUList([fits.PrimaryHDU(), image])


def make_sample(folder, output):
    """Write the sample and print its size."""
    output.mkdir(exist_ok=True)
    sources = sorted(folder.glob("*.fits"))
    one_of_each(load_maps(sources))
    for source in sources:
        smap, path = sunpy.map.Map(source), output / source.name
        file_of(binned(smap)).writeto(path, overwrite=True, checksum=True)
        rounding = np.abs(sunpy.map.Map(path).data - binned(smap).data).max()
        print(f"{path.name}: {path.stat().st_size} bytes, largest error {rounding:.4f} DN")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, default=PACKAGED)
    args = parser.parse_args()
    make_sample(args.folder, args.output)
