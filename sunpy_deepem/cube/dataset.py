"""Cubes as xarray data sets."""

import json

import astropy.units as u
import numpy as np
from astropy.coordinates import Longitude

from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.quality import Quality
from sunpy_deepem.utils.serialization import json_facts
from sunpy_deepem.utils.uncertainty import standard_deviation
from sunpy_deepem.utils.wcs import sky_wcs

__all__ = ["to_dataset"]

_INTENSITY_UNITS = "DN s-1 pix-1"
_BY_CHANNEL = {
    "intensity": "observed intensity, per native pixel of 0.6 arcsec",
    "sigma": "its standard deviation",
    "limit": "lower limit of the intensity",
}
_IMAGES = {
    "chi2": {"long_name": "mean over channels of ((synthetic - observed) / sigma)^2", "units": "1"},
    "saturation": {"long_name": "fraction of native pixels that are saturated", "units": "1"},
    "quality": {
        "long_name": "bit flags",
        "flag_masks": [flag.value for flag in Quality],
        "flag_meanings": " ".join(flag.name for flag in Quality),
    },
}
# Coordinates are one-dimensional if they deviate from that by less than this fraction of a pixel.
_ALONG_THE_GRID = 0.05


def to_dataset(cube):
    """Return ``cube`` as an `xarray.Dataset`, see `DEMCube.to_xarray`."""
    try:
        import xarray
    except ImportError as error:
        msg = 'DEMCube.to_xarray needs the package xarray: pip install "sunpy_deepem[xarray]".'
        raise ImportError(msg) from error
    cube._require_3d("to_xarray")
    log_t = ("log_t", cube.log_t, {"long_name": "log10(T/K)", "units": "1", "bin_width": cube.bins.step})
    dataset = xarray.Dataset(_variables(cube), coords={"log_t": log_t} | _sky(cube), attrs=_attributes(cube))
    for name in ("tx", "ty"):
        if dataset[name].ndim == 1:  # so that dataset.sel(tx=100, ty=-50, method="nearest") works
            dataset = dataset.set_xindex(name)
    return dataset


def _variables(cube):
    units = {"units": cube.unit.to_string("fits")}
    mask = np.broadcast_to(False if cube.mask is None else cube.mask, cube.data.shape)
    bins = {"em": (cube.data, {"long_name": "emission measure per bin of log T"} | units)}
    bins["mask"] = (mask, {"long_name": "true where em is not to be used"})
    if cube.uncertainty is not None:
        std = standard_deviation(cube)
        bins["em_std"] = (std, {"long_name": "standard deviation of em"} | units)
    variables = {name: (("log_t", "y", "x"), np.array(array), attrs) for name, (array, attrs) in bins.items()}
    images = {name: np.asarray(image) for name, image in cube.planes.images.items()}
    for name, meaning in _BY_CHANNEL.items():
        planes = [images.pop(f"{name}_{channel}", None) for channel in CHANNELS]
        if all(plane is not None for plane in planes):
            attrs = {"long_name": meaning, "units": _INTENSITY_UNITS}
            variables[name] = (("channel", "y", "x"), np.stack(planes), attrs)
    return variables | {name: (("y", "x"), np.array(image), _IMAGES.get(name, {})) for name, image in images.items()}


def _sky(cube):
    """Return the coordinates of channels and sky; those of the sky are one-dimensional if the grid is not rotated."""
    wcs = sky_wcs(cube.sky_header)
    x, y = np.meshgrid(*(np.arange(n) for n in cube.data.shape[:0:-1]))
    longitude, latitude = (wcs.wcs_pix2world(np.stack([x.ravel(), y.ravel()], axis=1), 0) * u.deg).T
    tx = Longitude(longitude, wrap_angle=180 * u.deg).to_value(u.arcsec).reshape(x.shape)
    ty = latitude.to_value(u.arcsec).reshape(x.shape)
    scale = np.abs(wcs.wcs.cdelt).min() * u.deg.to(u.arcsec)
    straight = max(np.ptp(tx, axis=0).max(), np.ptp(ty, axis=1).max()) < _ALONG_THE_GRID * scale
    middle = tuple(n // 2 for n in tx.shape)
    attrs = {name: {"long_name": f"helioprojective {name}", "units": "arcsec"} for name in ("longitude", "latitude")}
    return {
        "channel": ("channel", list(CHANNELS), {"long_name": "wavelength", "units": "angstrom"}),
        "tx": ("x", tx[middle[0]], attrs["longitude"]) if straight else (("y", "x"), tx, attrs["longitude"]),
        "ty": ("y", ty[:, middle[1]], attrs["latitude"]) if straight else (("y", "x"), ty, attrs["latitude"]),
    }


def _attributes(cube):
    """Return facts about the cube as numbers and text, for files of data sets."""
    header = cube.sky_header
    facts = {
        "provenance": cube.meta["provenance"],
        "inputs": cube.inputs,
        "response": cube.response.meta | {"fingerprint": cube.response.fingerprint},
        "fits_header": header,
    }
    known = {"date_obs": header["date-obs"]} if "date-obs" in header else {}
    return known | {name: json.dumps(json_facts(value)) for name, value in facts.items()}
