"""Arrays of an archive: their names, dimensions, codes and codecs in Zarr."""

import shutil
import time
import uuid
import warnings
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Lock

import numpy as np

from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.io.archive.quantities import AsinhScale, LogScale
from sunpy_deepem.quality import Quality
from sunpy_deepem.temperature import LogTBins

__all__ = ["FLOOR", "FORMAT", "create_group", "extend", "import_zarr", "open_group", "remove_partial", "scales"]

FORMAT = "sunpy_deepem archive 1"
#: EM and its standard deviation have a bound above this fraction of the total EM of the pixel.
FLOOR = 1e-4

_SIGMA_FACTOR = 5
# Largest chunk of an image: a region and a band read few of them, and long rows compress better.
_CHUNK = {"log_t": 9, "y": 16, "x": 512}
# Times in a chunk of arrays with a number per time.
_TIMES = 4096
# Differences along x are small and stay positive with this offset, so that their upper bytes are zeros.
_DIFFERENCE_OFFSET = 128
# Seconds after which no process writes a temporary file any more.
_ABANDONED = 3600
# The warning filters belong to all threads.
_FILTER_LOCK = Lock()


@dataclass(frozen=True)
class _Variable:
    """An array with an entry for each time."""

    dims: tuple
    dtype: str
    attributes: dict
    scale: LogScale | AsinhScale | None = None


def scales(precision):
    """
    Return the scales of codes.

    Parameters
    ----------
    precision : `float`
        Largest relative error of EM and intensities; five times that for the others.

    Returns
    -------
    `dict`
        `LogScale` or `AsinhScale` by name of the array.
    """
    coarse = _SIGMA_FACTOR * precision
    return {
        "ln_em": LogScale(precision, 1.0),
        "ln_em_relative_std": LogScale(coarse, 1e-12),
        "asinh_intensity": AsinhScale(precision, 0.1),
        "ln_sigma": LogScale(coarse, 1e-10),
        "asinh_limit": AsinhScale(precision, 0.1),
        "ln_chi2": LogScale(coarse, 1e-10),
    }


def create_group(path, shape, bins, precision):
    """
    Create the store of an archive without times, complete or not at all.

    Parameters
    ----------
    path : `pathlib.Path`
    shape : `tuple` of `int`
        Shape of the sky, ``(ny, nx)``.
    bins : `LogTBins`
    precision : `float`
        Largest relative error of EM and intensities.

    Raises
    ------
    FileExistsError
        If ``path`` exists.
    """
    zarr = import_zarr()
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with _quiet():
            group = zarr.open_group(partial, mode="w-", zarr_format=3)
            group.attrs.update(_root_attributes(bins, precision))
            lengths = {"log_t": len(bins), "channel": len(CHANNELS), "y": shape[0], "x": shape[1]}
            for name, values, attributes in _coordinates(bins):
                array = group.create_array(name, data=values, dimension_names=(name,))
                array.attrs.update(attributes)
            for name, variable in _variables(precision).items():
                _create_array(group, name, variable, lengths)
            zarr.consolidate_metadata(group.store)
        if path.exists():
            raise FileExistsError
        partial.rename(path)
    except OSError as error:
        if path.exists():
            msg = f"{path} exists. Open it with DEMArchive({str(path)!r}), or choose another name."
            raise FileExistsError(msg) from None
        msg = f"{path} could not be created: {error.strerror or error}."
        raise type(error)(msg) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def open_group(path, *, write=False):
    """
    Return the Zarr group of an archive, and its bins and precision.

    Parameters
    ----------
    path : `pathlib.Path`
    write : `bool`, optional
        Whether the arrays can be changed.

    Raises
    ------
    FileNotFoundError
        If ``path`` does not exist.
    ValueError
        If it is not an archive.
    """
    zarr = import_zarr()
    if not path.exists():
        msg = f"There is no archive {path}. DEMArchive.create makes one, and invert_series with out='series.zarr'."
        raise FileNotFoundError(msg)
    try:
        with _quiet():
            group = zarr.open_group(path, mode="r+" if write else "r", zarr_format=3)
        attributes = dict(group.attrs)
        found = attributes.get("format")
    except Exception as error:  # the errors of damaged metadata are of many types
        msg = f"{path} is not an archive of cubes: it cannot be read as a Zarr group ({type(error).__name__}: {error})."
        raise ValueError(msg) from error
    if found != FORMAT:
        msg = f"{path} is not an archive of cubes of this layout: its format must be {FORMAT!r}, found {found!r}."
        raise ValueError(msg)
    return group, LogTBins(**attributes["bins"]), attributes["precision"]["em"]


def extend(group, times):
    """
    Append times, in ms since 1970, to all arrays of a group; the lock of the archive must be held.

    Parameters
    ----------
    group : `zarr.Group`
    times : `~numpy.ndarray`
    """
    zarr = import_zarr()
    before = group["time"].shape[0]
    with _quiet():
        for name, array in group.arrays():
            if array.metadata.dimension_names[0] == "time":
                array.resize((before + len(times), *array.shape[1:]))
                if name == "time":
                    array[before:] = times
        # The last, so that readers see all arrays at their new length.
        zarr.consolidate_metadata(group.store)


