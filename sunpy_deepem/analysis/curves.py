"""EM curves of pixels and regions."""

from dataclasses import dataclass

import astropy.units as u
import numpy as np

from sunpy_deepem.analysis.loci import em_loci
from sunpy_deepem.forward import synthetic_intensity
from sunpy_deepem.quality import Quality
from sunpy_deepem.temperature import LogTBins
from sunpy_deepem.units import EM_UNIT, INTENSITY_UNIT
from sunpy_deepem.utils.regions import resolve_region
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


def em_curve(cube, region=None):
    """
    Return the mean EM curve of a region of a cube; same as `DEMCube.curve`.

    All unmasked pixels with their center in the region have equal weight. The uncertainty is the *mean* of the pixels'
    standard deviations, not divided by the root of their number: its larger part, the temperatures that six channels
    cannot separate, is common to similar pixels. The noise of the intensities is independent from pixel to pixel and
    averages out; their systematic error does not.

    Parameters
    ----------
    cube : `DEMCube`
    region : `~astropy.coordinates.SkyCoord`, `~regions.Region`, `~numpy.ndarray` or `None`, optional
        A coordinate, which selects the pixel that contains it; a sky or pixel region of the package ``regions``
        (``pip install regions``); a boolean mask, `True` inside, shape ``(ny, nx)``; a field of view as for `invert`;
        or, by default, the whole cube.

    Returns
    -------
    `EMCurve`

    Raises
    ------
    TypeError
        If ``region`` has another type.
    ValueError
        If ``region`` lies outside the cube, holds only masked pixels, or is a mask of another shape.

    Examples
    --------
    >>> from astropy.coordinates import SkyCoord
    >>> from sunpy_deepem.analysis import em_curve
    >>> maps = sample_maps((64, 64))
    >>> curve = em_curve(invert(maps), SkyCoord(0 * u.arcsec, 0 * u.arcsec, frame=maps[0].coordinate_frame))
    >>> curve.em.shape, curve.synthetic.shape, curve.n_pixels
    ((18,), (6,), 1)
    """
    rows, columns, inside = resolve_region(region, sky_wcs(cube.sky_header), cube.data.shape[1:])
    cube = cube[:, rows, columns].compute()
    inside = np.ones(cube.data.shape[1:], dtype=bool) if inside is None else inside
    pixels = inside & np.isfinite(cube.data).all(axis=0) & ~cube.sky_mask
    n_pixels = int(pixels.sum())
    if n_pixels == 0:
        flags = Quality(int(np.bitwise_or.reduce(cube.quality[inside], initial=0)))
        msg = (
            f"region holds {inside.sum()} pixels of the cube, all without data (flags: {flags!r}). Choose another "
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
