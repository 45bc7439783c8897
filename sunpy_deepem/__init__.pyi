from . import (
    analysis,
    calibrate,
    cube,
    forward,
    io,
    methods,
    network,
    response,
    sample,
    series,
    stack,
    training,
    visualization,
)
from .calibrate.preparation import prepare
from .channels import CHANNELS
from .cube.dem_cube import DEMCube
from .inversion import invert
from .network.model import DeepEM
from .quality import Quality
from .response.temperature_response import TemperatureResponse
from .series.inversion import invert_series
from .series.sequence import DEMCubeSequence
from .stack.channel_stack import ChannelStack
from .temperature import LogTBins
from .utils.logger import log

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
    "analysis",
    "calibrate",
    "cube",
    "forward",
    "invert",
    "invert_series",
    "io",
    "log",
    "methods",
    "network",
    "prepare",
    "response",
    "sample",
    "series",
    "stack",
    "training",
    "visualization",
]

__version__: str
