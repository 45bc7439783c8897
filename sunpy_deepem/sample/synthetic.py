"""
A synthetic Sun whose emission measure is known: the data for the demonstration, the documentation and the tests.

The scene is a sum of a few plasma components, each an image times a distribution over log T. Its structure (network,
corona, loops) is drawn once per seed on small fixed grids laid on the sphere, over the limb and around the active
regions, and interpolated to the pixels asked for, so it is the same Sun at any resolution.
"""

from dataclasses import dataclass
from functools import lru_cache
from operator import index

import astropy.units as u
import numpy as np
import sunpy.map
from astropy.time import TimeDelta
from scipy import fft, ndimage
from scipy.special import expit
from sunpy.coordinates import get_earth
from sunpy.coordinates.sun import L0, carrington_rotation_number
from sunpy.time import parse_time

from sunpy_deepem.calibrate.photometry import counts_uncertainty, degradation_factor, native_pixels
from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.cube.dem_cube import DEMCube
from sunpy_deepem.response.temperature_response import TemperatureResponse
from sunpy_deepem.stack.channel_stack import ChannelStack
from sunpy_deepem.temperature import LogTBins
from sunpy_deepem.utils.checks import one_time

__all__ = ["sample_cube", "sample_em", "sample_maps", "sample_regions"]

_OBSTIME = "2014-01-01T00:00:00"
_FIELD_OF_VIEW = 2457.6 * u.arcsec
# NOTE: The radius that AIA's headers give as RSUN_REF, not the IAU's.
_RSUN_REF = 696000 * u.km

# Rows of this many pixels are made at a time, so that a full-resolution disc fits in memory.
_PIXELS_PER_BLOCK = 2**20
# A coarser map is the mean of a scene sampled at least this finely, as a binned map is the mean of native pixels.
_LEAST_SAMPLES = 512

# Exposure in seconds, telescope, and start in seconds after the nominal time. The six exposures fall within AIA's 12 s
# cadence, in the order of the channels, which is thereby that of a sequence sorted by date.
_EXPOSURES = {
    94: (2.900816, 4, 0.12),
    131: (2.901307, 1, 1.62),
    171: (1.999597, 3, 4.34),
    193: (2.000014, 2, 5.84),
    211: (2.900819, 2, 8.62),
    335: (2.900797, 1, 10.12),
}

# Unit of the amplitudes below, cm^-5.
_EM_UNIT = 1e26
# Quiet Sun has no emission measure above this log T.
_QUIET_LIMIT = 6.5


def _normal(center, width, limit=np.inf):
    return lambda log_t: np.where(log_t < limit, np.exp(-0.5 * ((log_t - center) / width) ** 2), 0)


def _flank(slope, peak=6.6, fall=10, start=5.8):
    """EM proportional to T**slope from ``start`` up to ``peak``, T**-fall above."""
    return lambda log_t: np.where(
        log_t > start, 10 ** np.where(log_t < peak, slope * (log_t - peak), -fall * (log_t - peak)), 0
    )


# NOTE: EM proportional to T^2..4 below a peak near log T 6.6 is what active region cores show, Warren et al. (2012),
# ApJ 759, 141, https://doi.org/10.1088/0004-637X/759/2/141.
_COMPONENTS = {
    "transition": _normal(5.6, 0.10, _QUIET_LIMIT),
    "hole": _normal(5.95, 0.10, _QUIET_LIMIT),
    "cool": _normal(6.05, 0.08, _QUIET_LIMIT),
    "quiet": _normal(6.16, 0.08, _QUIET_LIMIT),
    "warm": _normal(6.28, 0.07, _QUIET_LIMIT),
    "loops": _normal(6.40, 0.08),
    "gentle core": _flank(2.2),
    "steep core": _flank(4.0),
    "flare": _normal(7.0, 0.08),
}
_INDEX = {name: i for i, name in enumerate(_COMPONENTS)}

# The Sun without active regions: mean EM at disc centre in _EM_UNIT, the b and e of its brightening towards the limb,
# 1 + b (1 / sqrt(mu^2 + e^2) - 1), and the scale height in solar radii over which it falls above the limb. Chosen to
# give the brightness that AIA saw at solar maximum.
_BACKGROUND = {
    #              EM    b     e     height
    "transition": (0.80, 0.20, 0.03, 0.018),
    "hole": (0.80, 0.20, 0.08, 0.045),
    "cool": (1.10, 0.26, 0.06, 0.036),
    "quiet": (1.45, 0.17, 0.08, 0.075),
    "warm": (1.60, 0.15, 0.10, 0.11),
}
# What is left of each component inside a coronal hole.
_LEFT_IN_HOLE = {"transition": 0.4, "cool": 0.06, "quiet": 0.05, "warm": 0.02}

