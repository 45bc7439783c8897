"""Calibrated, co-aligned, binned stacks of all channels."""

from sunpy_deepem.stack.channel_stack import ChannelStack, Observation
from sunpy_deepem.stack.exposures import combine_exposures

__all__ = ["ChannelStack", "Observation", "combine_exposures"]
