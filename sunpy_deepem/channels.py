"""The six channels, in the one order that is used everywhere."""

import astropy.units as u

__all__ = ["CHANNELS", "INTENSITY_UNIT", "NATIVE_PLATE_SCALE", "SYNTHETIC", "channel_quantity"]

#: Wavelengths of the coronal EUV channels in Å, in the order of every array's first axis.
CHANNELS = (94, 131, 171, 193, 211, 335)

#: Unit of intensity; the pixel is AIA's native one, however coarse the map.
INTENSITY_UNIT = u.DN / (u.s * u.pix)

#: Value of the CONTENT header keyword by which a synthetic map is told from an observed one.
SYNTHETIC = "synthetic, from DEM"

# NOTE: AIA's plate scale after registration, Boerner et al. (2012), Solar Phys. 275, 41.
NATIVE_PLATE_SCALE = 0.6 * u.arcsec / u.pix


def channel_quantity(channel):
    """Return the wavelength of ``channel`` (`int`, Å) as a `~astropy.units.Quantity`."""
    return channel * u.angstrom
