"""
Change one header card of one map to a hostile value, many times, and report what becomes of the inversion.

Usage: ``python tools/fuzz_headers.py [--n 10000] [--seed 0] [--processes 1] [--output fuzz.jsonl [--resume]]``

The maps are the packaged sample of the real Sun, binned to 16 × 16 pixels. Each change must end in one of three ways:

- the EM in all bins and pixels is that of the unchanged maps, to one percent of the pixel's total;
- an error of the package that names the card, or the property of the map that follows from it;
- a warning that names the card or such a property, and the channel.

Everything else is listed, and the exit status is then 1.
"""

import argparse
import json
import multiprocessing
import re
import sys
import time
import traceback
import warnings
from collections import Counter
from functools import cache, partial
from pathlib import Path
from unittest import mock

import astropy.units as u
import numpy as np
import sunpy.map
from astropy.wcs import FITSFixedWarning

from sunpy_deepem import ChannelStack, DeepEM, invert
from sunpy_deepem.sample import real_maps
from sunpy_deepem.stack.headers import check_header, checked_map

PACKAGE = str(Path(__file__).resolve().parents[1] / "sunpy_deepem")
SIZE = 16
#: Words for what each card determines; a message may name that instead of the card.
MEANING = {
    "INSTRUME|TELESCOP|DETECTOR|OBSRVTRY": ("foreign",),
    "WAVELNTH|WAVEUNIT": ("foreign", "more than once", "missing: "),
    "CONTENT": ("synthetic",),
    "LVL_NUM": ("level",),
    "BUNIT|PIXLUNIT": (" is in ", " are in "),
    "EXPTIME|XPOSURE|TIMEUNIT|TIMESYS": ("exposure time", "EXPTIME"),
    "DATE.*|T_OBS|TIMESYS": ("DATE-OBS", "maps span", "degradation"),
    "CTYPE.|CUNIT.|CRPIX.|CRVAL.|CDELT.|CROTA2|PC._.|CD._.|PV._1|L..POLE|._ORDER|CPDIS1|WCSAXES|NAXIS.": (
        *("WCS", "field", "must show the Sun", "rotated", "rectangular pixels", "CDELT"),
    ),
    "RSUN_REF|RSUN_OBS|R_SUN|SOLAR_R|RADIUS": ("radius of the Sun",),
    "DSUN_OBS|HG.._OBS|CR.._OBS|HAE._OBS": ("observer",),
}
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
    *("A_ORDER", "B_ORDER", "CPDIS1", "WCSAXES", "NAXIS1", "NAXIS2"),
    *("RSUN_REF", "RSUN_OBS", "R_SUN", "SOLAR_R", "RADIUS"),
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
#: And factors of the card's own number, which are the least conspicuous changes. AIA's times are given to 0.01 s, which
#: does not reveal that an exposure time is wrong by one percent.
FACTORS = (0.5, 0.9, 0.98, 1.02, 1.1, 2.0, 10.0, -1.0)


# ---------------------------------------------------------------------------------------------------------------------
# One change
# ---------------------------------------------------------------------------------------------------------------------


@cache
def fixed():
    """Return the maps, the network, and the warnings, stack and EM of the unchanged maps."""
    full = list(real_maps())
    maps, net = [smap.superpixel(u.Quantity(smap.dimensions) / SIZE) for smap in full], DeepEM.load()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        stack = ChannelStack.from_maps(maps, shape=None)
        em = invert(stack, weights=net).data
    return maps, net, {str(each.message) for each in caught}, stack, em