# The visible hemisphere, in azimuthal equidistant coordinates about disc centre (radians), which make structure narrow
# towards the limb as it is on the Sun.
_PLATE_SIZE, _PLATE_HALF = 1024, 1.62
# The corona above the limb, in position angle and a stretched height.
_RAYS_SHAPE = (128, 2048)
# The surroundings of an active region, in the plane of the sky.
_STAMP_SIZE = 320


@dataclass(frozen=True)
class _ActiveRegion:
    """
    Where an active region is and what it is made of.

    ``longitude``, ``latitude`` and ``tilt`` are in degrees; ``size``, the separation of the polarities, and ``half``,
    half the side of its surroundings, are in solar radii.
    """

    longitude: float
    latitude: float
    tilt: float
    size: float
    half: float
    core: str
    brightness: float
    flare: tuple | None = None

    @property
    def frame(self):
        """Unit vectors radially outwards, along the tilted axis and across it, shape (3, 3)."""
        lon, lat, tilt = np.deg2rad([self.longitude, self.latitude, self.tilt])
        radial = np.array([np.cos(lat) * np.sin(lon), np.sin(lat), np.cos(lat) * np.cos(lon)])
        east_west = np.array([np.cos(lon), 0, -np.sin(lon)])
        north = np.cross(radial, east_west)
        along = np.cos(tilt) * east_west + np.sin(tilt) * north
        return np.stack([radial, along, np.cross(radial, along)])

    @property
    def center(self):
        """Centre in the plane of the sky, in solar radii."""
        return self.frame[0, :2]

    @property
    def flare_center(self):
        """Where the flare is in the plane of the sky, in solar radii."""
        return (np.array([1, *self.flare]) @ self.frame)[:2]

    def distance(self, x, y):
        """Distance of points of the sky from the centre, in solar radii."""
        return np.hypot(x - self.center[0], y - self.center[1])


_ACTIVE_REGIONS = (
    _ActiveRegion(38, -16, -8, 0.135, 0.38, "steep core", 1.0, flare=(0.02, -0.03)),
    _ActiveRegion(-31, 18, 9, 0.110, 0.32, "gentle core", 0.7),
    _ActiveRegion(-84, -13, 55, 0.120, 0.34, "gentle core", 0.8),
)


@dataclass(frozen=True)
class _Loops:
    """
    A population of loops: its component and brightest EM, how many bundles of how many strands, and where.

    ``reach`` is the range of the distance between footpoints and ``spread`` the scatter of the bundles along the
    neutral line, both in units of the region's size. ``part`` is what is seen: the whole "loop", the near legs of a
    "fan" that opens from a spot, or the "moss" at the feet. ``blur`` is in pixels of the stamp.
    """

    component: str
    peak: float
    bundles: int
    strands: int
    reach: tuple
    spread: float
    blur: float = 0.8
    part: str = "loop"


_LOOPS = (
    _Loops("transition", 9, 14, 20, (0.5, 1.2), 0.40, blur=1.2, part="moss"),
    _Loops("hole", 22, 6, 22, (2.5, 5.0), 0.35, part="fan"),
    _Loops("hole", 8, 16, 20, (0.5, 1.2), 0.40, blur=1.2, part="moss"),
    _Loops("cool", 38, 7, 24, (2.0, 5.0), 0.35, part="fan"),
    _Loops("cool", 13, 18, 20, (0.5, 1.4), 0.40, blur=1.2, part="moss"),
    _Loops("cool", 12, 7, 12, (1.0, 3.0), 0.45),
    _Loops("warm", 26, 16, 14, (0.8, 3.2), 0.50),
    _Loops("warm", 10, 24, 8, (0.8, 3.6), 0.60, blur=8),
    _Loops("loops", 50, 14, 12, (0.6, 2.0), 0.45),
    _Loops("loops", 14, 16, 8, (0.6, 2.4), 0.50, blur=7),
    _Loops("core", 220, 9, 12, (0.4, 1.1), 0.30, blur=1.2),
)
_FLARE = _Loops("flare", 1100, 3, 12, (0.18, 0.32), 0.06, blur=1.0)
_FLARE_RADIUS = 0.02
_POINTS_PER_STRAND = 400


def _filtered_noise(rng, shape, amplitude, aspect=1.0):
    """Gaussian field of zero mean and unit variance from the amplitude of waves of k cycles in the field's width."""
    ky = np.fft.fftfreq(shape[0], 1 / shape[0])[:, np.newaxis].astype(np.float32)
    kx = np.fft.rfftfreq(shape[1], 1 / shape[1]).astype(np.float32)
    waves = fft.rfft2(rng.standard_normal(shape, dtype=np.float32))
    field = fft.irfft2(waves * amplitude(np.hypot(aspect * ky, kx)), s=shape)
    return (field - field.mean()) / field.std()


