"""The six channels, in the one order that is used everywhere."""

import astropy.units as u

__all__ = ["CHANNELS", "SYNTHETIC", "channel_quantity"]

#: Wavelengths of the coronal EUV channels in Å, in the order of every array's first axis.
CHANNELS = (94, 131, 171, 193, 211, 335)

#: Value of the CONTENT header keyword of synthetic maps.
SYNTHETIC = "synthetic, from DEM"


def channel_quantity(channel):
    """Return the wavelength of ``channel`` (`int`, Å) as a `~astropy.units.Quantity`."""
    return channel * u.angstrom
