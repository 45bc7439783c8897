"""
The synthetic Sun of one seed.

It is a sum of plasma components, each an image times a distribution over log T. The structure of the images is drawn
once per seed on fixed grids on the sphere, above the limb and around active regions, and interpolated to the pixels, so
that a seed gives the same Sun at any resolution.
"""

from functools import lru_cache

import numpy as np
from scipy import ndimage
from scipy.special import expit

from sunpy_deepem.sample.active_regions import ACTIVE_REGIONS, add_region, draw_region
from sunpy_deepem.sample.plasma import COMPONENTS
from sunpy_deepem.sample.textures import bright_points, fibril_field, network_lanes, random_field

__all__ = ["directions", "get_scene", "hole_depth"]

# The Sun without active regions: mean EM at disk center in AMPLITUDE_UNIT, b and e of the limb brightening
# 1 + b (1 / sqrt(mu^2 + e^2) - 1), and the scale height above the limb in solar radii. They reproduce the brightness of
# AIA images at solar maximum.
_BACKGROUND = {
    #              EM    b     e     height
    "transition": (0.80, 0.20, 0.03, 0.018),
    "hole": (0.80, 0.20, 0.08, 0.045),
    "cool": (1.10, 0.26, 0.06, 0.036),
    "quiet": (1.45, 0.17, 0.08, 0.075),
    "warm": (1.60, 0.15, 0.10, 0.11),
}
# Fraction of each component inside a coronal hole.
_LEFT_IN_HOLE = {"transition": 0.4, "cool": 0.06, "quiet": 0.05, "warm": 0.02}

# The visible hemisphere in azimuthal equidistant coordinates about disk center (radians), so that structure is
# foreshortened towards the limb.
_PLATE_SIZE, _PLATE_HALF = 1024, 1.62
# The corona above the limb in stretched height and position angle.
_RAYS_SHAPE = (128, 2048)


def directions(x, y):
    """Longitude and latitude in degrees of points of the disk, given in solar radii; undefined beyond the limb."""
    z = np.sqrt(np.maximum(1 - x**2 - y**2, 0))
    return np.rad2deg(np.arctan2(x, z)), np.rad2deg(np.arcsin(np.clip(y, -1, 1)))


def _plate_directions():
    """Longitude and latitude in degrees of the points of the plates, which extend beyond the limb."""
    axis = np.linspace(-_PLATE_HALF, _PLATE_HALF, _PLATE_SIZE, dtype=np.float32)
    shrink = np.sinc(np.minimum(np.hypot(axis, axis[:, np.newaxis]), np.pi / 2) / np.pi)
    return directions(axis * shrink, axis[:, np.newaxis] * shrink)


def hole_depth(longitude, latitude):
    """Approximate distance in degrees from the edge of a coronal hole, negative outside."""
    polar = latitude - 64
    sine, cosine = float(np.sin(np.deg2rad(18))), float(np.cos(np.deg2rad(18)))
    east_west, north = longitude - 5, latitude - 13
    across, along = cosine * east_west + sine * north, cosine * north - sine * east_west
    equatorial = 9 * (1 - np.hypot(across / 9, along / 21))
    return np.maximum(polar, equatorial)


def _disk_plates(rng):
    """Images of the components of quiet Sun and coronal holes on the sphere, shape (5, n, n), with a mean near 1."""
    shape = (_PLATE_SIZE, _PLATE_SIZE)
    fine = random_field(rng, shape, 1.0, longest=0.05)
    corona = random_field(rng, shape, 1.6, longest=0.12)
    large = random_field(rng, shape, 2.5, longest=0.4)
    fibrils = fibril_field(rng, shape, 5)
    web = network_lanes(rng, shape, 0.014, 0.45)
    points = bright_points(rng, shape, 170)
    log_images = {
        "transition": 0.35 * fine + 0.9 * web + 0.15 * corona,
        "hole": 0.20 * fine + 0.5 * web + 0.25 * corona + 0.15 * fibrils,
        "cool": 0.15 * fine + 0.4 * web + 0.28 * corona + 0.25 * fibrils + 0.1 * large,
        "quiet": 0.08 * fine + 0.15 * web + 0.30 * corona + 0.25 * fibrils + 0.25 * large,
        "warm": 0.08 * fine + 0.30 * corona + 0.20 * fibrils + 0.55 * large,
    }
    inside = expit((hole_depth(*_plate_directions()) + 0.9 * corona + 1.6 * large) / 0.6)
    plates = np.empty((len(_BACKGROUND), *shape), dtype=np.float32)
    for plate, (name, log_image) in zip(plates, log_images.items(), strict=True):
        image = np.exp(log_image)
        image *= 1 / image.mean()
        # Bright points are visible in holes, too.
        hole = inside if name == "hole" else 1 - (1 - _LEFT_IN_HOLE[name]) * inside
        plate[:] = image * hole + (0 if name == "hole" else 2.5) * points
    return plates


