"""EM curves of pixels and regions."""

from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord

from sunpy_deepem.analysis.loci import em_loci
from sunpy_deepem.forward import synthetic_intensity
from sunpy_deepem.quality import Quality
from sunpy_deepem.temperature import LogTBins
from sunpy_deepem.units import EM_UNIT, INTENSITY_UNIT
from sunpy_deepem.utils.uncertainty import sigma_of_mean, standard_deviation
from sunpy_deepem.utils.wcs import sky_wcs

__all__ = ["EMCurve", "em_curve", "systematic_fraction"]


@dataclass(frozen=True, eq=False)
class EMCurve:
    """
    Mean EM of a region against log T, with its observed and synthetic intensities, as returned by `DEMCube.curve`.

    Attributes
    ----------
    bins : `LogTBins`
    em : `~astropy.units.Quantity`
        Mean EM per bin in cm^-5, shape ``(number of bins,)``.
    uncertainty : `~astropy.units.Quantity` or `None`
        Mean of the pixels' standard deviations of EM; `None` if the cube has no uncertainty.
    intensity, intensity_uncertainty : `~astropy.units.Quantity`
        Mean observed intensity and its σ, DN s^-1 pix^-1, shape ``(6,)``.
    synthetic : `~astropy.units.Quantity`
        Synthetic intensity of ``em``, same unit and shape.
    n_pixels : `int`
        Number of pixels averaged.
    """

    bins: LogTBins
    em: u.Quantity
    uncertainty: u.Quantity | None
    intensity: u.Quantity
    intensity_uncertainty: u.Quantity
    synthetic: u.Quantity
    n_pixels: int

    def loci(self, response):
        """
        Return the EM loci of the mean intensities, see `em_loci`.

        Parameters
        ----------
        response : `TemperatureResponse`

        Returns
        -------
        `~astropy.units.Quantity`
            EM in cm^-5 at ``response.temperature``, shape ``(6, n)``.
        """
        return em_loci(self.intensity, response)


def em_curve(cube, where=None):
    """
    Return the mean EM curve of a region of a cube; same as `DEMCube.curve`.

    All unmasked pixels with their center in the region have equal weight. The uncertainty is the *mean* of the pixels'
    standard deviations, not divided by the root of their number: its larger part, the temperatures that six channels
    cannot separate, is common to similar pixels. The noise of the intensities is independent from pixel to pixel and
    averages out; their systematic error does not.

    Parameters
    ----------
    cube : `DEMCube`
    where : `~astropy.coordinates.SkyCoord`, `~regions.Region`, `~numpy.ndarray` or `None`, optional
        A coordinate, which selects the pixel that contains it; a sky or pixel region of the package ``regions``
        (``pip install regions``); a boolean mask, `True` inside, shape ``(ny, nx)``; or, by default, the whole cube.

    Returns
    -------
    `EMCurve`

    Raises
    ------
    TypeError
        If ``where`` has another type.
    ValueError
        If ``where`` lies outside the cube, holds only masked pixels, or is a mask of another shape.

    Examples
    --------
    >>> from astropy.coordinates import SkyCoord
    >>> from sunpy_deepem.analysis import em_curve
    >>> maps = sample_maps((64, 64))
    >>> curve = em_curve(invert(maps), SkyCoord(0 * u.arcsec, 0 * u.arcsec, frame=maps[0].coordinate_frame))
    >>> curve.em.shape, curve.synthetic.shape, curve.n_pixels
    ((18,), (6,), 1)
    """
    cube, inside = _crop(cube, _inside(cube, where))
    pixels = inside & np.isfinite(cube.data).all(axis=0) & ~cube.sky_mask
    n_pixels = int(pixels.sum())
    if n_pixels == 0:
        flags = Quality(int(np.bitwise_or.reduce(cube.quality[inside], initial=0)))
        msg = (
            f"where holds {inside.sum()} pixels of the cube, all without data (flags: {flags!r}). Choose another "
            "place or a larger region."
        )
        raise ValueError(msg)

    def mean(image):
        return image[..., pixels].mean(axis=-1, dtype=float)

    em = mean(cube.data) * cube.unit
    std = standard_deviation(cube)
    sigma = sigma_of_mean(
        cube.intensity.value, cube.intensity_uncertainty.value, systematic_fraction(cube), mean, n_pixels
    )
    return EMCurve(
        bins=cube.bins,
        em=em.to(EM_UNIT),
        uncertainty=None if std is None else (mean(std) * cube.unit).to(EM_UNIT),
        intensity=mean(cube.intensity.value) * INTENSITY_UNIT,
        intensity_uncertainty=sigma * INTENSITY_UNIT,
        synthetic=synthetic_intensity(em, cube.response),
        n_pixels=n_pixels,
    )


def systematic_fraction(cube):
    """Return the systematic error in the σ of a cube's intensities as a fraction of the intensity; 0 if unknown."""
    return float(cube.meta["provenance"].get("systematic") or 0.0)


def _crop(cube, inside):
    """Return the smallest part of the cube around a mask, in memory, and the same part of the mask."""
    if not inside.any():
        return cube[:, :1, :1].compute(), inside[:1, :1]
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    sky = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return cube[:, *sky].compute(), inside[sky]


def _inside(cube, where):
    """Return a mask of the pixels with their center in a region, shape ``(ny, nx)``."""
    shape = cube.data.shape[1:]
    if where is None:
        return np.ones(shape, dtype=bool)
    if isinstance(where, SkyCoord):
        return _pixel_of(where, cube)
    if hasattr(where, "to_pixel") or hasattr(where, "to_mask"):
        return _in_region(where, cube)
    if not (isinstance(where, np.ndarray) and where.dtype == bool):
        msg = (
            f"where must be a SkyCoord, a region of the package regions, a boolean mask of shape {shape} or None, "
            f"found {type(where).__name__}."
        )
        raise TypeError(msg)
    if where.shape != shape:
        msg = f"where, as a mask, must have the shape of the cube's sky, {shape}, found {where.shape}."
        raise ValueError(msg)
    return where


def _pixel_of(coordinate, cube):
    if not coordinate.isscalar:
        msg = f"where must be one coordinate, found {coordinate.size}. Take a region, or one coordinate after another."
        raise ValueError(msg)
    x, y = sky_wcs(cube.sky_header).world_to_pixel(coordinate)
    return _nearest(float(x), float(y), cube.data.shape[1:])


def _nearest(x, y, shape):
    ny, nx = shape
    if not (-0.5 <= x < nx - 0.5 and -0.5 <= y < ny - 0.5):
        msg = f"where lies at pixel x = {x:.1f}, y = {y:.1f}, outside the cube's {nx} × {ny} pixels."
        raise ValueError(msg)
    inside = np.zeros(shape, dtype=bool)
    inside[int(np.floor(y + 0.5)), int(np.floor(x + 0.5))] = True
    return inside


def _in_region(region, cube):
    region = region.to_pixel(sky_wcs(cube.sky_header)) if hasattr(region, "to_pixel") else region
    shape = cube.data.shape[1:]
    try:
        mask = region.to_mask(mode="center")
    except NotImplementedError:  # points and lines of the package regions have no area
        if not hasattr(region, "center"):
            msg = f"where must be a region that has an area, or a point, found {type(region).__name__}."
            raise TypeError(msg) from None
        return _nearest(region.center.x, region.center.y, shape)
    image = mask.to_image(shape)
    return np.zeros(shape, dtype=bool) if image is None else image > 0
