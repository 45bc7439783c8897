"""Rebinning and reprojection of cubes: a mixin of `DEMCube`."""

from collections.abc import Mapping
from typing import Self

import astropy.units as u
import numpy as np
from astropy.nddata import block_reduce
from astropy.wcs import WCS
from reproject import reproject_adaptive, reproject_exact, reproject_interp

from sunpy_deepem.cube.fit import refitted
from sunpy_deepem.cube.planes import Planes
from sunpy_deepem.quality import MASKED, NO_DATA
from sunpy_deepem.temperature import LogTBins
from sunpy_deepem.units import EM_UNIT, LOG_T_TOLERANCE, MIN_VALID_FRACTION
from sunpy_deepem.utils.checks import whole_number
from sunpy_deepem.utils.uncertainty import common_error, sigma_of_mean, standard_deviation
from sunpy_deepem.utils.wcs import cube_wcs, sky_header, sky_wcs

__all__ = ["Resampling"]

# A reprojected intensity is a lower limit if lower limits have more than this weight in it.
_LIMITED = 0.01
_ALGORITHMS = {"interpolation": reproject_interp, "adaptive": reproject_adaptive, "exact": reproject_exact}


class Resampling:
    """Methods of `DEMCube` that return a cube on another grid."""

    def rebin(self, bin_shape, operation=None, *, handle_mask=np.any, propagate_uncertainties=True) -> Self:
        """
        Return a cube with larger pixels: the mean over pixels of the sky, the sum over bins of log T.

        EM is a column density, so a larger pixel holds the mean, as do the observed intensities; the mean is a lower
        limit if one of its parts is. The noise in σ decreases with the number of pixels, errors common to all pixels do
        not. The standard deviations of EM are averaged over the sky, as their larger part is common to neighbors, and
        added in quadrature over log T. χ² and the flags that follow from it or from the intensities are computed again;
        other flags are combined by OR. The response is folded onto the wider bins.

        Parameters
        ----------
        bin_shape : sequence of `int` or `~astropy.units.Quantity`
            Number of pixels along log T, y and x to combine; -1 for all. They must divide the shape of the cube.
        operation : callable, optional
            For compatibility with `~ndcube.NDCube.rebin`: ``numpy.mean`` is accepted if no bins of log T are combined,
            and ``numpy.sum`` if no pixels of the sky are.
        handle_mask : callable, optional
            ``numpy.any`` masks a pixel if any of its parts is masked; with ``numpy.all`` the mean is over the parts
            that are not masked.
        propagate_uncertainties : `bool`, optional
            Whether the new cube has an uncertainty.

        Returns
        -------
        `DEMCube`

        Raises
        ------
        ValueError
            If ``bin_shape`` does not fit the cube, ``operation`` is invalid, or the cube lacks an axis.

        Warns
        -----
        sunpy.util.exceptions.SunpyUserWarning
            If χ² is unknown, as the cube lacks a part of the log T range of the fit.

        Examples
        --------
        >>> dem = invert(sample_maps((64, 64)))
        >>> coarse = dem.rebin((2, 4, 4))
        >>> coarse.shape, coarse.bins
        ((9, 16, 16), LogTBins(first=5.55, step=0.2, n=9))
        """
        self._require_3d("rebin")
        factors = _factors(self.data.shape, bin_shape)
        _check_operation(operation, factors)
        if factors == (1, 1, 1):
            return self
        merged, on_sky = factors[0], factors[1:]
        valid = ~self.sky_mask & np.isfinite(self.data).all(axis=0)
        masked = block_reduce(~valid, on_sky, handle_mask)
        count = block_reduce(valid.astype(int), on_sky, np.sum)

        def mean(image):
            blocks = (1,) * (image.ndim - 2) + on_sky
            with np.errstate(invalid="ignore"):
                return np.where(masked, np.nan, block_reduce(np.where(valid, image, 0), blocks, np.sum) / count)

        em = block_reduce(mean(self.data), (merged, 1, 1), np.sum)
        std = standard_deviation(self) if propagate_uncertainties else None
        std = None if std is None else np.sqrt(block_reduce(mean(std) ** 2, (merged, 1, 1), np.sum))
        values, lower_limit = self.with_limits()
        common = common_error(self.meta["provenance"])
        sigma = sigma_of_mean(values, self.intensity_uncertainty.value, common, mean, count)
        limited = None if lower_limit is None else block_reduce(lower_limit & valid, (1, *on_sky), np.any)
        intensity, limit = _split(mean(values), limited)
        bins = self.bins
        bins = LogTBins(bins.edges[0] + merged * bins.step / 2, merged * bins.step, len(bins) // merged)
        quality = _combined_flags(self.quality, valid, masked, on_sky)
        chi2, quality = refitted(self, em * self.unit.to(EM_UNIT), bins, intensity, sigma, quality)
        saturation = block_reduce(self.saturation, on_sky, np.mean)
        planes = Planes(em, std, masked, intensity, sigma, chi2, quality, saturation, limit)
        return self.with_planes(planes, f"rebinned by {factors}", wcs=_binned_wcs(self.wcs, factors[::-1]))

    def reproject_to(
        self, target_wcs, algorithm="interpolation", shape_out=None, return_footprint=False, **reproject_args
    ):
        """
        Return the cube on another grid of the sky, with the same log T axis.

        EM, its standard deviation, the observed intensities and their σ are reprojected, flags are taken from the
        nearest pixel, and χ² is computed again. σ does not decrease where pixels become larger; use `rebin` first. The
        transformation between frames is SunPy's, so ``sunpy.coordinates.SphericalScreen`` and
        ``propagate_with_solar_surface`` work as for maps. The new cube has the observer and time of ``target_wcs``.

        Parameters
        ----------
        target_wcs : `~astropy.wcs.WCS` or `~astropy.io.fits.Header`
            WCS of the sky, for instance that of a map, or of a cube with the same log T axis.
        algorithm : {"interpolation", "adaptive", "exact"}, optional
            Function of the package reproject. Use one of the last two for much larger pixels.
        shape_out : `tuple` of `int`, optional
            Shape of the new sky, ``(ny, nx)``, if ``target_wcs`` does not contain it.
        return_footprint : `bool`, optional
            Whether to return the footprint as well.
        **reproject_args
            Passed to the function of reproject.

        Returns
        -------
        cube : `DEMCube`
            Pixels outside of the original are NaN, masked, and flagged MISSING and FEW_CHANNELS.
        footprint : `~numpy.ndarray`
            Fraction of each pixel that is covered by unmasked pixels of the original, of the new cube's shape; only if
            ``return_footprint``.

        Raises
        ------
        ValueError
            If ``target_wcs`` has no axes of the sky or another log T axis, the shape is unknown, ``algorithm`` is
            unknown, or the cube lacks an axis.

        Warns
        -----
        sunpy.util.exceptions.SunpyUserWarning
            If χ² is unknown, as the cube lacks a part of the log T range of the fit.

        Examples
        --------
        >>> dem = invert(sample_maps((64, 64)))
        >>> target = sample_maps((32, 32))[0]
        >>> dem.reproject_to(target.wcs, algorithm="adaptive").shape
        (18, 32, 32)
        """
        self._require_3d("reproject_to")
        if not isinstance(algorithm, str) or algorithm not in _ALGORITHMS:
            msg = f"algorithm must be one of {', '.join(map(repr, _ALGORITHMS))}, found {algorithm!r}."
            raise ValueError(msg)
        target, shape_out = _target(self, target_wcs, shape_out)
        source, valid = sky_wcs(self.sky_header), ~self.sky_mask

        def onto(image, resample=_ALGORITHMS[algorithm], **options):
            return resample((image, source), target, shape_out=shape_out, return_footprint=False, **options)

        fraction = onto(valid.astype(float), **reproject_args)
        outside = ~np.isfinite(fraction)
        quality, masked = (
            np.where(outside, other, onto(image.astype(float), reproject_interp, order="nearest-neighbor"))
            for image, other in ((self.quality, NO_DATA), (~valid, 1))
        )
        # A pixel is valid if the nearest one is, and enough of the others.
        masked = (np.nan_to_num(masked, nan=1) > 0) | ~(fraction >= MIN_VALID_FRACTION)
        quality = np.nan_to_num(quality).astype(np.uint16)
        quality[masked & ((quality & MASKED) == 0)] |= np.uint16(NO_DATA)

        def mean(image):
            with np.errstate(invalid="ignore", divide="ignore"):
                return np.where(masked, np.nan, onto(np.where(valid, image, 0), **reproject_args) / fraction)

        values, lower_limit = self.with_limits()
        images = self.data, values, self.intensity_uncertainty.value, self.saturation
        em, values, sigma, saturation = (mean(image) for image in images)
        limited = None if lower_limit is None else mean(lower_limit.astype(float)) > _LIMITED
        intensity, limit = _split(values, limited)
        std = standard_deviation(self)
        std = None if std is None else mean(std)
        chi2, quality = refitted(self, em * self.unit.to(EM_UNIT), self.bins, intensity, sigma, quality)
        planes = Planes(em, std, masked, intensity, sigma, chi2, quality, np.nan_to_num(saturation), limit)
        wcs = cube_wcs({"date-obs": self.sky_header["date-obs"]} | sky_header(target), self.bins)
        cube = self.with_planes(planes, f"reprojected by {algorithm}", wcs=wcs)
        return (cube, np.broadcast_to(np.nan_to_num(fraction), em.shape)) if return_footprint else cube


def _split(values, limited):
    """Return intensities and lower limits, each NaN where it is the other; the limits are `None` if ``limited`` is."""
    if limited is None:
        return values, None
    return np.where(limited, np.nan, values), np.where(limited, values, np.nan)


def _factors(shape, bin_shape):
    try:
        # Other units and non-integers are invalid.
        given = u.Quantity(bin_shape, u.pix) if isinstance(bin_shape, u.Quantity) else bin_shape
        given = np.atleast_1d(given.value if isinstance(given, u.Quantity) else given).astype(float)
        factors = np.where(given == np.rint(given), np.nan_to_num(given, posinf=0), 0).astype(int)
    except (TypeError, ValueError):
        factors = np.zeros(1, dtype=int)
    if factors.shape == (3,):
        factors = np.where(factors == -1, shape, factors)
    if factors.shape != (3,) or (factors < 1).any() or np.mod(shape, factors).any():
        msg = (
            "bin_shape must hold three integers that divide the numbers of pixels along log T, y and x, "
            f"{shape}, found {bin_shape}. Crop the cube first, as in cube[:, :500, :500]."
        )
        raise ValueError(msg)
    return tuple(factors.tolist())


def _check_operation(operation, factors):
    if operation is None:
        return
    right = np.sum if factors[0] > 1 else np.mean
    if operation is not right or (factors[0] > 1 and factors[1:] != (1, 1)):
        msg = (
            "operation must be numpy.mean over the sky, as EM is a column density, and numpy.sum over log T, as a bin "
            f"holds an integral; found {getattr(operation, '__name__', operation)} for bin_shape={factors}. Leave it "
            "out to use both."
        )
        raise ValueError(msg)


def _combined_flags(quality, valid, masked, on_sky):
    """Return the OR of the flags of the valid parts of each pixel; of all its parts if it is masked."""
    of_valid, of_all = (block_reduce(q, on_sky, np.bitwise_or.reduce) for q in (np.where(valid, quality, 0), quality))
    return np.where(masked, of_all, of_valid).astype(np.uint16)


def _binned_wcs(wcs, factors):
    """Return the FITS WCS of pixels that are larger by ``factors``, in the order of its axes."""
    wcs, factors = wcs.deepcopy(), np.asarray(factors, dtype=float)
    wcs.wcs.crpix = (wcs.wcs.crpix - 0.5) / factors + 0.5
    # PC is applied before CDELT, so a rotation is sheared if the pixels are not square.
    wcs.wcs.pc = wcs.wcs.get_pc() * factors / factors[:, np.newaxis]
    wcs.wcs.cdelt = wcs.wcs.get_cdelt() * factors
    wcs.wcs.set()
    return wcs


def _target(cube, target, shape_out):
    """Return WCS and shape of the target sky, or raise."""
    if isinstance(target, Mapping):
        cards = {str(key).lower(): value for key, value in target.items()}
        known = (cards["naxis2"], cards["naxis1"]) if {"naxis1", "naxis2"} <= cards.keys() else None
        target = sky_wcs(cards)
    else:
        known = getattr(target, "array_shape", None)
    if not isinstance(target, WCS) or not target.has_celestial:
        msg = f"target_wcs must be a FITS WCS or header with two axes of the sky, found {type(target).__name__}."
        raise ValueError(msg)
    if target.naxis == 3 and not _same_log_t(cube, target):
        msg = "target_wcs must have the cube's own log T axis, or none. Merge bins with rebin; crop by slicing."
        raise ValueError(msg)
    shape = known if shape_out is None else shape_out
    if shape is None:
        msg = "shape_out must be given, as target_wcs does not contain it; (ny, nx) of the new cube."
        raise ValueError(msg)
    try:
        return target.celestial, tuple(whole_number(n, "shape_out") for n in (shape[-2], shape[-1]))
    except (TypeError, LookupError, ValueError):
        msg = f"shape_out must be two positive whole numbers of pixels, (ny, nx), found {shape!r}."
        raise ValueError(msg) from None


def _same_log_t(cube, target):
    there = target.sub([3]).wcs
    first = there.crval[0] + (1 - there.crpix[0]) * there.cdelt[0]
    return np.allclose([first, there.cdelt[0]], [cube.bins.first, cube.bins.step], rtol=0, atol=LOG_T_TOLERANCE)