def _random_field(rng, shape, slope, *, longest, aspect=1.0):
    """Power-law field: amplitude k**-slope for waves shorter than ``longest``, a part of the width."""
    return _filtered_noise(rng, shape, lambda k: (1 + (k * longest) ** 2) ** (-slope / 2), aspect)


def _network(rng, shape, wavelength, width):
    """Web of bright lanes, 0 to 1: the zero contours of a field of one wavelength, a part of the width."""
    field = _filtered_noise(rng, shape, lambda k: np.exp(-0.5 * ((k * wavelength - 1) / 0.3) ** 2))
    return np.exp(-((field / width) ** 2))


def _fibrils(rng, shape, steps):
    """Gaussian field of unit variance, drawn out into strands along the directions of a smoother one."""
    image = _random_field(rng, shape, 0.7, longest=0.05)
    angle = 3 * _random_field(rng, shape, 3.0, longest=0.06)
    down, right = 1.5 * np.sin(angle), 1.5 * np.cos(angle)
    rows, columns = (np.arange(side, dtype=np.float32) for side in shape)
    drawn = np.zeros(shape, dtype=np.float32)
    for step in range(-steps, steps + 1):
        row = np.rint(rows[:, np.newaxis] + step * down).astype(np.int32) % shape[0]
        column = np.rint(columns + step * right).astype(np.int32) % shape[1]
        drawn += image.ravel().take(row * shape[1] + column)
    return (drawn - drawn.mean()) / drawn.std()


def _bright_points(rng, shape, number):
    """Image of small elongated bipoles, each with a peak of order one."""
    image = np.zeros(shape, dtype=np.float32)
    place, lean = rng.integers(0, shape[0], (2, number)), rng.integers(-2, 3, (2, number))
    peak = rng.lognormal(-0.5, 0.7, number)
    for step in (-1, 0, 1):
        np.add.at(image, tuple((place + step * lean) % shape[0]), peak)
    return ndimage.gaussian_filter(image, 1.1, mode="wrap") * (1.1**2 * np.pi)


def _directions(x, y):
    """Longitude and latitude in degrees of points of the disc, in solar radii; beyond the limb they mean nothing."""
    z = np.sqrt(np.maximum(1 - x**2 - y**2, 0))
    return np.rad2deg(np.arctan2(x, z)), np.rad2deg(np.arcsin(np.clip(y, -1, 1)))


def _plate_directions():
    """Longitude and latitude in degrees of every point of the plates, which reach a little over the limb."""
    axis = np.linspace(-_PLATE_HALF, _PLATE_HALF, _PLATE_SIZE, dtype=np.float32)
    shrink = np.sinc(np.minimum(np.hypot(axis, axis[:, np.newaxis]), np.pi / 2) / np.pi)
    return _directions(axis * shrink, axis[:, np.newaxis] * shrink)


def _hole_depth(longitude, latitude):
    """How far inside a coronal hole a direction is: degrees from its edge, roughly, negative outside."""
    polar = latitude - 64
    sine, cosine = float(np.sin(np.deg2rad(18))), float(np.cos(np.deg2rad(18)))
    east_west, north = longitude - 5, latitude - 13
    across, along = cosine * east_west + sine * north, cosine * north - sine * east_west
    equatorial = 9 * (1 - np.hypot(across / 9, along / 21))
    return np.maximum(polar, equatorial)


def _disc_plates(rng):
    """Images of the components of quiet Sun and coronal holes on the sphere, shape (5, n, n), of mean about one."""
    shape = (_PLATE_SIZE, _PLATE_SIZE)
    fine = _random_field(rng, shape, 1.0, longest=0.05)
    corona = _random_field(rng, shape, 1.6, longest=0.12)
    large = _random_field(rng, shape, 2.5, longest=0.4)
    fibrils = _fibrils(rng, shape, 5)
    web = _network(rng, shape, 0.014, 0.45)
    points = _bright_points(rng, shape, 170)
    log_images = {
        "transition": 0.35 * fine + 0.9 * web + 0.15 * corona,
        "hole": 0.20 * fine + 0.5 * web + 0.25 * corona + 0.15 * fibrils,
        "cool": 0.15 * fine + 0.4 * web + 0.28 * corona + 0.25 * fibrils + 0.1 * large,
        "quiet": 0.08 * fine + 0.15 * web + 0.30 * corona + 0.25 * fibrils + 0.25 * large,
        "warm": 0.08 * fine + 0.30 * corona + 0.20 * fibrils + 0.55 * large,
    }
    inside = expit((_hole_depth(*_plate_directions()) + 0.9 * corona + 1.6 * large) / 0.6)
    plates = np.empty((len(_BACKGROUND), *shape), dtype=np.float32)
    for plate, (name, log_image) in zip(plates, log_images.items(), strict=True):
        image = np.exp(log_image)
        image *= 1 / image.mean()
        # Bright points outshine the corona around them, in holes too.
        hole = inside if name == "hole" else 1 - (1 - _LEFT_IN_HOLE[name]) * inside
        plate[:] = image * hole + (0 if name == "hole" else 2.5) * points
    return plates