def import_zarr():
    """Return zarr, or raise `ImportError` with the extra to install."""
    try:
        import zarr
    except ImportError as error:
        msg = 'Archives need the package zarr. Install it with pip install "sunpy_deepem[zarr]".'
        raise ImportError(msg) from error
    return zarr


def remove_partial(path):
    """
    Remove files that killed processes left half-written; a file that changed lately may still be written.

    Parameters
    ----------
    path : `pathlib.Path`
        The archive.
    """
    for partial in path.glob("*/*.partial"):
        with suppress(OSError):  # removed meanwhile
            if time.time() - partial.stat().st_mtime > _ABANDONED:
                partial.unlink()


def _root_attributes(bins, precision):
    coarse = _SIGMA_FACTOR * precision
    return {
        "format": FORMAT,
        "Conventions": "CF-1.11",
        "bins": {"first": bins.first, "step": bins.step, "n": len(bins)},
        "precision": {"em": precision, "std": coarse, "intensity": precision, "sigma": coarse, "chi2": coarse},
        "bound": f"relative errors of em and em_std hold above {FLOOR:g} of the total EM of the pixel",
        "decode": {
            "em": "exp(ln_em)",
            "em_std": "exp(ln_em + ln_em_relative_std)",
            "intensity": "0.1 * sinh(asinh_intensity)",
            "limit": "0.1 * sinh(asinh_limit)",
            "sigma": "exp(ln_sigma)",
            "chi2": "exp(ln_chi2)",
        },
    }


def _coordinates(bins):
    return (
        ("log_t", bins.centers, {"long_name": "log10(T/K)", "units": "1"}),
        ("channel", np.array(CHANNELS), {"long_name": "wavelength", "units": "angstrom"}),
    )


def _variables(precision):
    em, channel, sky = ("log_t", "y", "x"), ("channel", "y", "x"), ("y", "x")
    flags = {"flag_masks": [flag.value for flag in Quality], "flag_meanings": " ".join(flag.name for flag in Quality)}
    dn = "DN s-1 pix-1"
    names = {
        "ln_em": (em, "natural logarithm of the emission measure per bin of log T in cm-5"),
        "ln_em_relative_std": (em, "natural logarithm of the standard deviation of em over em"),
        "asinh_intensity": (channel, f"arsinh of the observed intensity in 0.1 {dn}"),
        "ln_sigma": (channel, f"natural logarithm of the standard deviation of the intensity in {dn}"),
        "asinh_limit": (channel, f"arsinh of the lower limit of the intensity in 0.1 {dn}"),
        "ln_chi2": (sky, "natural logarithm of the mean of ((synthetic - observed) / sigma)^2 over channels"),
    }
    coded = {
        name: _Variable(dims, "int16", {"long_name": text, "units": "1"}, scales(precision)[name])
        for name, (dims, text) in names.items()
    }
    return coded | {
        "mask": _Variable(em, "bool", {"long_name": "true where em is not to be used"}),
        "quality": _Variable(sky, "uint16", {"long_name": "bit flags"} | flags),
        "saturation": _Variable(sky, "float32", {"long_name": "fraction of native pixels that are saturated"}),
        "facts": _Variable((), "str", {"long_name": "FITS header, inputs, provenance and response, in JSON"}),
        "time": _Variable((), "int64", {"long_name": "start of the exposure in 193 A, UTC"} | _TIME_ATTRIBUTES),
        "complete": _Variable((), "bool", {"long_name": "whether all arrays of this time are written"}),
    }


_TIME_ATTRIBUTES = {"units": "milliseconds since 1970-01-01 00:00:00", "calendar": "proleptic_gregorian"}


def _create_array(group, name, variable, lengths):
    from zarr.codecs import BloscCodec, Crc32cCodec

    shape = tuple(lengths[dim] for dim in variable.dims)
    chunks = tuple(min(length, _CHUNK.get(dim, length)) for dim, length in zip(variable.dims, shape, strict=True))
    options = {"chunks": (1 if variable.dtype == "str" else _TIMES,)}
    if shape:
        # A shard is a file with all chunks of one time, so that no two processes write the same.
        shard = tuple(-(-length // chunk) * chunk for length, chunk in zip(shape, chunks, strict=True))
        options = {"chunks": (1, *chunks), "shards": (1, *shard)}
        options["compressors"] = [BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"), Crc32cCodec()]
    array = group.create_array(
        name,
        shape=(0, *shape),
        dtype=str if variable.dtype == "str" else variable.dtype,
        filters=_differences() if variable.scale is not None else (),
        fill_value="" if variable.dtype == "str" else 0,
        dimension_names=("time", *variable.dims),
        # Files beside each other, without a folder for each.
        chunk_key_encoding={"name": "default", "separator": "."},
        **options,
    )
    array.attrs.update(variable.attributes | (variable.scale.attributes if variable.scale is not None else {}))


def _differences():
    """Return the filters that replace codes by differences to the neighbour in x."""
    from zarr.codecs.numcodecs import Delta, FixedScaleOffset

    return [Delta(dtype="<i2"), FixedScaleOffset(offset=-_DIFFERENCE_OFFSET, scale=1, dtype="<i2")]


@contextmanager
def _quiet():
    """Silence zarr's warnings that filters of numcodecs and consolidated metadata are not in its specification yet."""
    with _FILTER_LOCK, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*(not in the Zarr version 3 spec|not part in the Zarr format 3)")
        yield
