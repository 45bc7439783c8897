"""What analysts derive: from the channels without an inversion Fe XVIII and EM loci, from a cube the EM curve."""

from dataclasses import dataclass

import astropy.units as u
import numpy as np
import sunpy.map
from astropy.coordinates import SkyCoord
from astropy.nddata import StdDevUncertainty

from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.cube.dem_cube import DEMCube
from sunpy_deepem.cube.operations import sigma_of_mean, standard_deviation, systematic_error
from sunpy_deepem.forward import synthetic_intensity
from sunpy_deepem.quality import Quality
from sunpy_deepem.stack.channel_stack import ChannelStack
from sunpy_deepem.temperature import LogTBins
from sunpy_deepem.units import EM_UNIT, INTENSITY_UNIT
from sunpy_deepem.utils.wcs import sky_wcs

__all__ = ["EMCurve", "em_curve", "em_loci", "fe_xviii", "fe_xviii_map"]

# NOTE: the share of 94 Å that is not Fe XVIII, in terms of 211 and 171 Å; Del Zanna (2013), A&A 558, A73, section 4.
_FE_XVIII_WEIGHTS = {94: 1.0, 211: -1 / 120, 171: -1 / 450}


@u.quantity_input
def fe_xviii(intensity: INTENSITY_UNIT, uncertainty: INTENSITY_UNIT = None):
    """
    Estimate the Fe XVIII line in the 94 Å channel, which shows plasma near log T 6.85: 94 − 211/120 − 171/450.

    Parameters
    ----------
    intensity : `~astropy.units.Quantity`
        DN s^-1 pix^-1, shape ``(6, ...)``, as `ChannelStack.intensity` or `DEMCube.intensity`.
    uncertainty : `~astropy.units.Quantity`, optional
        σ of the intensity, of the same shape.

    Returns
    -------
    intensity, uncertainty : `~astropy.units.Quantity`
        DN s^-1 pix^-1, shape ``(...)``; without ``uncertainty`` the former alone. It is negative where noise is.

    Raises
    ------
    ValueError
        If the six channels are not along the first axis.

    References
    ----------
    Del Zanna (2013), A&A 558, A73, https://doi.org/10.1051/0004-6361/201321653

    Examples
    --------
    >>> from sunpy_deepem.analysis import fe_xviii
    >>> fe_xviii([10, 20, 450, 500, 120, 5] * u.DN / (u.s * u.pix))
    <Quantity 8. DN / (pix s)>
    """
    _require_channels(intensity)
    terms = [(weight, CHANNELS.index(channel)) for channel, weight in _FE_XVIII_WEIGHTS.items()]
    line = sum(weight * intensity[row] for weight, row in terms)
    if uncertainty is None:
        return line
    if uncertainty.shape != intensity.shape:
        msg = f"uncertainty must have the shape of intensity, {intensity.shape}, found {uncertainty.shape}."
        raise ValueError(msg)
    return line, np.sqrt(sum((weight * uncertainty[row]) ** 2 for weight, row in terms))


def fe_xviii_map(source):
    """
    Return the Fe XVIII estimate of `fe_xviii` as a map.

    Parameters
    ----------
    source : `ChannelStack` or `DEMCube`
        Whose observed intensities are taken.

    Returns
    -------
    `~sunpy.map.GenericMap`
        In DN / s, with the estimate's σ as ``uncertainty`` and the mask of ``source``.

    Raises
    ------
    TypeError
        If ``source`` is something else.

    Examples
    --------
    >>> from sunpy_deepem import ChannelStack
    >>> from sunpy_deepem.analysis import fe_xviii_map
    >>> fe_xviii_map(ChannelStack.from_maps(sample_maps((64, 64)))).dimensions.x
    <Quantity 64. pix>
    """
    if isinstance(source, ChannelStack):
        header, sigma, mask = source.header, source.uncertainty, source.mask
    elif isinstance(source, DEMCube):
        header, sigma, mask = source.sky_header, source.intensity_uncertainty, source.sky_mask
    else:
        msg = f"source must be a ChannelStack or a DEMCube, found {type(source).__name__}. Make one of the six maps."
        raise TypeError(msg)
    line, sigma = fe_xviii(source.intensity, sigma)
    cards = {"bunit": "DN / s", "telescop": "SDO/AIA", "content": "Fe XVIII, 94 - 211/120 - 171/450"}
    return sunpy.map.Map(
        line.to_value(INTENSITY_UNIT),
        dict(header) | cards,
        mask=mask,
        uncertainty=StdDevUncertainty(sigma.to_value(INTENSITY_UNIT)),
    )


@u.quantity_input
def em_loci(intensity: INTENSITY_UNIT, response):
    """
    Return the EM loci: for each channel and temperature the EM of isothermal plasma that would give the intensity.

    No EM distribution rises above the lowest of the curves, and isothermal plasma lies where they cross.

    Parameters
    ----------
    intensity : `~astropy.units.Quantity`
        Of a pixel or the mean of a region, DN s^-1 pix^-1, shape ``(6,)``.
    response : `TemperatureResponse`

    Returns
    -------
    `~astropy.units.Quantity`
        EM in cm^-5 at ``response.temperature``, shape ``(6, n)``; infinite where the response is not positive, and NaN
        where the intensity is not.

    Raises
    ------
    ValueError
        If ``intensity`` is not that of six channels.

    Examples
    --------
    >>> from sunpy_deepem import TemperatureResponse
    >>> from sunpy_deepem.analysis import em_loci
    >>> response = TemperatureResponse.default()
    >>> em_loci([0.8, 4.5, 140, 170, 50, 2.7] * u.DN / (u.s * u.pix), response).shape
    (6, 101)
    """
    _require_channels(intensity)
    if intensity.ndim != 1:
        msg = f"intensity must be of one pixel or the mean of a region, shape (6,), found {intensity.shape}."
        raise ValueError(msg)
    positive = np.where(intensity.to_value(INTENSITY_UNIT) > 0, intensity.to_value(INTENSITY_UNIT), np.nan)
    with np.errstate(divide="ignore"):
        loci = positive[:, np.newaxis] / np.maximum(response.response.value, 0)
    return loci * u.cm**-5


