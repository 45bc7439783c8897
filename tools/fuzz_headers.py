"""
Change one header card of one map to a hostile value, many times, and report what becomes of the inversion.

Usage: ``python tools/fuzz_headers.py [--n 10000] [--seed 0] [--seconds 600]``

Each change must end in one of three ways: an answer that differs by less than one percent from that of the unchanged
maps, an error of the package that names the card, or a warning or quality flag. Everything else is listed, and the exit
status is then 1.
"""

import argparse
import re
import sys
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

import astropy.units as u
import numpy as np
import sunpy.map
from astropy.wcs import FITSFixedWarning

from sunpy_deepem import ChannelStack, DeepEM, invert
from sunpy_deepem.sample import real_maps

PACKAGE = str(Path(__file__).resolve().parents[1] / "sunpy_deepem")
#: Cards that the package reads, by itself or through SunPy.
CARDS = (
    *(
        "INSTRUME",
        "TELESCOP",
        "DETECTOR",
        "OBSRVTRY",
        "CONTENT",
        "WAVELNTH",
        "WAVEUNIT",
        "LVL_NUM",
        "BUNIT",
        "PIXLUNIT",
    ),
    *("EXPTIME", "XPOSURE", "TIMEUNIT", "TIMESYS", "DATE-OBS", "DATE_OBS", "DATE-BEG", "DATE-AVG", "DATE-END", "T_OBS"),
    *("CTYPE1", "CTYPE2", "CUNIT1", "CUNIT2", "CRPIX1", "CRPIX2", "CRVAL1", "CRVAL2", "CDELT1", "CDELT2", "CROTA2"),
    *("PC1_1", "PC1_2", "PC2_1", "PC2_2", "CD1_1", "CD1_2", "CD2_1", "CD2_2", "PV1_1", "PV2_1", "LONPOLE", "LATPOLE"),
    *(
        "A_ORDER",
        "B_ORDER",
        "CPDIS1",
        "WCSAXES",
        "NAXIS1",
        "NAXIS2",
        "RSUN_REF",
        "RSUN_OBS",
        "R_SUN",
        "SOLAR_R",
        "RADIUS",
    ),
    *("DSUN_OBS", "HGLN_OBS", "HGLT_OBS", "CRLN_OBS", "CRLT_OBS", "HAEX_OBS", "HAEY_OBS", "HAEZ_OBS"),
)
#: Values of every type and size.
VALUES = (
    *(None, True, False, 0, 0.0, -1, 1, 2, 3, 1.5, -1.5, 1e-300, 1e300, -1e300, 1e30, -1e30, 1e5, 10**400),
    *(np.nan, np.inf, -np.inf, "nan", "NaN", "", " ", "0", "1.5", "abc", "MISSING", "None", "<script>", "é", "x" * 80),
    *("2014-01-01", "2014/01/01", "2031-01-01T00:00:00", "1900-01-01", "2014-13-45", "2014.01.01_00:00:00_TAI"),
    *("DN", "K", "DN/s", "ms", "h", "deg", "nm", "m", "HPLN-TAN", "HPLT-TAN", "RA---TAN", "HPLN-TAN-SIP", "HPLN-ZPN"),
    *("CRLN-CAR", "TAI", "UTC", "HMI", "AIA_5", 171, 304, 17.1, 90.0, 180.0, 360.0, -90.0, 1e11, 1.5e11, 7e8),
)

_PROPERTIES = (
    *("solar WCS", "must show the Sun", "observers", "maps span", "field of view", "degradation", "foreign", "is in "),
    *("rectangular pixels", "more than once"),
)


def changed_maps(maps, index, card, value):
    """Return the maps, of which one has another card; a value of `None` removes it."""
    header = dict(maps[index].meta)
    header.pop(card.lower(), None)
    if value is not None:
        header[card.lower()] = value
    return [sunpy.map.Map(smap.data, header) if i == index else smap for i, smap in enumerate(maps)]


def outcome(maps, index, card, value, net, expected):
    """Return the kind of an outcome and, if it is bad, a description."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warnings.simplefilter("ignore", FITSFixedWarning)
            try:
                changed = changed_maps(maps, index, card, value)
            except Exception as error:  # of SunPy, before the package sees the map
                return "refused by SunPy", None, error
            stack = ChannelStack.from_maps(changed, shape=None)
            if _same_input(stack, expected[0]):
                return "same answer", None, None
            cube = invert(changed, weights=net, shape=None)
    except (ValueError, TypeError, OSError) as error:
        return _of_error(error, card)
    except Exception as error:
        return "foreign error", f"{type(error).__name__}: {error}", error
    if _alike(cube, expected[1]):
        return "same answer", None, None
    if caught:
        return "warning", None, None
    return "silent change", _difference(cube, expected[1]), None


def _same_input(stack, expected):
    """Return whether a method gets the same input, and so gives the same answer."""
    pairs = ((stack.intensity, expected.intensity), (stack.uncertainty, expected.uncertainty))
    return all(a.shape == b.shape and np.allclose(a, b, rtol=1e-5, equal_nan=True) for a, b in pairs)


def _of_error(error, card):
    last = traceback.extract_tb(error.__traceback__)[-1].filename
    message = str(error)
    if not last.startswith(PACKAGE):
        return "foreign error", f"{type(error).__name__}: {message}", error
    # The card, or the property of the map that follows from it.
    words = (card, *_PROPERTIES)
    if any(re.search(re.escape(word), message, re.IGNORECASE) for word in words):
        return "clear error", None, None
    return "unclear error", message, None


def _alike(cube, expected):
    if cube.data.shape != expected.data.shape:
        return False
    here, there = (np.nansum(each.data, axis=0) for each in (cube, expected))
    return bool((np.abs(here / there - 1) < 0.01).all())


def _difference(cube, expected):
    if cube.data.shape != expected.data.shape:
        return f"shape {cube.data.shape}"
    ratio = np.nansum(cube.data, axis=0) / np.nansum(expected.data, axis=0)
    return f"total EM × {np.median(ratio):.3g}, from {ratio.min():.3g} to {ratio.max():.3g}"


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--n", type=int, default=10_000, help="Number of changes.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=np.inf, help="Stop after this time.")
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    full = list(real_maps())
    maps, net = [smap.superpixel(u.Quantity(smap.dimensions) / 64) for smap in full], DeepEM.load()
    expected = ChannelStack.from_maps(maps, shape=None), invert(maps, weights=net, shape=None)
    # All pairs of cards and values first, in random order, then again for other channels.
    pairs = [(card, value) for card in CARDS for value in VALUES]
    order = np.concatenate([rng.permutation(len(pairs)) for _ in range(-(-args.n // len(pairs)))])[: args.n]
    counts, bad, start = Counter(), [], time.monotonic()
    for number in order:
        if time.monotonic() - start > args.seconds:
            break
        (card, value), index = pairs[number], int(rng.integers(len(maps)))
        kind, description, error = outcome(maps, index, card, value, net, expected)
        counts[kind] += 1
        if description is not None:
            where = "" if error is None else f" in {traceback.extract_tb(error.__traceback__)[-1].filename}"
            bad.append(f"{kind}: {card} = {value!r} of {maps[index].wavelength:g}: {description}{where}")
    print(f"{counts.total()} changes of {len(CARDS)} cards in {time.monotonic() - start:.0f} s")
    for kind, number in counts.most_common():
        print(f"{number:6d} {kind}")
    for line in sorted(bad):
        print(line[:300])
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
