"""The network of 1×1 convolutions, on plain arrays. Needs torch."""

from sunpy_deepem.network.architectures import ChapterNetwork, ScaledNetwork
from sunpy_deepem.network.consistency import ChannelConsistency
from sunpy_deepem.network.layers import PRECISIONS, PointwiseConvolution, PointwiseLayers, dtype_of
from sunpy_deepem.network.model import DeepEM
from sunpy_deepem.network.posterior import Mixture, PosteriorNetwork

__all__ = [
    "PRECISIONS",
    "ChannelConsistency",
    "ChapterNetwork",
    "DeepEM",
    "Mixture",
    "PointwiseConvolution",
    "PointwiseLayers",
    "PosteriorNetwork",
    "ScaledNetwork",
    "dtype_of",
]
