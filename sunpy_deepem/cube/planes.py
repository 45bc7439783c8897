"""All arrays on the grid of a `DEMCube`: `Planes`."""

from collections import Counter
from dataclasses import dataclass, field, replace

import astropy.units as u
import numpy as np

from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.cube.fit import evaluate_fit
from sunpy_deepem.quality import MASKED
from sunpy_deepem.response.temperature_response import TemperatureResponse
from sunpy_deepem.units import INTENSITY_UNIT
from sunpy_deepem.utils.checks import plain_array

__all__ = ["Planes", "compute_together"]


@dataclass(frozen=True, eq=False)
class Planes:
    """
    The arrays of a `DEMCube`, from NumPy or dask.

    Attributes
    ----------
    em : `~numpy.ndarray`
        EM per bin, usually in cm^-5, shape ``(number of bins, ny, nx)``. The cube of a slice may have fewer axes.
    std : `~numpy.ndarray` or `None`
        Uncertainty of ``em``, of the same shape.
    mask : `~numpy.ndarray` or `None`
        `True` where ``em`` is not to be used, shape ``(ny, nx)`` or that of ``em``.
    intensity, sigma : sequence of `~numpy.ndarray`
        Observed intensities and their σ in DN s^-1 pix^-1, an image for each of ``channels``.
    chi2 : `~numpy.ndarray`
        Mean over channels of ((synthetic − observed) / σ)², shape ``(ny, nx)``.
    quality : `~numpy.ndarray`
        `Quality` flags, `~numpy.uint16`, shape ``(ny, nx)``.
    saturation : `~numpy.ndarray`
        Fraction of native pixels that are saturated, shape ``(ny, nx)``.
    limit : sequence of `~numpy.ndarray` or `None`
        Lower limit of the intensity in DN s^-1 pix^-1 where a channel is saturated, elsewhere NaN, an image for each of
        ``channels``. The intensity is NaN there, and σ that of the limit. `None` if there are no limits.
    others : `dict`
        More images by name, shape ``(ny, nx)``.
    channels : `tuple` of `int`
        Wavelengths of the channels in Å.
    unsolved : `~collections.Counter`
        Number of unsolved pixels by the name of their status, after an inversion.
    """

    em: np.ndarray
    std: np.ndarray | None
    mask: np.ndarray | None
    intensity: np.ndarray
    sigma: np.ndarray
    chi2: np.ndarray
    quality: np.ndarray
    saturation: np.ndarray
    limit: np.ndarray | None = None
    others: dict = field(default_factory=dict)
    channels: tuple = CHANNELS
    unsolved: Counter = field(default_factory=Counter)

    @classmethod
    def from_fit(cls, em, em_std, response, *, intensity, uncertainty, quality=None, saturation=None):
        """
        Compute χ² and the quality flags of an EM, and mask pixels without a solution.

        Parameters
        ----------
        em : array-like
            EM per bin in cm^-5, shape ``(number of bins, ny, nx)``.
        em_std : array-like or `None`
            Its uncertainty, of the same shape.
        response : `TemperatureResponse`
            Response on the bins of ``em``.
        intensity, uncertainty : `~astropy.units.Quantity`
            Observed intensities and their σ in DN s^-1 pix^-1, shape ``(6, ny, nx)``.
        quality : array-like, optional
            `Quality` flags so far, shape ``(ny, nx)``. Pixels with FEW_CHANNELS, UNSOLVED or OUTSIDE are masked. Other
            pixels without any intensity are flagged MISSING and FEW_CHANNELS, and other pixels without EM UNSOLVED.
        saturation : array-like, optional
            Fraction of native pixels that are saturated, shape ``(ny, nx)``, zero by default.

        Returns
        -------
        `Planes`

        Raises
        ------
        TypeError
            If an argument is of the wrong type.
        ValueError
            If the shapes do not fit.
        astropy.units.UnitsError
            If ``intensity`` or ``uncertainty`` has another unit.
        """
        _check_types(response, intensity, uncertainty)
        # Copies, as masked pixels become NaN; in double precision, as the squares of EM overflow single.
        em = plain_array(em, "em", unit="cm-5").astype(float)
        em_std = None if em_std is None else plain_array(em_std, "em_std", unit="cm-5").astype(float)
        sky, channels = em.shape[1:], response.channels
        quality = np.zeros(sky) if quality is None else plain_array(quality, "quality", unit="whole numbers")
        saturation = (
            np.zeros(sky, np.float32) if saturation is None else plain_array(saturation, "saturation", unit="fractions")
        )
        _check_shapes(
            {"em": (em, (len(response.bins), *sky)), "em_std": (em_std, em.shape)}
            | {"intensity": (intensity, (len(channels), *sky)), "uncertainty": (uncertainty, (len(channels), *sky))}
            | {"quality": (quality, sky), "saturation": (saturation, sky)}
        )
        chi2, quality = evaluate_fit(em, intensity, uncertainty, response, quality.astype(np.uint16))
        observed = (array.to_value(INTENSITY_UNIT) for array in (intensity, uncertainty))
        mask = (quality & MASKED) != 0
        return cls(em, em_std, mask, *observed, chi2, quality, saturation, channels=channels)

    @classmethod
    def from_images(cls, em, std, mask, images, *, channels=CHANNELS):
        """
        Put together planes that were taken apart by `images`.

        Parameters
        ----------
        em, std, mask : `~numpy.ndarray`
        images : `dict`
            Images by name.
        channels : `tuple` of `int`, optional

        Returns
        -------
        `Planes`

        Raises
        ------
        ValueError
            If an image is missing.
        """
        names = cls.image_names(channels)
        if missing := [name for name in names if name not in images]:
            msg = f"it lacks the images {missing}"
            raise ValueError(msg)
        chi2, quality, saturation, *observed = (images[name] for name in names)
        limit_names = cls.limit_names(channels)
        limit = [images[name] for name in limit_names] if set(limit_names) <= images.keys() else None
        others = {name: image for name, image in images.items() if name not in names + limit_names}
        arrays = em, std, mask, observed[::2], observed[1::2], chi2, quality, saturation
        return cls(*arrays, limit=limit, others=others, channels=channels)

    @staticmethod
    def image_names(channels):
        """Return the names of `images` that every cube has, as a `list`."""
        by_channel = (f"{kind}_{channel}" for channel in channels for kind in ("intensity", "sigma"))
        return ["chi2", "quality", "saturation", *by_channel]

    @staticmethod
    def limit_names(channels):
        """Return the names of `images` of the lower limits of channels, as a `list`."""
        return [f"limit_{channel}" for channel in channels]

    @property
    def images(self):
        """Images by name, as in the meta of a cube and in files; EM, its std and the mask are not among them."""
        observed = (image for pair in zip(self.intensity, self.sigma, strict=True) for image in pair)
        images = (self.chi2, self.quality, self.saturation, *observed)
        images = dict(zip(self.image_names(self.channels), images, strict=True))
        if self.limit is not None:
            images |= dict(zip(self.limit_names(self.channels), self.limit, strict=True))
        return images | self.others

    def compute(self):
        """Return the same planes as NumPy arrays; dask computes all of them together."""
        arrays = {"em": self.em, "std": self.std, "mask": self.mask} | self.images
        computed = compute_together(arrays)
        if computed is arrays:
            return self
        em, std, mask = (computed.pop(name) for name in ("em", "std", "mask"))
        planes = Planes.from_images(em, std, mask, computed, channels=self.channels)
        return replace(planes, unsolved=self.unsolved)


def compute_together(arrays):
    """Return a `dict` of arrays with those of dask computed, all together; the same `dict` if there are none."""
    if not any(hasattr(array, "dask") for array in arrays.values()):
        return arrays
    import dask

    return dask.compute(arrays)[0]


def _check_types(response, intensity, uncertainty):
    if not isinstance(response, TemperatureResponse):
        msg = f"response must be a TemperatureResponse, found {type(response).__name__}."
        raise TypeError(msg)
    for name, array in (("intensity", intensity), ("uncertainty", uncertainty)):
        if not isinstance(array, u.Quantity):
            msg = f"{name} must be a Quantity in {INTENSITY_UNIT}, found {type(array).__name__}."
            raise TypeError(msg)
        if not array.unit.is_equivalent(INTENSITY_UNIT):
            msg = f"{name} must be in {INTENSITY_UNIT}, found {array.unit}."
            raise u.UnitsError(msg)


def _check_shapes(expected):
    em = expected["em"][0]
    for name, (array, shape) in expected.items():
        if array is not None and (array.shape != shape or em.ndim != 3):
            wanted = shape if em.ndim == 3 else "(bins, ny, nx)"
            msg = f"{name} must have shape {wanted}, found {array.shape}."
            raise ValueError(msg)