def _feet(rng, region, loops):
    """Footpoints of strands along and across the region's axis, in solar radii, two arrays of shape (2, number)."""
    n, size = loops.bundles, region.size
    separation = size * rng.uniform(*loops.reach, n)
    offset, shear = size * loops.spread * rng.standard_normal((2, n))
    if loops.part == "fan":
        side = np.where(np.arange(n) % 2, -1, 1)
        near = np.stack([side * size * rng.uniform(0.5, 0.8, n), offset])
    else:
        side = np.ones(n)
        near = np.stack([-separation / 2, offset])
        far = np.stack([separation / 2, offset + 0.6 * shear])
    near, separation, side = (np.repeat(array, loops.strands, axis=-1) for array in (near, separation, side))
    near = near + 0.045 * size * rng.standard_normal(near.shape)
    if loops.part == "fan":
        angle = np.repeat(0.4 * rng.standard_normal(n), loops.strands) + 0.45 * rng.standard_normal(side.size)
        return near, near + separation * np.stack([side * np.cos(angle), np.sin(angle)])
    far = np.repeat(far, loops.strands, axis=-1)
    far = far + 0.08 * size * rng.standard_normal(far.shape)
    if loops.component == "flare":
        shift = np.array(region.flare)[:, np.newaxis]
        near, far = near + shift, far + shift
    return near, far


def _trace(rng, region, loops):
    """Points along strands, in solar radii, shape (3, points, strands), and the emission of each, (points, strands)."""
    near, far = _feet(rng, region, loops)
    half = (far - near) / 2
    length = np.hypot(*half)
    across = np.stack([-half[1], half[0]]) / length
    # The angle along half an ellipse that stands on the two feet, leaning to one side.
    angle = np.linspace(0, np.pi, _POINTS_PER_STRAND)[:, np.newaxis]
    ratio = rng.uniform(0.6, 1.2, loops.bundles).repeat(loops.strands) * rng.normal(1, 0.08, length.size)
    lean = (0.3 * rng.standard_normal(loops.bundles)).repeat(loops.strands) + 0.06 * rng.standard_normal(length.size)
    height = length * ratio * np.sin(angle)
    plane = ((near + far) / 2)[:, np.newaxis] - np.cos(angle) * half[:, np.newaxis]
    plane = plane + across[:, np.newaxis] * height * np.sin(lean)
    base = np.einsum("vc,vpn->cpn", region.frame, np.stack([np.ones_like(height), *plane]))
    points = base / np.linalg.norm(base, axis=0) * (1 + height * np.cos(lean))
    weight = np.linalg.norm(np.gradient(points, axis=1), axis=0)
    weight = weight * rng.lognormal(0, 0.5, loops.bundles).repeat(loops.strands) * rng.lognormal(0, 0.6, length.size)
    if loops.part == "fan":
        # Only the near leg is dense enough to be seen, and fades with height.
        weight = weight * np.exp(-height / 0.08) * (angle < np.pi / 2)
    elif loops.part == "moss":
        weight = weight * (height < 0.25 * length)
    hidden = (points[2] < 0) & (np.hypot(points[0], points[1]) < 1)
    return points, np.where(hidden, 0, weight)


def _draw(rng, region, loops):
    """Image of loops in the surroundings of a region, in _EM_UNIT."""
    points, weight = _trace(rng, region, loops)
    pixel = (
        (points[:2] - region.center[:, np.newaxis, np.newaxis] + region.half) / (2 * region.half) * (_STAMP_SIZE - 1)
    )
    column, row = np.rint(pixel).astype(int)
    inside = (np.minimum(column, row) >= 0) & (np.maximum(column, row) < _STAMP_SIZE)
    flat = row[inside] * _STAMP_SIZE + column[inside]
    image = np.bincount(flat, weight[inside], _STAMP_SIZE**2).reshape(_STAMP_SIZE, _STAMP_SIZE)
    image = ndimage.gaussian_filter(image, loops.blur)
    # The mean of the hundred brightest pixels, as the brightest alone depends on how strands happen to cross.
    brightest = np.partition(image, -100, axis=None)[-100:].mean()
    return loops.peak * region.brightness * image / brightest


