"""Series of observations: grouping of maps, one inversion job per set, and the sequence of cubes."""

from sunpy_deepem.series.grouping import ChannelSet, ChannelSets, group_maps
from sunpy_deepem.series.inversion import invert_series
from sunpy_deepem.series.report import SeriesReport, SetResult
from sunpy_deepem.series.sequence import DEMCubeSequence
from sunpy_deepem.series.watching import watch_series

__all__ = [
    "ChannelSet",
    "ChannelSets",
    "DEMCubeSequence",
    "SeriesReport",
    "SetResult",
    "group_maps",
    "invert_series",
    "watch_series",
]
