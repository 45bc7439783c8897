"""
Differential emission measures from the six coronal EUV channels of SDO/AIA.

`invert` takes six `sunpy.map.Map` and answers with a `DEMCube`, an `ndcube.NDCube` with a log T axis, which
`DEMCube.synthesize` turns back into AIA maps.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from sunpy_deepem.calibrate.preparation import prepare
from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.cube.dem_cube import DEMCube
from sunpy_deepem.inversion import invert
from sunpy_deepem.quality import Quality
from sunpy_deepem.response.temperature_response import TemperatureResponse
from sunpy_deepem.stack.channel_stack import ChannelStack
from sunpy_deepem.temperature import LogTBins

if TYPE_CHECKING:
    from sunpy_deepem.network.model import DeepEM
    from sunpy_deepem.series import DEMCubeSequence, invert_series

try:
    from sunpy_deepem._version import version as __version__
except ImportError:  # A source tree that was never built
    __version__ = "unknown"

__all__ = [
    "CHANNELS",
    "ChannelStack",
    "DEMCube",
    "DEMCubeSequence",
    "DeepEM",
    "LogTBins",
    "Quality",
    "TemperatureResponse",
    "__version__",
    "invert",
    "invert_series",
    "prepare",
]


# torch takes seconds to import and dask half of one, so what needs them is fetched only when it is asked for.
_ON_DEMAND = {"DeepEM": "network", "DEMCubeSequence": "series", "invert_series": "series"}


def __getattr__(name):
    if name in _ON_DEMAND:
        return getattr(import_module(f"sunpy_deepem.{_ON_DEMAND[name]}"), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__():
    return __all__
