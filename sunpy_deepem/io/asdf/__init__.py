"""
Tags, schemas and converters for cubes, responses and bins in ASDF trees.

asdf-astropy converts arrays, units, WCS and uncertainties. asdf finds all converters by entry points.
"""

from importlib import resources

__all__ = ["get_extensions", "get_resource_mappings"]

_URI = "asdf://sunpy.org/sunpy_deepem"


def get_resource_mappings():
    """Return the folders of schemas and manifest, for the entry point asdf.resource_mappings."""
    from asdf.resource import DirectoryResourceMapping

    root = resources.files(__name__)
    return [DirectoryResourceMapping(root / folder, f"{_URI}/{folder}/") for folder in ("schemas", "manifests")]


def get_extensions():
    """Return the extension with the converters, for the entry point asdf.extensions."""
    from asdf.extension import ManifestExtension

    from sunpy_deepem.io.asdf import converters

    found = [getattr(converters, name)() for name in converters.__all__]
    return [ManifestExtension.from_uri(f"{_URI}/manifests/sunpy_deepem-1.0.0", converters=found)]