@dataclass(frozen=True, eq=False)
class EMCurve:
    """
    The EM of a place or region against log T, with what was observed of it: what `DEMCube.curve` returns.

    Attributes
    ----------
    bins : `LogTBins`
    em : `~astropy.units.Quantity`
        Mean EM per bin in cm^-5, shape ``(number of bins,)``.
    uncertainty : `~astropy.units.Quantity` or `None`
        Standard deviation of ``em``, the mean of the pixels' own; `None` where the cube has none.
    intensity, intensity_uncertainty : `~astropy.units.Quantity`
        Mean of the observed intensities and its σ, DN s^-1 pix^-1, shape ``(6,)``.
    synthetic : `~astropy.units.Quantity`
        What ``em`` gives in the six channels, of the same unit and shape.
    n_pixels : `int`
        Pixels that went in.
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
        Return the EM loci of the mean intensities, as `em_loci` does.

        Parameters
        ----------
        response : `TemperatureResponse`

        Returns
        -------
        `~astropy.units.Quantity`
            In cm^-5 at ``response.temperature``, shape ``(6, n)``.
        """
        return em_loci(self.intensity, response)


def em_curve(cube, where=None):
    """
    Return the mean EM curve of a place or region of a cube; `DEMCube.curve` is the same.

    Every pixel whose centre lies in the region counts alike; masked pixels do not count. The uncertainty is the *mean*
    of the pixels' standard deviations, not that over the root of their number: the larger part of it, which
    temperatures an inversion of six channels cannot tell apart, is shared by pixels that look alike and does not
    average out. Of the observed intensities the noise is taken as independent from pixel to pixel, and so averages
    out, while the systematic error with which they were inverted does not.

    Parameters
    ----------
    cube : `DEMCube`
    where : `~astropy.coordinates.SkyCoord`, `~regions.Region`, `~numpy.ndarray` or `None`, optional
        One coordinate, for the pixel that holds it; a sky or pixel region of the package ``regions``
        (``pip install regions``); a mask that is `True` where pixels count, shape ``(ny, nx)``; or, by default, the
        whole cube.

    Returns
    -------
    `EMCurve`

    Raises
    ------
    TypeError
        If ``where`` is something else.
    ValueError
        If ``where`` lies outside the cube, holds no pixel that is not masked, or is a mask of another shape.

    Examples
    --------
    >>> from astropy.coordinates import SkyCoord
    >>> from sunpy_deepem.analysis import em_curve
    >>> maps = sample_maps((64, 64))
    >>> curve = em_curve(invert(maps), SkyCoord(0 * u.arcsec, 0 * u.arcsec, frame=maps[0].coordinate_frame))
    >>> curve.em.shape, curve.synthetic.shape, curve.n_pixels
    ((18,), (6,), 1)
    """
    cube, inside = _cut_out(cube, _inside(cube, where))
    pixels = inside & np.isfinite(cube.data).all(axis=0) & ~cube.sky_mask
    n_pixels = int(pixels.sum())
    if n_pixels == 0:
        flags = Quality(int(np.bitwise_or.reduce(cube.quality[inside], initial=0)))
        msg = (
            f"where holds {inside.sum()} pixels of the cube, none of which has data (flags: {flags!r}). Choose another "
            "place, or a larger region."
        )
        raise ValueError(msg)

    def mean(image):
        return image[..., pixels].mean(axis=-1, dtype=float)

    em = mean(cube.data) * cube.unit
    std = standard_deviation(cube)
    sigma = sigma_of_mean(
        cube.intensity.value, cube.intensity_uncertainty.value, systematic_error(cube), mean, n_pixels
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


def _cut_out(cube, inside):
    """Return the part of the cube around what is inside, in memory, and the same part of ``inside``."""
    if not inside.any():
        return cube[:, :1, :1].compute(), inside[:1, :1]
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    sky = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return cube[:, *sky].compute(), inside[sky]


def _inside(cube, where):
    """Return where a mask, coordinate or region covers the centres of pixels, shape ``(ny, nx)``."""
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
    except NotImplementedError:  # regions' points and lines, which cover nothing
        if not hasattr(region, "center"):
            msg = f"where must be a region that has an area, or a point, found {type(region).__name__}."
            raise TypeError(msg) from None
        return _nearest(region.center.x, region.center.y, shape)
    image = mask.to_image(shape)
    return np.zeros(shape, dtype=bool) if image is None else image > 0


def _require_channels(intensity):
    if intensity.ndim < 1 or intensity.shape[0] != len(CHANNELS):
        msg = f"intensity must have the six channels {CHANNELS} along its first axis, found shape {intensity.shape}."
        raise ValueError(msg)
