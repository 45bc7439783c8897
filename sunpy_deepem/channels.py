"""AIA's six coronal EUV channels and their order."""

import astropy.units as u

__all__ = ["CHANNELS", "SYNTHETIC", "channel_quantity", "check_channels"]

#: Wavelengths of the channels in Å, in the order of the first axis of every array.
CHANNELS = (94, 131, 171, 193, 211, 335)

#: Value of the CONTENT header keyword of synthetic maps.
SYNTHETIC = "synthetic, from DEM"


def channel_quantity(channel):
    """Return the wavelength of ``channel`` (`int`, Å) as a `~astropy.units.Quantity`."""
    return channel * u.angstrom


def check_channels(array, name="intensity", *, channels=CHANNELS):
    """Raise `ValueError` unless ``array`` has the ``channels`` along its first axis."""
    if array.shape[:1] != (len(channels),):
        msg = (
            f"{name} must have the {len(channels)} channels {tuple(channels)} along its first axis, found shape "
            f"{array.shape}."
        )
        raise ValueError(msg)
