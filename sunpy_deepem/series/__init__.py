"""Many times: sets of maps, jobs for each of them, and the sequence of their cubes."""

from sunpy_deepem.series.sequence import (
    ChannelSet,
    ChannelSets,
    DEMCubeSequence,
    SeriesReport,
    SetResult,
    group_maps,
    invert_series,
)

__all__ = [
    "ChannelSet",
    "ChannelSets",
    "DEMCubeSequence",
    "SeriesReport",
    "SetResult",
    "group_maps",
    "invert_series",
]
