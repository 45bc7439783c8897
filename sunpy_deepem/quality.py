"""What can be wrong with a pixel: `Quality`."""

from enum import IntFlag

__all__ = ["HIGH_CHI2", "Quality"]

#: χ² (mean over channels) above which a fit does not explain what was observed.
HIGH_CHI2 = 3.0


class Quality(IntFlag):
    """
    Bit flags of a pixel; zero is a pixel without complaint.

    Examples
    --------
    >>> from sunpy_deepem import Quality
    >>> Quality(6)
    <Quality.SATURATED|LOW_SIGNAL: 6>
    """

    #: A channel has no valid data here; the pixel is masked.
    MISSING = 1
    #: A native pixel under this one was saturated in some channel; the pixel is masked.
    SATURATED = 2
    #: Fewer than three channels are above 3 σ.
    LOW_SIGNAL = 4
    #: The reduced χ² of the fit is above 3.
    HIGH_CHI2 = 8
    #: More than a quarter of the EM lies in the first two or the last two bins, where the answer is an extrapolation.
    EDGE = 16
    #: Some channel is negative; it is kept, with its σ.
    NEGATIVE = 32
    #: In the detector column of many saturated pixels, into which their charge may have spilled; it is kept.
    BLOOMING = 64
    #: The network's own answer, before any refinement, has a χ² above 3: unlike what the network was trained on.
    UNUSUAL = 128
