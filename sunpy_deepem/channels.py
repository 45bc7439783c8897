"""AIA's six coronal EUV channels and their order."""

import astropy.units as u
import numpy as np

__all__ = [
    "CHANNELS",
    "SYNTHETIC",
    "channel_bits",
    "channel_flags",
    "channel_quantity",
    "check_channels",
    "named_channels",
    "some_channels",
]

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


def channel_bits(flags):
    """
    Pack a flag of each channel into a bit field, bit i for channel i.

    Parameters
    ----------
    flags : `~numpy.ndarray`
        Booleans, shape ``(channels, ...)``, up to 16 channels.

    Returns
    -------
    `~numpy.ndarray`
        `numpy.uint16`, shape ``(...)``.

    Examples
    --------
    >>> from sunpy_deepem.channels import channel_bits, channel_flags
    >>> int(channel_bits(np.array([True, False, True])))
    5
    >>> channel_flags(5, 3)
    array([ True, False,  True])
    """
    bits = np.zeros(flags.shape[1:], dtype=np.uint16)
    for index, flag in enumerate(flags):
        bits |= flag * np.uint16(1 << index)
    return bits[()]


def channel_flags(bits, n):
    """Return the flags of ``n`` channels, shape ``(n, ...)``, from the bit field of `channel_bits`."""
    bits = np.asarray(bits)
    return np.stack([(bits & (1 << index)) != 0 for index in range(n)])


def some_channels(channels, known):
    """Return some of the ``known`` channels as a tuple, or raise if one is unknown or repeated."""
    given = [channels] if np.ndim(channels) == 0 else list(channels)
    if not given or not all(channel in known for channel in given) or len(set(given)) != len(given):
        msg = (
            f"channels must be some of {tuple(known)}, each once, found {channels}. 304 Å is optically thick and the "
            "ultraviolet channels are not coronal, so the emission measure does not give their intensity."
        )
        raise ValueError(msg)
    return tuple(known[known.index(channel)] for channel in given)


def named_channels(channels):
    """Return channels as a tuple, or raise unless each is one of AIA's or the name of another one, and there once."""
    given = [channels] if np.ndim(channels) == 0 else list(channels)
    names = [channel for channel in given if isinstance(channel, str)]
    if bad := [name for name in names if not name.strip() or name.isdigit()]:
        msg = f"channels must be wavelengths of AIA's channels or names that are not numbers, found {bad}."
        raise ValueError(msg)
    return some_channels(given, (*CHANNELS, *dict.fromkeys(names)))