def _stamp(rng, region):
    """Images of all components around an active region, shape (number of components, n, n)."""
    images = np.zeros((len(_COMPONENTS), _STAMP_SIZE, _STAMP_SIZE), dtype=np.float32)
    for loops in _LOOPS:
        images[_INDEX[region.core if loops.component == "core" else loops.component]] += _draw(rng, region, loops)
    if region.flare is not None:
        images[_INDEX["flare"]] += _draw(rng, region, _FLARE)
    axis = np.linspace(-1, 1, _STAMP_SIZE, dtype=np.float32)
    # Nothing at the border, where the stamp ends.
    return images * np.clip((0.98 - np.hypot(axis, axis[:, np.newaxis])) / 0.25, 0, 1) ** 2


class _Scene:
    """
    The Sun of one seed.

    Parameters
    ----------
    seed : `int`
    """

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self._plates = _disc_plates(rng)
        self._grass = _random_field(rng, _RAYS_SHAPE, 1.0, longest=0.02, aspect=30)
        self._rays = _random_field(rng, _RAYS_SHAPE, 2.0, longest=0.05, aspect=60)
        self._stamps = [_stamp(rng, region) for region in _ACTIVE_REGIONS]

    def amplitudes(self, x, y):
        """
        EM of each component at points of the sky.

        Parameters
        ----------
        x, y : `~numpy.ndarray`
            Axes of a grid, in solar radii from disc centre, westwards and northwards.

        Returns
        -------
        `~numpy.ndarray`
            In units of 1e26 cm^-5, shape ``(number of components, y.size, x.size)``.
        """
        amplitudes = np.zeros((len(_COMPONENTS), y.size, x.size), dtype=np.float32)
        xx, yy = np.broadcast_arrays(x, y[:, np.newaxis])
        radius = np.hypot(xx, yy)
        on_disc = radius < 1
        amplitudes[: len(_BACKGROUND), on_disc] = self._disc(xx[on_disc], yy[on_disc], radius[on_disc])
        amplitudes[: len(_BACKGROUND), ~on_disc] = self._corona(xx[~on_disc], yy[~on_disc], radius[~on_disc])
        for region, images in zip(_ACTIVE_REGIONS, self._stamps, strict=True):
            _add_stamp(amplitudes, region, images, x, y)
        return amplitudes

    def _disc(self, x, y, radius):
        """Quiet Sun and coronal holes, shape (5, n)."""
        mu = np.sqrt(1 - radius**2)
        stretch = 1 / np.sinc(np.arcsin(radius) / np.pi)
        scale = (_PLATE_SIZE - 1) / (2 * _PLATE_HALF)
        where = np.stack([y * stretch + _PLATE_HALF, x * stretch + _PLATE_HALF]) * scale
        # The plates are taken as spline coefficients, which smooths them a little and keeps them positive.
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
    """EM above the limb from its height, position angle in degrees from west, and two fields; shape (5, n)."""
    north = np.minimum(np.abs(angle - 90), 360 - np.abs(angle - 90))
    hole = expit((25 - north - 2 * rays) / 2)
    # Streamers stand over the activity belts.
    latitude = 90 - np.minimum(north, 180 - north)
    belt = 0.5 + 1.6 * np.exp(-((latitude / 35) ** 2))
    columns = []
    for name, (em, b, e, scale) in _BACKGROUND.items():
        fall = np.exp(-height / scale) + 0.02 * np.exp(-height / 0.2) + 1e-4
        streamers = belt if name in ("quiet", "warm") else 1
        texture = np.exp((0.15 if name in ("quiet", "warm") else 0.35) * grass * np.exp(-height / 0.1) + 0.22 * rays)
        share = hole if name == "hole" else 1 - (1 - _LEFT_IN_HOLE[name]) * hole
        columns.append(em * (1 + b * (1 / e - 1)) * fall * streamers * texture * share)
    return np.stack(columns)


def _add_stamp(amplitudes, region, images, x, y):
    """Add the images around a region to ``amplitudes`` on the grid of axes ``x`` and ``y``."""
    columns, rows = (
        slice(*np.searchsorted(axis, [middle - region.half, middle + region.half]))
        for axis, middle in zip((x, y), region.center, strict=True)
    )
    scale = (_STAMP_SIZE - 1) / (2 * region.half)
    where = np.stack(
        np.meshgrid(
            (y[rows] - region.center[1] + region.half) * scale,
            (x[columns] - region.center[0] + region.half) * scale,
            indexing="ij",
        )
    )
    if where.size == 0:
        return
    for amplitude, image in zip(amplitudes, images, strict=True):
        if image.any():
            amplitude[rows, columns] += ndimage.map_coordinates(image, where, order=2, prefilter=False)