def all_changes(seed, n):
    """Return ``n`` changes (card, value, index of the map): each pair once in random order, then again."""
    rng = np.random.default_rng(seed)
    pairs = [(card, value) for card in CARDS for value in VALUES]
    pairs += [(card, ("times", factor)) for card in CARDS for factor in FACTORS]
    order = np.concatenate([rng.permutation(len(pairs)) for _ in range(-(-n // len(pairs)))])[:n]
    return [(*pairs[number], int(rng.integers(6))) for number in order]


def changed_header(smap, card, value):
    """Return the header of a map with another card; a value of `None` removes it."""
    header = dict(smap.meta)
    old = header.pop(card.lower(), None)
    if isinstance(value, tuple):
        value = old * value[1] if isinstance(old, int | float) else old
    if value is not None:
        header[card.lower()] = value
    return header


def outcome(card, value, index):
    """Return the kind of an outcome and, if it is bad, a description."""
    maps, net, usual, expected, em = fixed()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", FITSFixedWarning)
        try:
            header = changed_header(maps[index], card, value)
            try:
                changed = sunpy.map.Map(maps[index].data, header)
            except Exception as error:  # of SunPy, before the package sees the map; in a file, the package sees it
                check_header(header, "aia.fits")
                return ("refused by SunPy", None) if _names(str(error), card) else ("foreign error", _described(error))
            with mock.patch("sunpy_deepem.stack.maps.checked_map", partial(_checked_once, maps)):
                stack = ChannelStack.from_maps([*maps[:index], changed, *maps[index + 1 :]], shape=None)
            if _same_input(stack, expected):
                return "same answer", None
            found = invert(stack, weights=net).data
        except (ValueError, TypeError, OSError) as error:
            return _of_error(error, card)
        except Exception as error:
            return "foreign error", _described(error)
    if _alike(found, em):
        return "same answer", None
    messages = {str(each.message) for each in caught} - usual
    if any(_names(message, card) and _names_channel(message, maps[index]) for message in messages):
        return "warning", None
    kind = "unclear warning" if messages else "silent change"
    return kind, f"{_difference(found, em)} {sorted(messages) or ''}"


def _checked_once(unchanged, smap, source=None):
    """Check a map unless it is one of the unchanged ones, which takes most of the time."""
    return smap if any(smap is each for each in unchanged) else checked_map(smap, source)


def _same_input(stack, expected):
    """Return whether a method gets the same input, and so gives the same answer."""
    pairs = ((stack.intensity, expected.intensity), (stack.uncertainty, expected.uncertainty))
    return all(a.shape == b.shape and np.allclose(a, b, rtol=1e-5, equal_nan=True) for a, b in pairs)


def _of_error(error, card):
    last = traceback.extract_tb(error.__traceback__)[-1].filename
    if not last.startswith(PACKAGE):
        return "foreign error", _described(error)
    return ("clear error", None) if _names(str(error), card) else ("unclear error", str(error))


def _described(error):
    return f"{type(error).__name__}: {error} in {traceback.extract_tb(error.__traceback__)[-1].filename}"


def _names(message, card):
    """Return whether a message names a card, or what it determines."""
    words = [card, *(word for cards, words in MEANING.items() if re.fullmatch(cards, card) for word in words)]
    return any(word.lower() in message.lower() for word in words)


def _names_channel(message, smap):
    return re.search(rf"\b{smap.wavelength.value:.0f} (Å|Angstrom)", message) is not None


def _alike(found, em):
    """Return whether all bins agree to one percent of the total, and the same pixels are masked."""
    if found.shape != em.shape or (np.isnan(found) != np.isnan(em)).any():
        return False
    return bool((np.nan_to_num(np.abs(found - em)) <= 0.01 * np.nan_to_num(em.sum(axis=0))).all())


def _difference(found, em):
    if found.shape != em.shape:
        return f"shape {found.shape}"
    ratio = (np.sum(found, axis=0) / np.sum(em, axis=0)).ravel()
    low, middle, high = np.nanquantile(ratio, [0, 0.5, 1])
    return f"total EM × {middle:.3g}, from {low:.3g} to {high:.3g}"


# ---------------------------------------------------------------------------------------------------------------------
# All changes
# ---------------------------------------------------------------------------------------------------------------------


def run(change):
    """Return the record of a change, which may be written as JSON."""
    number, (card, value, index) = change
    kind, description = outcome(card, value, index)
    channel = round(fixed()[0][index].wavelength.value)
    shown = f"{value[1]:g} × its value" if isinstance(value, tuple) else f"{value!r:.40}"
    return {"number": number, "change": f"{card} = {shown} of {channel} Å", "kind": kind, "description": description}


def read_records(path, *, resume):
    """Return the records of an earlier run by number."""
    if path is None or not resume or not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    # A line may be incomplete if the run was killed.
    records = [json.loads(line) for line in lines if line.endswith("}")]
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return {record["number"]: record for record in records}


def new_records(changes, processes):
    """Yield the records of changes."""
    if processes == 1:
        yield from map(run, changes)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap_unordered(run, changes, chunksize=20)


def report(records, seconds):
    """Print a summary; return the exit status."""
    counts = Counter(record["kind"] for record in records)
    print(f"{counts.total()} changes of {len(CARDS)} cards, {seconds:.0f} s")
    for kind, number in counts.most_common():
        print(f"{number:6d} {kind}")
    bad = sorted(f"{each['kind']}: {each['change']}: {each['description']}" for each in records if each["description"])
    for line in bad:
        print(line[:400])
    return 1 if bad else 0


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--n", type=int, default=10_000, help="Number of changes.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=np.inf, help="Stop after this time.")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--output", type=Path, help="File of results, one JSON object per line.")
    parser.add_argument("--resume", action="store_true", help="Keep the results in --output and run only the others.")
    args = parser.parse_args()
    records = read_records(args.output, resume=args.resume)
    changes = [(i, change) for i, change in enumerate(all_changes(args.seed, args.n)) if i not in records]
    start, write = time.monotonic(), partial(print, file=sys.stderr)
    with open(args.output or "/dev/null", "a" if args.resume else "w", encoding="utf-8") as file:
        for record in new_records(changes, args.processes):
            records[record["number"]] = record
            print(json.dumps(record), file=file, flush=True)
            if len(records) % 1000 == 0:
                write(f"{len(records)} of {args.n}")
            if time.monotonic() - start > args.seconds:
                break
    return report(records.values(), time.monotonic() - start)


if __name__ == "__main__":
    sys.exit(main())
