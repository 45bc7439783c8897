"""Maps brought together: one calibrated, co-aligned, binned stack of all channels."""

from sunpy_deepem.stack.channel_stack import ChannelStack, Observation

__all__ = ["ChannelStack", "Observation"]