# One Sun takes a second to make and 30 MB to hold, and is asked for again for its EM.
@lru_cache(maxsize=2)
def _scene(seed):
    return _Scene(seed)


def _square_side(shape):
    """Check ``shape`` and return its one side."""
    problem = f"shape must be two equal whole numbers of pixels, at least 1, found {shape!r}. Example: (512, 512)."
    try:
        sides = [index(side) for side in shape]
    except TypeError:
        raise TypeError(problem) from None
    if len(sides) != 2 or min(sides) < 1 or sides[0] != sides[1]:
        raise ValueError(problem)
    return sides[0]


def _checked_seed(seed):
    try:
        seed = index(seed)
    except TypeError:
        msg = f"seed must be a whole number, found {seed!r}."
        raise TypeError(msg) from None
    if seed < 0:
        msg = f"seed must not be negative, found {seed}. Any whole number from 0 will do."
        raise ValueError(msg)
    return seed


def _plate_scale(n):
    return _FIELD_OF_VIEW / (n * u.pix)


def _observer(obstime):
    """Earth at ``obstime``, near which SDO is, and the apparent radius of the Sun from there."""
    earth = get_earth(obstime)
    return earth, np.arcsin((_RSUN_REF / earth.radius).to_value("")).item() * u.rad


def _axis(n, radius):
    """Centres of ``n`` pixels across the field of view, in solar radii of apparent size ``radius``."""
    half = (_FIELD_OF_VIEW / radius).to_value("") / 2
    return (np.arange(n) + 0.5) * (2 * half / n) - half


