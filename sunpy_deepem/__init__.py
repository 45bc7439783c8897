"""
Differential emission measures from the six coronal EUV channels of SDO/AIA.

`invert` takes six `sunpy.map.Map` and answers with a `DEMCube`, an `ndcube.NDCube` with a log T axis, which
`DEMCube.synthesize` turns back into AIA maps.
"""

from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.cube import DEMCube
from sunpy_deepem.inversion import invert
from sunpy_deepem.preparation import prepare
from sunpy_deepem.quality import Quality
from sunpy_deepem.response import TemperatureResponse
from sunpy_deepem.stack import ChannelStack
from sunpy_deepem.temperature import LogTBins

try:
    from sunpy_deepem._version import version as __version__
except ImportError:  # A source tree that was never built
    __version__ = "unknown"

__all__ = [
    "CHANNELS",
    "ChannelStack",
    "DEMCube",
    "DeepEM",
    "LogTBins",
    "Quality",
    "TemperatureResponse",
    "__version__",
    "invert",
    "prepare",
]


def __getattr__(name):
    # torch takes seconds to import, so the network is fetched only when it is asked for.
    if name == "DeepEM":
        from sunpy_deepem.network import DeepEM

        return DeepEM
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__():
    return __all__
