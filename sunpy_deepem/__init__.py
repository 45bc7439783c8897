"""
Differential emission measures from the six coronal EUV channels of SDO/AIA.

`invert` takes six `sunpy.map.Map` and answers with a `DEMCube`, an `ndcube.NDCube` with a log T axis, which
`DEMCube.synthesize` turns back into AIA maps.
"""

import lazy_loader

try:
    from sunpy_deepem._version import version as __version__
except ImportError:  # A source tree that was never built
    __version__ = "unknown"

# Names are imported when they are used, as sunpy.map and torch take seconds. The stub lists them.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]
