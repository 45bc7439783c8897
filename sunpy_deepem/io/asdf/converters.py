"""Converters between classes of this package and nodes of an ASDF tree."""

import numpy as np
from asdf.extension import Converter

__all__ = ["CubeWCSConverter", "DEMCubeConverter", "LogTBinsConverter", "TemperatureResponseConverter"]

# asdf imports this module whenever it opens a file, so other imports are late.
_TAG = "tag:sunpy.org:sunpy_deepem"


class DEMCubeConverter(Converter):
    """A `DEMCube` as arrays, WCS, response and provenance."""

    tags = (f"{_TAG}/dem_cube-*",)
    types = ("sunpy_deepem.cube.DEMCube",)

    def to_yaml_tree(self, obj, tag, ctx):
        """Return the node of a cube."""
        from sunpy_deepem.utils.serialization import compact, json_facts

        obj._require_3d("ASDF")
        node = {
            "data": _copied(compact(obj.data)),
            "unit": obj.unit,
            "wcs": obj.wcs,
            "images": {key: _copied(image) for key, image in obj.planes.images.items()},
            "response": obj.response,
            "inputs": json_facts(obj.inputs),
            "provenance": json_facts(obj.meta["provenance"]),
        }
        if obj.mask is not None:
            node["mask"] = _copied(np.broadcast_to(obj.mask, obj.data.shape))
        if obj.uncertainty is not None:
            node["uncertainty"] = type(obj.uncertainty)(_copied(compact(obj.uncertainty.array)))
        if extra := obj.user_meta:
            node["meta"] = json_facts(extra)
        return node

    def from_yaml_tree(self, node, tag, ctx):
        """Return the cube of a node."""
        from sunpy_deepem.cube.dem_cube import DEMCube
        from sunpy_deepem.cube.planes import Planes
        from sunpy_deepem.io.contents import check_inputs, check_shapes, checked_unit

        images = {key: np.array(image) for key, image in node["images"].items()}
        mask = np.array(node["mask"], dtype=bool) if "mask" in node else None
        uncertainty = node.get("uncertainty")
        std = None if uncertainty is None else np.array(uncertainty.array, dtype=float)
        planes = Planes.from_images(np.array(node["data"], dtype=float), std, mask, images)
        inputs, provenance = [dict(one) for one in node["inputs"]], _as_builtins(node["provenance"])
        check_shapes(planes)
        check_inputs(inputs)
        cube = DEMCube.from_planes(
            planes,
            node["response"],
            node["wcs"],
            inputs=inputs,
            provenance=provenance,
            unit=checked_unit(node["unit"], provenance),
            meta=_as_builtins(node.get("meta", {})),
        )
        if uncertainty is not None:
            cube.uncertainty = type(uncertainty)(std)
        return cube


class CubeWCSConverter(Converter):
    """The WCS of a cube as a WCS of astropy, from which `DEMCube` makes its own again."""

    tags = ()
    types = ("sunpy_deepem.utils.wcs.CubeWCS",)

    def select_tag(self, obj, tags, ctx):
        """Return `None`, so that the result of `to_yaml_tree` is converted instead."""
        return

    def to_yaml_tree(self, obj, tag, ctx):
        """Return the WCS of astropy."""
        from astropy.wcs import WCS

        from sunpy_deepem.utils.wcs import wcs_as

        return wcs_as(obj, WCS)

    def from_yaml_tree(self, node, tag, ctx):
        """Not used, as files hold a WCS of astropy."""
        raise NotImplementedError


class LogTBinsConverter(Converter):
    """`LogTBins` as their first centre, step and number."""

    tags = (f"{_TAG}/log_t_bins-*",)
    types = ("sunpy_deepem.temperature.LogTBins",)

    def to_yaml_tree(self, obj, tag, ctx):
        """Return the node of bins."""
        return {"first": obj.first, "step": obj.step, "n": obj.n}

    def from_yaml_tree(self, node, tag, ctx):
        """Return the bins of a node."""
        from sunpy_deepem.temperature import LogTBins

        return LogTBins(node["first"], node["step"], node["n"])


class TemperatureResponseConverter(Converter):
    """A `TemperatureResponse` as its curves and bins."""

    tags = (f"{_TAG}/temperature_response-*",)
    types = ("sunpy_deepem.response.TemperatureResponse",)

    def to_yaml_tree(self, obj, tag, ctx):
        """Return the node of a response."""
        from sunpy_deepem.utils.serialization import json_facts

        return {
            "temperature": obj.temperature,
            "response": obj.curves,
            "channels": list(obj.channels),
            "bins": obj.bins,
            "meta": json_facts(obj.meta),
        }

    def from_yaml_tree(self, node, tag, ctx):
        """Return the response of a node."""
        from sunpy_deepem.response.temperature_response import TemperatureResponse

        curves = (node["temperature"].copy(), node["response"].copy())
        return TemperatureResponse(
            *curves, bins=node["bins"], channels=node["channels"], meta=_as_builtins(node["meta"])
        )


def _copied(array):
    """Return a copy, as asdf would write the whole base of a view."""
    return np.array(array)


def _as_builtins(node):
    """Return a node of the tree as `dict` and `list`."""
    if hasattr(node, "items"):
        return {key: _as_builtins(value) for key, value in node.items()}
    return [_as_builtins(value) for value in node] if hasattr(node, "append") else node