class Scene:
    """
    The Sun of one seed.

    Parameters
    ----------
    seed : `int`
    """

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self._plates = _disk_plates(rng)
        self._grass = random_field(rng, _RAYS_SHAPE, 1.0, longest=0.02, aspect=30)
        self._rays = random_field(rng, _RAYS_SHAPE, 2.0, longest=0.05, aspect=60)
        self._stamps = [draw_region(rng, region) for region in ACTIVE_REGIONS]

    def amplitudes(self, x, y):
        """
        Return the EM of each component on a grid of the sky.

        Parameters
        ----------
        x, y : `~numpy.ndarray`
            Axes of the grid in solar radii from disk center, to the west and north.

        Returns
        -------
        `~numpy.ndarray`
            In units of 1e26 cm^-5, shape ``(number of components, y.size, x.size)``.
        """
        amplitudes = np.zeros((len(COMPONENTS), y.size, x.size), dtype=np.float32)
        xx, yy = np.broadcast_arrays(x, y[:, np.newaxis])
        radius = np.hypot(xx, yy)
        on_disk = radius < 1
        amplitudes[: len(_BACKGROUND), on_disk] = self._disk(xx[on_disk], yy[on_disk], radius[on_disk])
        amplitudes[: len(_BACKGROUND), ~on_disk] = self._corona(xx[~on_disk], yy[~on_disk], radius[~on_disk])
        for region, images in zip(ACTIVE_REGIONS, self._stamps, strict=True):
            add_region(amplitudes, region, images, x, y)
        return amplitudes

    def _disk(self, x, y, radius):
        """Quiet Sun and coronal holes, shape (5, n)."""
        mu = np.sqrt(1 - radius**2)
        stretch = 1 / np.sinc(np.arcsin(radius) / np.pi)
        scale = (_PLATE_SIZE - 1) / (2 * _PLATE_HALF)
        where = np.stack([y * stretch + _PLATE_HALF, x * stretch + _PLATE_HALF]) * scale
        # Using the plates as spline coefficients smooths them slightly and keeps them positive.
        return np.stack(
            [
                em
                * (1 + b * (1 / np.hypot(mu, e) - 1))
                * ndimage.map_coordinates(plate, where, order=2, prefilter=False)
                for plate, (em, b, e, _) in zip(self._plates, _BACKGROUND.values(), strict=True)
            ]
        )

    def _corona(self, x, y, radius):
        """Corona above the limb, shape (5, n)."""
        height = radius - 1
        angle = np.arctan2(y, x)
        where = np.stack(
            [
                np.log1p(height / 0.1) / np.log1p(10) * (_RAYS_SHAPE[0] - 1),
                angle % (2 * np.pi) / (2 * np.pi) * _RAYS_SHAPE[1],
            ]
        )
        grass, rays = (
            ndimage.map_coordinates(field, where, order=2, mode="grid-wrap", prefilter=False)
            for field in (self._grass, self._rays)
        )
        return _corona_profiles(height, np.rad2deg(angle), grass, rays)


def _corona_profiles(height, angle, grass, rays):
    """EM above the limb from height, position angle in degrees from west and two random fields, shape (5, n)."""
    north = np.minimum(np.abs(angle - 90), 360 - np.abs(angle - 90))
    hole = expit((25 - north - 2 * rays) / 2)
    # Streamers above the activity belts.
    latitude = 90 - np.minimum(north, 180 - north)
    belt = 0.5 + 1.6 * np.exp(-((latitude / 35) ** 2))
    columns = []
    for name, (em, b, e, scale) in _BACKGROUND.items():
        fall = np.exp(-height / scale) + 0.02 * np.exp(-height / 0.2) + 1e-4
        streamers = belt if name in ("quiet", "warm") else 1
        texture = np.exp((0.15 if name in ("quiet", "warm") else 0.35) * grass * np.exp(-height / 0.1) + 0.22 * rays)
        fraction = hole if name == "hole" else 1 - (1 - _LEFT_IN_HOLE[name]) * hole
        columns.append(em * (1 + b * (1 / e - 1)) * fall * streamers * texture * fraction)
    return np.stack(columns)


# A scene takes a second and 30 MB; maps, EM and cube of a seed use the same one.
@lru_cache(maxsize=2)
def get_scene(seed):
    """Return the scene of a seed."""
    return Scene(seed)
