"""Calibrated, co-aligned, binned stacks of all channels."""

from sunpy_deepem.stack.channel_stack import ChannelStack, Observation

__all__ = ["ChannelStack", "Observation"]