def _blocks(scene, n, radius):
    """Yield rows of the map, as a slice, and the amplitudes of the components in them, shape (components, rows, n)."""
    fine = -(-_LEAST_SAMPLES // n)
    axis = _axis(n * fine, radius)
    step = max(1, _PIXELS_PER_BLOCK // (n * fine * fine))
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
        amplitudes = scene.amplitudes(axis, axis[rows.start * fine : rows.stop * fine])
        yield rows, amplitudes.reshape(len(_COMPONENTS), rows.stop - rows.start, fine, n, fine).mean(axis=(2, 4))


def _em_per_bin(bins):
    """EM in each bin of a component of unit amplitude, in cm^-5, shape (number of bins, number of components)."""
    # As fine as the response is folded; the wide axis is what the amplitudes are normalised over.
    wide = np.arange(5.0, 8.0, 1e-3)
    fine = bins.edges[:-1, np.newaxis] + (np.arange(100) + 0.5) / 100 * bins.step
    return _EM_UNIT * np.stack(
        [emission(fine).mean(axis=1) * bins.step / (emission(wide).sum() * 1e-3) for emission in _COMPONENTS.values()],
        axis=1,
    )


def sample_em(shape=(1024, 1024), *, seed=0, bins=None, obstime=_OBSTIME):
    """
    Emission measure of the synthetic Sun.

    The Sun has quiet regions, a polar and an equatorial coronal hole, two active regions on the disc with loops of
    different temperatures, one of them with a small flare, loops over the east limb, and a corona. See
    `sample_regions` for where they are.

    Parameters
    ----------
    shape : `tuple` of two `int`, optional
        Number of pixels along the two axes, equal, ``(ny, nx)``. The field of view is AIA's, 2457.6 arcsec, however
        many they are; a pixel holds the mean over it.
    seed : `int`, optional
        Another seed gives other network, loops and rays; regions stay where they are.
    bins : `LogTBins`, optional
        Bins of log T, by default 18 with centres from 5.5 to 7.2. Plasma at temperatures outside them is left out.
    obstime : `~astropy.time.Time` or `str`, optional
        Time for which the apparent size of the Sun is computed.

    Returns
    -------
    `~astropy.units.Quantity`
        EM per bin in cm-5, shape ``(number of bins, ny, nx)``, single precision.

    Raises
    ------
    TypeError
        If ``shape`` or ``seed`` is not made of whole numbers.
    ValueError
        If ``shape`` is not two equal positive numbers, or ``seed`` is negative.

    Examples
    --------
    >>> from sunpy_deepem.sample import sample_em
    >>> sample_em((64, 64)).shape
    (18, 64, 64)
    """
    n, scene = _square_side(shape), _scene(_checked_seed(seed))
    per_bin = _em_per_bin(LogTBins() if bins is None else bins).astype(np.float32)
    _, radius = _observer(one_time(obstime, "obstime"))
    em = np.empty((len(per_bin), n, n), dtype=np.float32)
    for rows, amplitudes in _blocks(scene, n, radius):
        em[:, rows] = np.tensordot(per_bin, amplitudes, axes=1)
    return u.Quantity(em, "cm-5", copy=False)


def sample_maps(shape=(1024, 1024), *, noise=True, seed=0, obstime=_OBSTIME, response=None):
    """
    Six AIA maps of the synthetic Sun, as level 1.5 files hold them.

    Counts are K · EM · exposure time · degradation, with K from ``response``, so they want the same treatment as real
    data before inversion.

    Parameters
    ----------
    shape : `tuple` of two `int`, optional
        Number of pixels along the two axes, equal, ``(ny, nx)``. The field of view is AIA's, 2457.6 arcsec.
    noise : `bool`, optional
        Add AIA's noise, drawn for each pixel as for the mean of the native pixels it covers.
    seed : `int`, optional
        Seed of the Sun, as in `sample_em`, and of the noise.
    obstime : `~astropy.time.Time` or `str`, optional
        Time of the first exposure, to a fraction of a second; the others follow within 12 s.
    response : `TemperatureResponse`, optional
        Response, and the bins over which EM is taken to be uniform per dex. By default `TemperatureResponse.default`.

    Returns
    -------
    `~sunpy.map.MapSequence`
        Six `~sunpy.map.sources.AIAMap` in DN, not per second and not corrected for degradation, single precision, in
        the order of `sunpy_deepem.CHANNELS`, which is also that of time. Their headers call them synthetic.

    Raises
    ------
    TypeError
        If ``shape`` or ``seed`` is not made of whole numbers.
    ValueError
        If ``shape`` is not two equal positive numbers, or ``seed`` is negative.

    Examples
    --------
    >>> from sunpy_deepem.sample import sample_maps
    >>> [int(m.wavelength.value) for m in sample_maps((64, 64))]
    [94, 131, 171, 193, 211, 335]
    """
    n, seed = _square_side(shape), _checked_seed(seed)
    response = TemperatureResponse.default() if response is None else response
    obstime = one_time(obstime, "obstime")
    observer, radius = _observer(obstime)
    headers = _headers(n, obstime, observer, radius)
    counts = _counts(n, seed, radius, headers, response)
    if noise:
        for channel, image in zip(CHANNELS, counts, strict=True):
            _add_noise(image, channel, seed)
    return sunpy.map.Map(list(zip(counts, headers, strict=True)), sequence=True)


def _counts(n, seed, radius, headers, response):
    """Mean counts of the six channels without noise, DN, shape (6, n, n)."""
    scale = [
        header["exptime"] * degradation_factor(header["wavelnth"], parse_time(header["date-obs"])) for header in headers
    ]
    per_component = np.array(scale)[:, np.newaxis] * (response.matrix.value @ _em_per_bin(response.bins))
    counts = np.empty((len(CHANNELS), n, n), dtype=np.float32)
    for rows, amplitudes in _blocks(_scene(seed), n, radius):
        counts[:, rows] = np.tensordot(per_component.astype(np.float32), amplitudes, axes=1)
    return counts


def _add_noise(image, channel, seed):
    """Add noise to the counts of one channel, in place."""
    rng = np.random.default_rng([seed, channel])
    n_sample = native_pixels(u.Quantity([_plate_scale(len(image))] * 2))
    step = max(1, _PIXELS_PER_BLOCK // len(image))
    for start in range(0, len(image), step):
        rows = image[start : start + step]
        rows += counts_uncertainty(rows, channel, n_sample=n_sample) * rng.standard_normal(rows.shape)


def _headers(n, obstime, observer, radius):
    """Headers of level 1.5 maps of the six channels."""
    shared = {
        "telescop": "SDO/AIA",
        "object": "Synthetic Sun",
        "img_type": "LIGHT",
        "lvl_num": 1.5,
        "quality": 0,
        "waveunit": "angstrom",
        "bunit": "DN",
        "crota2": 0.0,
        "dsun_obs": observer.radius.to_value("m"),
        "rsun_ref": _RSUN_REF.to_value("m"),
        "rsun_obs": radius.to_value("arcsec"),
        "hgln_obs": 0.0,
        "hglt_obs": observer.lat.to_value("deg"),
        "crln_obs": L0(obstime).to_value("deg"),
        "crlt_obs": observer.lat.to_value("deg"),
        "car_rot": int(carrington_rotation_number(obstime)),
        "history": "Synthetic: sunpy_deepem.sample.sample_maps, not an observation.",
    }
    for axis, name in (("1", "HPLN-TAN"), ("2", "HPLT-TAN")):
        cards = {"ctype": name, "cunit": "arcsec", "crval": 0.0, "cdelt": _plate_scale(n).value, "crpix": (n + 1) / 2}
        shared |= {key + axis: value for key, value in cards.items()}
    return [shared | _exposure(channel, obstime) for channel in CHANNELS]


def _exposure(channel, obstime):
    """The cards of a header that tell a channel's exposure from the others'."""
    exposure, telescope, delay = _EXPOSURES[channel]
    start = obstime + TimeDelta(delay * u.s)
    return {
        "instrume": f"AIA_{telescope}",
        "camera": telescope,
        "date-obs": start.utc.isot,
        "t_obs": (start + TimeDelta(exposure / 2 * u.s)).utc.isot + "Z",
        "exptime": exposure,
        "wavelnth": channel,
        "wave_str": f"{channel}_THIN",
    }


def sample_cube(shape=(1024, 1024), *, seed=0, obstime=_OBSTIME):
    """
    Return the true emission measure of the synthetic Sun as a cube, beside the noisy maps of `sample_maps`.

    Parameters
    ----------
    shape : `tuple` of two `int`, optional
        Number of pixels along the two axes, equal, ``(ny, nx)``.
    seed : `int`, optional
        As in `sample_maps`.
    obstime : `~astropy.time.Time` or `str`, optional
        As in `sample_maps`.

    Returns
    -------
    `DEMCube`
        The truth, without uncertainty; its ``intensity`` is that of the noisy maps, its ``chi2`` how far they are from
        the truth.

    Examples
    --------
    >>> sample_cube((64, 64)).shape
    (18, 64, 64)
    """
    response = TemperatureResponse.default()
    stack = ChannelStack.from_maps(sample_maps(shape, seed=seed, obstime=obstime), shape=None)
    return DEMCube.from_arrays(
        sample_em(shape, seed=seed, obstime=obstime).value,
        None,
        response,
        stack.header,
        stack.inputs,
        intensity=stack.intensity,
        uncertainty=stack.uncertainty,
        quality=stack.quality,
        meta=stack.meta | {"method": "truth of the synthetic Sun"},
    )


def sample_regions(shape=(1024, 1024), *, obstime=_OBSTIME):
    """
    Where the parts of the synthetic Sun are, for any seed.

    From 32 pixels a side on, none is empty.

    Parameters
    ----------
    shape : `tuple` of two `int`, optional
        Number of pixels along the two axes, equal, ``(ny, nx)``.
    obstime : `~astropy.time.Time` or `str`, optional
        Time for which the apparent size of the Sun is computed.

    Returns
    -------
    `dict`
        Boolean masks of shape ``(ny, nx)``, true inside, which do not overlap: ``"quiet Sun"``, ``"coronal hole"``,
        ``"active region"`` (without the flare), ``"flare"`` and ``"off limb"`` (up to 1.3 solar radii). Borders between
        the parts belong to none.

    Raises
    ------
    TypeError
        If ``shape`` is not made of whole numbers.
    ValueError
        If ``shape`` is not two equal positive numbers.

    Examples
    --------
    >>> from sunpy_deepem.sample import sample_regions
    >>> list(sample_regions((64, 64)))
    ['quiet Sun', 'coronal hole', 'active region', 'flare', 'off limb']
    """
    n = _square_side(shape)
    axis = _axis(n, _observer(one_time(obstime, "obstime"))[1])
    x, y = np.broadcast_arrays(axis, axis[:, np.newaxis])
    radius = np.hypot(x, y)
    depth = _hole_depth(*_directions(x, y))
    # However coarse the map, the pixel that holds the middle of a region is in its mask.
    least = 0.75 * 2 * np.abs(axis[0]) / max(1, n - 1)
    flare, hot, core = np.zeros((3, n, n), dtype=bool)
    far = np.ones((n, n), dtype=bool)
    for region in _ACTIVE_REGIONS:
        distance = region.distance(x, y)
        core |= distance < max(0.6 * region.size, least)
        far &= distance > region.half
        if region.flare is not None:
            distance = np.hypot(x - region.flare_center[0], y - region.flare_center[1])
            flare |= distance < max(_FLARE_RADIUS, least)
            # Its fringe is neither flare nor ordinary active region.
            hot |= distance < max(2.5 * _FLARE_RADIUS, least)
    return {
        "quiet Sun": (radius < 0.9) & far & (depth < -7),
        "coronal hole": (radius < 0.95) & far & (depth > 4),
        "active region": (radius < 0.98) & core & ~hot,
        "flare": flare,
        "off limb": (radius > 1.02) & (radius < 1.3),
    }
