"""What a `DEMCube` consists of, taken apart for files and put together again, whatever the file's format."""

import json

import numpy as np
from astropy.nddata import StdDevUncertainty
from ndcube import NDMeta

from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.cube.dem_cube import DEMCube
from sunpy_deepem.utils.uncertainty import standard_deviation

__all__ = ["compact", "companions", "extra_meta", "in_memory", "join_parts", "json_facts"]

# Parts of a cube's meta that are no images.
_FACTS = ("response", "inputs", "provenance")
_IMAGES = {"chi2", "quality", "saturation"}
_IMAGES |= {f"{kind}_{channel}" for kind in ("intensity", "sigma") for channel in CHANNELS}


def companions(cube):
    """Return the images that are sliced with ``cube``: χ², quality, saturation, intensities, by name."""
    return {key: np.asarray(cube.meta[key]) for key in cube.meta.axes}


def extra_meta(cube):
    """Return what a user has put into the meta of ``cube``."""
    return {key: value for key, value in cube.meta.items() if key not in _FACTS and key not in cube.meta.axes}


def join_parts(em, *, wcs, unit, mask, uncertainty, images, response, inputs, provenance, extra):
    """Return the `DEMCube` of these parts: arrays, a `dict` of ``images``, and what is known of them."""
    if missing := _IMAGES - images.keys():
        msg = f"it lacks the images {sorted(missing)}"
        raise ValueError(msg)
    facts = {"response": response, "inputs": tuple(inputs), "provenance": provenance}
    return DEMCube(
        em,
        wcs=wcs,
        uncertainty=uncertainty,
        mask=mask,
        unit=unit,
        meta=NDMeta(images | facts | extra, axes=dict.fromkeys(images, (1, 2)), data_shape=em.shape),
    )


def in_memory(cube):
    """Return ``cube`` with NumPy's arrays where they are dask's, all of them computed together."""
    std = standard_deviation(cube)
    images = {key: cube.meta[key] for key in cube.meta.axes}
    lazy = {"data": cube.data, "mask": cube.mask, "std": std, **images}
    if not any(hasattr(array, "dask") for array in lazy.values()):
        return cube
    import dask

    (arrays,) = dask.compute(lazy)
    return join_parts(
        arrays["data"],
        wcs=cube.wcs,
        unit=cube.unit,
        mask=arrays["mask"],
        uncertainty=None if std is None else StdDevUncertainty(arrays["std"], copy=False),
        images={key: arrays[key] for key in images},
        response=cube.meta["response"],
        inputs=cube.inputs,
        provenance=cube.meta["provenance"],
        extra=extra_meta(cube),
    )


def compact(data):
    """Return double precision as single where nothing is lost by it, as in a cube fresh from the network."""
    if data.dtype != np.float64:
        return data
    with np.errstate(over="ignore"):
        single = data.astype(np.float32)
    changed = data[single != data]
    return single if np.isnan(changed).all() else data


def json_facts(facts):
    """Return ``facts`` as JSON would give them back: lists, texts and Python's own numbers."""
    return json.loads(json.dumps(facts, default=_jsonable))


def _jsonable(value):
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)
