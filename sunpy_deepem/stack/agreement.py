"""Checks of the maps of an observation against each other."""

import astropy.units as u
import numpy as np
from sunpy.coordinates import get_earth

from sunpy_deepem.calibrate.preparation import is_level_1
from sunpy_deepem.stack.counts import is_per_second
from sunpy_deepem.stack.maps import channel_of
from sunpy_deepem.utils.messages import warn_user

__all__ = ["check_fields", "check_observers", "check_registration", "check_units"]

# SDO orbits the Earth at 0.0003 AU and moves by less than 0.000003 AU between two channels.
_MAX_DISTANCE, _MAX_DISTANCE_FROM_EARTH = 0.01 * u.AU, 0.3 * u.AU
# In level 1, AIA's channels are rolled against each other by up to 0.2° and point up to 20 arcsec apart; later levels
# and cutouts agree to a pixel or two.
_MAX_ROLL, _MAX_SHIFT, _MAX_SHIFT_OF_LEVEL_1 = 0.3, 5.0, 40.0


def check_registration(counts):
    """
    Warn of maps of level 1 that could not be registered.

    Parameters
    ----------
    counts : `dict` of `~sunpy_deepem.stack.counts.ChannelCounts`
        By channel.

    Warns
    -----
    sunpy.util.exceptions.SunpyUserWarning
        If there are cutouts of level 1.
    """
    if cutouts := [str(channel) for channel, one in counts.items() if is_level_1(one.smap) and not one.registered]:
        warn_user(
            f"The maps of {', '.join(cutouts)} Å are level 1 and not full-disk, so aiapy cannot register them; their "
            "WCS is used unchanged. Use level 1.5 cutouts where pointing matters."
        )


def check_observers(maps):
    """
    Raise unless all maps are seen from the same position; warn if that is not near the Earth.

    Parameters
    ----------
    maps : sequence of `~sunpy.map.GenericMap`

    Raises
    ------
    ValueError
        If two observers are further apart than SDO can move meanwhile.

    Warns
    -----
    sunpy.util.exceptions.SunpyUserWarning
        If the observer is not near the Earth, unlike SDO.
    """
    observers = [smap.observer_coordinate for smap in maps]
    places = [observer.cartesian.xyz.to(u.AU) for observer in observers]
    for smap, place in zip(maps, places, strict=True):
        if not (distance := np.linalg.norm(place - places[0])) <= _MAX_DISTANCE:
            msg = (
                f"maps: the observers of the maps must be the same, but that of {smap.wavelength:g} is {distance:.3g} "
                f"from that of {maps[0].wavelength:g}. Correct DSUN_OBS, HGLN_OBS and HGLT_OBS, or HAEX_OBS, HAEY_OBS "
                "and HAEZ_OBS."
            )
            raise ValueError(msg)
    earth = get_earth(observers[0].obstime).cartesian.xyz.to(u.AU)
    if (distance := np.linalg.norm(places[0] - earth)) > _MAX_DISTANCE_FROM_EARTH:
        warn_user(
            f"The observer of the maps is {distance:.3g} from the Earth, which SDO orbits. Check DSUN_OBS, HGLN_OBS "
            "and HGLT_OBS, unless the maps were reprojected to another observer."
        )


def check_units(maps):
    """
    Warn if some maps are normalized by exposure time and others are not.

    Parameters
    ----------
    maps : sequence of `~sunpy.map.GenericMap`

    Warns
    -----
    sunpy.util.exceptions.SunpyUserWarning
        If so.
    """
    normalized = {channel_of(smap): is_per_second(smap) for smap in maps}
    groups = [[f"{channel} Å" for channel, value in normalized.items() if value is kind] for kind in (True, False)]
    if all(groups):
        per_second, counts = map(", ".join, groups)
        warn_user(f"The maps of {per_second} are in DN / s, but those of {counts} in DN. Check their BUNIT.")


def check_fields(maps):
    """
    Warn if the header of a channel contradicts those of the others in roll or field of view.

    Parameters
    ----------
    maps : sequence of `~sunpy.map.GenericMap`

    Warns
    -----
    sunpy.util.exceptions.SunpyUserWarning
        If the roll or the field of a map differs from the median of all maps by more than AIA's channels do.
    """
    corners = np.array([_corners(smap) for smap in maps])
    along = corners[:, 1] - corners[:, 0]
    rolls = np.rad2deg(np.arctan2(along[:, 1], along[:, 0]))
    # Relative to one of them, because the median of angles near ±180° is not one of them.
    rolls = (rolls - rolls[0] + 180) % 360 - 180
    rolls -= np.median(rolls)
    shifts = np.linalg.norm(corners - np.median(corners, axis=0), axis=-1).max(axis=1)
    limit = _MAX_SHIFT_OF_LEVEL_1 if any(map(is_level_1, maps)) else _MAX_SHIFT
    odd = [
        f"{channel_of(smap)} Å (rolled by {abs(roll):.2f}°, corners {shift:.1f} arcsec away)"
        for smap, roll, shift in zip(maps, rolls, shifts, strict=True)
        if abs(roll) > _MAX_ROLL or shift > limit
    ]
    if odd:
        warn_user(
            f"The fields of some maps differ from those of the other channels: {', '.join(odd)}. Pixels are placed by "
            "their headers, and only the common field is used. Check CROTA2, PC, CRPIX, CRVAL and CDELT, unless these "
            "maps were rotated or cut out in another way on purpose."
        )


def _corners(smap):
    """Return the corners of a map in arcsec, shape (4, 2)."""
    ny, nx = smap.data.shape
    corners = smap.wcs.wcs_pix2world(np.array([[0, 0], [nx, 0], [0, ny], [nx, ny]]) - 0.5, 0)
    return ((corners + 180) % 360 - 180) * 3600
