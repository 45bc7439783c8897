"""Active regions of the synthetic Sun: loops traced between footpoints and projected onto the plane of the sky."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from sunpy_deepem.sample.plasma import COMPONENTS, INDEX

__all__ = ["ACTIVE_REGIONS", "FLARE_RADIUS", "ActiveRegion", "add_region", "draw_region"]

# Pixels along a side of the image around an active region, in the plane of the sky.
_STAMP_SIZE = 320


@dataclass(frozen=True)
class ActiveRegion:
    """
    Position and plasma of an active region.

    ``longitude``, ``latitude`` and ``tilt`` are in degrees; ``size``, the separation of the polarities, and ``half``,
    half the side of its image, are in solar radii.
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
        """Center in the plane of the sky, in solar radii."""
        return self.frame[0, :2]

    @property
    def flare_center(self):
        """Position of the flare in the plane of the sky, in solar radii."""
        return (np.array([1, *self.flare]) @ self.frame)[:2]

    def distance(self, x, y):
        """Distance of points of the sky from the center, in solar radii."""
        return np.hypot(x - self.center[0], y - self.center[1])


ACTIVE_REGIONS = (
    ActiveRegion(38, -16, -8, 0.135, 0.38, "steep core", 1.0, flare=(0.02, -0.03)),
    ActiveRegion(-31, 18, 9, 0.110, 0.32, "gentle core", 0.7),
    ActiveRegion(-84, -13, 55, 0.120, 0.34, "gentle core", 0.8),
)


@dataclass(frozen=True)
class _Loops:
    """
    A population of loops: component, peak EM, number of bundles and strands per bundle, and geometry.

    ``reach`` is the range of footpoint distances and ``spread`` the scatter of the bundles along the neutral line, both
    in units of the region's size. ``part`` is the visible part: the whole "loop", the near legs of a "fan" above a
    spot, or the "moss" at the footpoints. ``blur`` is in pixels of the image.
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
FLARE_RADIUS = 0.02
_POINTS_PER_STRAND = 400


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
    """Points along strands in solar radii, shape (3, points, strands), and their emission, (points, strands)."""
    near, far = _feet(rng, region, loops)
    half = (far - near) / 2
    length = np.hypot(*half)
    across = np.stack([-half[1], half[0]]) / length
    # Angle along half an ellipse on the two footpoints, leaning to one side.
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
        # Only the near leg is dense enough to be visible; it fades with height.
        weight = weight * np.exp(-height / 0.08) * (angle < np.pi / 2)
    elif loops.part == "moss":
        weight = weight * (height < 0.25 * length)
    hidden = (points[2] < 0) & (np.hypot(points[0], points[1]) < 1)
    return points, np.where(hidden, 0, weight)


def _draw(rng, region, loops):
    """Image of loops around a region, in AMPLITUDE_UNIT."""
    points, weight = _trace(rng, region, loops)
    pixel = (
        (points[:2] - region.center[:, np.newaxis, np.newaxis] + region.half) / (2 * region.half) * (_STAMP_SIZE - 1)
    )
    column, row = np.rint(pixel).astype(int)
    inside = (np.minimum(column, row) >= 0) & (np.maximum(column, row) < _STAMP_SIZE)
    flat = row[inside] * _STAMP_SIZE + column[inside]
    image = np.bincount(flat, weight[inside], _STAMP_SIZE**2).reshape(_STAMP_SIZE, _STAMP_SIZE)
    image = ndimage.gaussian_filter(image, loops.blur)
    # The brightest pixel alone depends on chance crossings of strands.
    brightest = np.partition(image, -100, axis=None)[-100:].mean()
    return loops.peak * region.brightness * image / brightest


def draw_region(rng, region):
    """Images of all components around an active region, shape (number of components, n, n)."""
    images = np.zeros((len(COMPONENTS), _STAMP_SIZE, _STAMP_SIZE), dtype=np.float32)
    for loops in _LOOPS:
        images[INDEX[region.core if loops.component == "core" else loops.component]] += _draw(rng, region, loops)
    if region.flare is not None:
        images[INDEX["flare"]] += _draw(rng, region, _FLARE)
    axis = np.linspace(-1, 1, _STAMP_SIZE, dtype=np.float32)
    # Zero at the border of the image.
    return images * np.clip((0.98 - np.hypot(axis, axis[:, np.newaxis])) / 0.25, 0, 1) ** 2


def add_region(amplitudes, region, images, x, y):
    """Add the images of a region to ``amplitudes`` on the grid of axes ``x`` and ``y``."""
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
