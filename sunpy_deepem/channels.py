"""The six channels, in the one order that is used everywhere."""

import astropy.units as u

__all__ = ["CHANNELS", "SYNTHETIC", "channel_quantity", "check_channels"]

#: Wavelengths of the coronal EUV channels in Å, in the order of every array's first axis.
CHANNELS = (94, 131, 171, 193, 211, 335)

#: Value of the CONTENT header keyword of synthetic maps.
SYNTHETIC = "synthetic, from DEM"


def channel_quantity(channel):
    """Return the wavelength of ``channel`` (`int`, Å) as a `~astropy.units.Quantity`."""
    return channel * u.angstrom


def check_channels(array, name="intensity"):
    """Raise `ValueError` unless the six channels lie along the first axis of ``array``."""
    if array.ndim < 1 or array.shape[0] != len(CHANNELS):
        msg = f"{name} must have the six channels {CHANNELS} along its first axis, found shape {array.shape}."
        raise ValueError(msg)
