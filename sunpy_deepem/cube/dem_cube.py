"""What comes out: `DEMCube`."""

from collections.abc import Mapping
from operator import index
from pathlib import Path

import astropy.units as u
import numpy as np
import sunpy.map
from astropy.nddata import StdDevUncertainty
from astropy.time import Time
from astropy.wcs import WCS
from ndcube import NDCube, NDMeta

from sunpy_deepem.analysis import derived as _derived
from sunpy_deepem.calibrate.degradation import degradation_factor
from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.cube import operations as _operations
from sunpy_deepem.forward import channel_maps, synthesize_maps, synthetic_intensity
from sunpy_deepem.quality import MASKED
from sunpy_deepem.response.temperature_response import TemperatureResponse
from sunpy_deepem.temperature import BANDS, LogTBins
from sunpy_deepem.units import EM_UNIT, INTENSITY_UNIT
from sunpy_deepem.utils.checks import plain_array, real_number
from sunpy_deepem.utils.uncertainty import standard_deviation
from sunpy_deepem.utils.wcs import cube_wcs, sky_header
from sunpy_deepem.visualization import figures as visualization

__all__ = ["DEMCube"]

# NOTE: protons per electron in a fully ionised plasma of coronal composition, about one helium for ten hydrogens.
_HYDROGEN_RATIO = 0.83


class DEMCube(NDCube):
    """
    Emission measure on a grid of log T and sky.

    The data are the EM of each bin of log T in cm^-5, that is, the integral of the DEM over the bin, with n_e n_H;
    axes are log T, y, x. Made by `sunpy_deepem.invert`, `from_arrays` or `read`; slices, crops, rebins, reprojects and
    calculates like any `~ndcube.NDCube`, and its companions (``chi2``, ``quality``, the observed intensities) go with
    it. ``meta["provenance"]`` tells how it was made, and its ``"history"`` what was done to it since.

    Examples
    --------
    >>> from sunpy_deepem import invert
    >>> from sunpy_deepem.sample import sample_maps
    >>> dem = invert(sample_maps((64, 64)), shape=None)
    >>> dem.data.shape, str(dem.unit)
    ((18, 64, 64), '1 / cm5')
    """

    def __init__(self, data, *args, **kwargs):
        kwargs.setdefault("unit", EM_UNIT)
        super().__init__(data, *args, **kwargs)

    @property
    def mask(self):
        """`True` where there is no EM to be used, shape of the data, or `None`; one of the sky holds for all bins."""
        return self._mask

    @mask.setter
    def mask(self, mask):
        self._mask = None if mask is None else np.broadcast_to(mask, self.data.shape).copy()

    @classmethod
    def from_arrays(
        cls, em, em_std, response, header, inputs, *, intensity, uncertainty, quality=None, saturation=None, meta=None
    ):
        """
        Put together a cube, with χ² and the quality flags that follow from it.

        Parameters
        ----------
        em : `~numpy.ndarray`
            EM per bin in cm^-5, shape ``(number of bins, ny, nx)``.
        em_std : `~numpy.ndarray` or `None`
            Its uncertainty, as the method states it, of the same shape; that of the network is half the width of the
            interval that holds the truth in 68 % of all cases.
        response : `TemperatureResponse`
            The response for which it was found.
        header : `dict`
            FITS header of the sky: WCS, observer, time.
        inputs : sequence of `dict`
            For each channel ``channel``, ``date``, ``exposure_time`` and whatever else is known.
        intensity, uncertainty : `~astropy.units.Quantity`
            What was inverted, DN s^-1 pix^-1, shape ``(6, ny, nx)``.
        quality : `~numpy.ndarray`, optional
            `Quality` flags so far, shape ``(ny, nx)``. Pixels MISSING, SATURATED, UNSOLVED or OUTSIDE are masked; so
            are those in which EM or intensity is not finite, which are flagged MISSING.
        saturation : `~numpy.ndarray`, optional
            Share of native pixels that are saturated, shape ``(ny, nx)``, zero by default.
        meta : `dict`, optional
            More provenance.

        Returns
        -------
        `DEMCube`

        Raises
        ------
        TypeError
            If an argument is of another kind.
        ValueError
            If shapes do not fit.
        astropy.units.UnitsError
            If ``intensity`` or ``uncertainty`` has another unit.
        """
        _check_kinds(response, header, intensity, uncertainty)
        # Double precision, as squares of EM, which every propagation of errors takes, overflow single.
        em = plain_array(em, "em", unit="cm-5").astype(float)
        em_std = None if em_std is None else plain_array(em_std, "em_std", unit="cm-5").astype(float)
        quality = None if quality is None else plain_array(quality, "quality", unit="whole numbers").astype(np.uint16)
        saturation = None if saturation is None else plain_array(saturation, "saturation", unit="shares of one")
        sky = em.shape[1:]
        expected = {"em": (em, (len(response.bins), *sky)), "intensity": (intensity, (len(CHANNELS), *sky))}
        expected |= {"uncertainty": (uncertainty, (len(CHANNELS), *sky))}
        expected |= {} if em_std is None else {"em_std": (em_std, em.shape)}
        expected |= {} if quality is None else {"quality": (quality, sky)}
        expected |= {} if saturation is None else {"saturation": (saturation, sky)}
        for name, (array, shape) in expected.items():
            if array.shape != shape or len(sky) != 2:
                msg = f"{name} must have shape {shape if len(sky) == 2 else '(bins, ny, nx)'}, found {array.shape}."
                raise ValueError(msg)
        quality = np.zeros(sky, dtype=np.uint16) if quality is None else quality
        chi2, quality = _operations.judge_fit(em, intensity, uncertainty, response, quality)
        masked = (quality & MASKED) != 0
        saturation = np.zeros(sky, dtype=np.float32) if saturation is None else saturation
        intensity, uncertainty = (array.to_value(INTENSITY_UNIT) for array in (intensity, uncertainty))
        companions = _operations.companions_of(intensity, uncertainty, chi2, quality, saturation)
        provenance = dict(meta or {}) | {"log_t_range": response.bins.edges[[0, -1]].tolist()}
        facts = {"response": response, "inputs": tuple(inputs), "provenance": provenance}
        return cls(
            em,
            wcs=cube_wcs(header, response.bins),
            uncertainty=None if em_std is None else StdDevUncertainty(em_std, copy=False),
            mask=np.broadcast_to(masked, em.shape).copy(),
            meta=NDMeta(companions | facts, axes=dict.fromkeys(companions, (1, 2)), data_shape=em.shape),
        )

    # -- what it holds ------------------------------------------------------------------------------------------------

    @property
    def bins(self) -> LogTBins:
        """The bins of the log T axis, `LogTBins`."""
        self._require_3d("bins")
        wcs = self.wcs.wcs
        axis = wcs.naxis - 1
        first = wcs.crval[axis] + (1 - wcs.crpix[axis]) * wcs.cdelt[axis]
        return LogTBins(round(first, 9), round(wcs.cdelt[axis], 9), self.data.shape[0])

    @property
    def is_3d(self) -> bool:
        """Whether the cube has all its axes, log T, y and x; a slice by a whole number lacks one."""
        return self.data.ndim == 3 and isinstance(self.wcs, WCS)

    @property
    def log_t(self) -> np.ndarray:
        """Centres of the bins in log10(T/K), shape ``(number of bins,)``."""
        return self.bins.centers

    @property
    def chi2(self):
        """Mean over channels of ((synthetic − observed) / σ)², shape ``(ny, nx)``."""
        return self.meta["chi2"]

    @property
    def quality(self):
        """Bit flags of each pixel, see `Quality`, shape ``(ny, nx)``."""
        return self.meta["quality"]

    @property
    def saturation(self):
        """Share of the native pixels under each pixel that are saturated, in the worst channel, shape ``(ny, nx)``."""
        return self.meta["saturation"]

    @property
    def response(self):
        """The `TemperatureResponse` for which the cube was found, on the bins that the cube has."""
        response = self.meta["response"]
        return response.with_bins(self.bins) if self.is_3d else response

    @property
    def inputs(self):
        """For each channel the observation that went in, `tuple` of `dict`."""
        return self.meta["inputs"]

    @property
    def intensity(self) -> u.Quantity:
        """The observed intensities, `~astropy.units.Quantity` in DN s^-1 pix^-1, shape ``(6, ny, nx)``."""
        return np.stack([self.meta[f"intensity_{channel}"] for channel in CHANNELS]) << INTENSITY_UNIT

    @property
    def intensity_uncertainty(self) -> u.Quantity:
        """σ of the observed intensities, of the same unit and shape."""
        return np.stack([self.meta[f"sigma_{channel}"] for channel in CHANNELS]) << INTENSITY_UNIT

    @property
    def sky_mask(self):
        """`True` where a pixel is masked in any bin, shape ``(ny, nx)``."""
        self._require_3d("sky_mask")
        return np.zeros(self.data.shape[1:], dtype=bool) if self.mask is None else self.mask.any(axis=0)

    @property
    def sky_header(self) -> dict:
        """FITS header of the two sky axes, with observer and time, as a `dict`."""
        self._require_3d("sky_header")
        return sky_header(self.wcs)

    # -- what follows from it -----------------------------------------------------------------------------------------

    def synthesize(self, channels=CHANNELS, *, degraded: bool = False) -> sunpy.map.MapSequence:
        """
        Return the AIA maps that the cube's plasma would give.

        The maps are in DN / s at the response's epoch, that is, to be compared with observations that were corrected
        for degradation, and hold the word "synthetic" in their CONTENT keyword. They carry no uncertainty: the errors
        of neighbouring bins cancel in them, and how far is not known. What they must agree with is the observation
        within its σ, see `residual_maps`.

        Parameters
        ----------
        channels : sequence of `int`, optional
            Wavelengths in Å, by default all six.
        degraded : `bool`, optional
            Whether to put back the degradation of the date of the observation, for comparison with level 1.5 data over
            their exposure time as they are. The factor of each channel, the one by which the intensities were
            corrected, stands in its DEGRFACT keyword. Such maps can be inverted like observed ones.

        Returns
        -------
        `~sunpy.map.MapSequence`
            One `~sunpy.map.sources.AIAMap` for each of ``channels``, in that order.

        Raises
        ------
        ValueError
            If a channel is none of the six, or the cube lacks an axis.
        astropy.units.UnitsError
            If the cube's unit is not that of an EM.

        Examples
        --------
        >>> dem = invert(sample_maps((64, 64)))
        >>> [smap.instrument for smap in dem.synthesize((171, 193), degraded=True)]
        ['AIA 3', 'AIA 2']
        """
        self._require_3d("synthesize")
        response = self.response.with_channels(channels)
        by_channel = {observation["channel"]: observation for observation in self.inputs}
        inputs = [by_channel[channel] for channel in response.channels]
        em = self.data << self.unit
        if not degraded:
            return synthesize_maps(em, response, self.sky_header, inputs, mask=self.sky_mask)
        factors = [self._degradation(observation) for observation in inputs]
        return synthesize_maps(em, response, self.sky_header, inputs, mask=self.sky_mask, degradation=factors)

    def _degradation(self, observation):
        """Return the degradation that an observation has and the cube's response lacks."""
        corrected = self.meta["provenance"].get("degradation")
        if corrected == "data":
            return float(observation["degradation"])
        if corrected == "response":
            return 1.0
        epoch = self.meta["response"].meta.get("obstime")
        epoch = None if epoch is None else Time(epoch)
        return degradation_factor(observation["channel"], Time(observation["date"]), epoch=epoch)

    def observed_maps(self) -> sunpy.map.MapSequence:
        """
        Return the observations that went in, calibrated, aligned and binned.

        Returns
        -------
        `~sunpy.map.MapSequence`
            Six `~sunpy.map.sources.AIAMap` in DN / s, in channel order, on the grid of `synthesize`.

        Examples
        --------
        >>> dem = invert(sample_maps((64, 64)))
        >>> dem.observed_maps()[2].unit
        Unit("DN / s")
        """
        self._require_3d("observed_maps")
        return channel_maps(self.intensity, self.sky_header, self.inputs, mask=self.sky_mask)

    def residual_maps(self) -> sunpy.map.MapSequence:
        """
        Return what the fit leaves of each channel: (observed − synthetic) / σ.

        Of a cube cut along log T the light of the bins that it lacks is left, too.

        Returns
        -------
        `~sunpy.map.MapSequence`
            Six `~sunpy.map.sources.AIAMap`, dimensionless, in channel order. Their ``uncertainty``, that of what was
            observed, is one.

        Examples
        --------
        >>> dem = invert(sample_maps((64, 64)))
        >>> residual = dem.residual_maps()[3]
        >>> residual.wavelength, residual.meta["content"]
        (<Quantity 193. Angstrom>, 'residual, (observed - synthetic) / sigma')
        """
        self._require_3d("residual_maps")
        synthetic = synthetic_intensity(self.data << self.unit, self.response)
        residual = (self.intensity - synthetic) / self.intensity_uncertainty
        return channel_maps(
            residual,
            self.sky_header,
            self.inputs,
            mask=self.sky_mask,
            uncertainty=np.ones(residual.shape) << u.one,
            content="residual, (observed - synthetic) / sigma",
        )

    @property
    def dem(self) -> u.Quantity:
        """The DEM, EM over the width of the bin in temperature, `~astropy.units.Quantity` in cm^-5 K^-1."""
        self._require_3d("dem")
        return self.bins.em_to_dem(self.data << self.unit)

    @property
    def em_per_dex(self) -> u.Quantity:
        """EM over the width of the bin in log T, `~astropy.units.Quantity` in cm^-5 (per dex)."""
        self._require_3d("em_per_dex")
        return (self.data << self.unit) / self.bins.step

    def bin_map(self, log_t: float) -> sunpy.map.GenericMap:
        """
        Return the EM of the bin that holds ``log_t`` as a map.

        Parameters
        ----------
        log_t : `float`
            In log10(T/K).

        Returns
        -------
        `~sunpy.map.GenericMap`
            In cm^-5, with the cube's standard deviation, where it has one, as ``uncertainty``.

        Raises
        ------
        ValueError
            If no bin holds ``log_t``.

        Examples
        --------
        >>> dem = invert(sample_maps((64, 64)))
        >>> dem.bin_map(6.2).meta["content"]
        'EM, log T 6.15 to 6.25'
        """
        edges, log_t = self.bins.edges, real_number(log_t, "log_t", "a number, log10(T/K)")
        if not edges[0] <= log_t < edges[-1]:
            msg = f"log_t must lie within the cube's bins, from {edges[0]} to {edges[-1]}, found {log_t}."
            raise ValueError(msg)
        index = int(np.searchsorted(edges, log_t, side="right")) - 1
        return self.total_em(edges[index], edges[index + 1])

    def total_em(self, low: float | None = None, high: float | None = None) -> sunpy.map.GenericMap:
        """
        Return the EM summed over a range of log T as a map.

        Of a bin that lies partly in the range the same part is taken of its EM, which is uniform per dex inside a bin.

        Parameters
        ----------
        low, high : `float`, optional
            Limits in log10(T/K), by default those of the cube.

        Returns
        -------
        `~sunpy.map.GenericMap`
            In cm^-5. The ``uncertainty`` is the root of the sum of squares over the bins, which is too large, as bins
            next to each other share their plasma.

        Raises
        ------
        ValueError
            If a limit lies beyond the cube's bins, or the range is empty.

        Examples
        --------
        >>> dem = invert(sample_maps((64, 64)))
        >>> dem.total_em(6.3, 6.6).unit
        Unit("1 / cm5")
        """
        self._require_3d("total_em")
        begin, end = _derived.band_limits(self.bins, low, high)
        share = ((end - begin) / self.bins.step).round(9)
        part, std = share > 0, self._std
        std = None if std is None else np.sqrt(np.tensordot(share[part] ** 2, std[part] ** 2, axes=1))
        total = np.tensordot(share[part], self.data[part], axes=1)
        return self._map(total, std, self.unit, f"EM, log T {begin[0]:g} to {end[-1]:g}")

    def band_maps(self, bands=BANDS) -> sunpy.map.MapSequence:
        """
        Return the EM of several ranges of log T as maps.

        Parameters
        ----------
        bands : sequence of pairs of `float`, optional
            Limits in log10(T/K), as in `total_em`; by default 5.6 to 6.0, 6.0 to 6.3, 6.3 to 6.6 and 6.6 to 7.0.

        Returns
        -------
        `~sunpy.map.MapSequence`
            Of one `~sunpy.map.GenericMap` in cm^-5 for each band, in their order.

        Raises
        ------
        ValueError
            If a limit lies beyond the cube's bins, or a range is empty.

        Examples
        --------
        >>> dem = invert(sample_maps((64, 64)))
        >>> [smap.meta["content"] for smap in dem.band_maps()]
        ['EM, log T 5.6 to 6', 'EM, log T 6 to 6.3', 'EM, log T 6.3 to 6.6', 'EM, log T 6.6 to 7']
        """
        pairs = _derived.checked_bands(bands)
        maps = [self.total_em(low, high) for low, high in pairs]
        return sunpy.map.Map(maps, sequence=True, sortby=None)

    def em_weighted_log_t(self) -> sunpy.map.GenericMap:
        """
        Return the mean log T weighted by EM as a map.

        Returns
        -------
        `~sunpy.map.GenericMap`
            In log10(T/K), dimensionless; NaN where there is no EM. The ``uncertainty`` takes the errors of the bins as
            independent of each other.

        Raises
        ------
        ValueError
            If the cube lacks an axis.

        Examples
        --------
        >>> dem = invert(sample_maps((64, 64)))
        >>> bool(5.9 < dem.em_weighted_log_t().data[32, 32] < 6.4)
        True
        """
        self._require_3d("em_weighted_log_t")
        value, std = _derived.mean_log_t(self.data, self._std, self.bins)
        return self._map(value, std, u.one, "EM-weighted log10(T/K)")

    def peak_log_t(self) -> sunpy.map.GenericMap:
        """
        Return the log T of the bin of most EM as a map.

        Returns
        -------
        `~sunpy.map.GenericMap`
            Centre of the bin in log10(T/K), dimensionless; NaN where there is no EM. The ``uncertainty`` is half the
            width of the range of bins that may hold the peak, as their EM plus its standard deviation reaches that of
            the peak less its own; it is at least half a bin.

        Raises
        ------
        ValueError
            If the cube lacks an axis.

        Examples
        --------
        >>> dem = invert(sample_maps((64, 64)))
        >>> bool(dem.peak_log_t().data[32, 32] in dem.log_t)
        True
        """
        self._require_3d("peak_log_t")
        value, std = _derived.peak_log_t(self.data, self._std, self.bins)
        return self._map(value, std, u.one, "log10(T/K) of most EM")

    def thermal_width(self) -> sunpy.map.GenericMap:
        """
        Return the standard deviation of the EM along log T as a map.

        EM is uniform per dex inside a bin, so that isothermal plasma, all in one bin of 0.1 dex, has 0.1 / √12 = 0.029.

        Returns
        -------
        `~sunpy.map.GenericMap`
            In dex, dimensionless; NaN where there is no EM. The ``uncertainty`` takes the errors of the bins as
            independent of each other.

        Raises
        ------
        ValueError
            If the cube lacks an axis.

        Examples
        --------
        >>> dem = invert(sample_maps((64, 64)))
        >>> bool(0.029 < dem.thermal_width().data[32, 32] < 0.5)
        True
        """
        self._require_3d("thermal_width")
        value, std = _derived.thermal_width(self.data, self._std, self.bins)
        return self._map(value, std, u.one, "standard deviation of EM in dex of T")

    @u.quantity_input
    def electron_density(self, depth: u.cm, *, low=None, high=None, filling_factor=1.0, hydrogen_ratio=_HYDROGEN_RATIO):
        r"""
        Return the electron density of plasma that lies along ``depth`` as a map.

        The cube's EM is the integral of n_e n_H along the line of sight, so that for plasma of one density
        :math:`n_e = \sqrt{\mathrm{EM} / (h f d)}`, with h the ratio of n_H to n_e, f the filling factor and d the
        depth.

        Parameters
        ----------
        depth : `~astropy.units.Quantity`
            Length along the line of sight, one or one for each pixel, shape ``(ny, nx)``.
        low, high : `float`, optional
            Range of log10(T/K) whose EM is taken, as in `total_em`.
        filling_factor : `float`, optional
            Share of the depth that holds plasma, above 0 and at most 1.
        hydrogen_ratio : `float`, optional
            Hydrogen nuclei per electron; 0.83 in fully ionised plasma, and 1 for an EM of n_e².

        Returns
        -------
        `~sunpy.map.GenericMap`
            In cm^-3. The ``uncertainty`` is that of the EM alone: depth and filling factor are taken as known.

        Raises
        ------
        ValueError
            If ``depth``, ``filling_factor`` or ``hydrogen_ratio`` is out of range, or the range of log T makes no
            sense.
        astropy.units.UnitsError
            If ``depth`` is no length.

        Examples
        --------
        >>> dem = invert(sample_maps((64, 64)))
        >>> dem.electron_density(50 * u.Mm, low=6.0, high=6.6).unit
        Unit("1 / cm3")
        """
        column = self._column(depth, filling_factor, hydrogen_ratio)
        value, std = _derived.electron_density(*self._em_in_cgs(), self.bins, low=low, high=high, **column)
        return self._map(value, std, u.cm**-3, "electron density")

    @u.quantity_input
    def thermal_energy(
        self,
        depth: u.cm,
        *,
        low=None,
        high=None,
        filling_factor=1.0,
        hydrogen_ratio=_HYDROGEN_RATIO,
        per_pixel=False,
    ):
        r"""
        Return the thermal energy of plasma that lies along ``depth`` as a map.

        :math:`E = 3 k_B n_e T V`, for electrons and as many ions, with n_e as in `electron_density` the same at all
        temperatures, so that each temperature fills a share of the volume as large as that of its EM, and T is the mean
        temperature weighted by EM.

        Parameters
        ----------
        depth, low, high, filling_factor, hydrogen_ratio
            As in `electron_density`.
        per_pixel : `bool`, optional
            Whether to return the energy of each pixel's column in erg, for which the pixel's area is taken at the
            distance of the Sun's centre, rather than that above each cm² in erg cm^-2.

        Returns
        -------
        `~sunpy.map.GenericMap`
            In erg cm^-2, or erg. The ``uncertainty`` is that of the EM alone, whose bins are taken as independent.

        Raises
        ------
        ValueError
            If ``depth``, ``filling_factor`` or ``hydrogen_ratio`` is out of range, or the range of log T makes no
            sense.
        astropy.units.UnitsError
            If ``depth`` is no length.

        References
        ----------
        Aschwanden et al. (2015), ApJ 802, 53, https://doi.org/10.1088/0004-637X/802/1/53

        Examples
        --------
        >>> dem = invert(sample_maps((64, 64)))
        >>> dem.thermal_energy(50 * u.Mm, per_pixel=True).unit
        Unit("erg")
        """
        column = self._column(depth, filling_factor, hydrogen_ratio)
        value, std = _derived.thermal_energy(*self._em_in_cgs(), self.bins, low=low, high=high, **column)
        if not per_pixel:
            return self._map(value, std, u.erg / u.cm**2, "thermal energy per area")
        area = self._pixel_area().to_value(u.cm**2)
        return self._map(value * area, None if std is None else std * area, u.erg, "thermal energy per pixel")

    def curve(self, region=None):
        """
        Return the mean EM curve of a place or region, with its interval and what was observed there.

        Parameters
        ----------
        region : `~astropy.coordinates.SkyCoord`, `~regions.Region`, `~numpy.ndarray` or `None`, optional
            One coordinate; a sky or pixel region of the package ``regions``; a boolean mask, shape ``(ny, nx)``; or, by
            default, the whole cube. See `sunpy_deepem.analysis.em_curve`, also for what the interval means.

        Returns
        -------
        `~sunpy_deepem.analysis.EMCurve`

        Raises
        ------
        TypeError
            If ``region`` is something else.
        ValueError
            If ``region`` lies outside the cube, holds no pixel that is not masked, or is a mask of another shape.

        Examples
        --------
        >>> dem = invert(sample_maps((64, 64)))
        >>> dem.curve(dem.chi2 < 1).em.unit
        Unit("1 / cm5")
        """
        from sunpy_deepem.analysis.curves import em_curve

        self._require_3d("curve")
        return em_curve(self, region)

    @property
    def _std(self):
        return standard_deviation(self)

    def _em_in_cgs(self):
        """Return EM and its standard deviation in cm^-5."""
        self._require_3d("an EM")
        to_cgs, std = self.unit.to(EM_UNIT), self._std
        return self.data * to_cgs, None if std is None else std * to_cgs

    def _column(self, depth, filling_factor, hydrogen_ratio):
        """Return what `_derived` needs to know of the plasma along the line of sight, or raise."""
        if not np.all(depth > 0):
            msg = f"depth must be a positive length, found {np.min(depth):g}."
            raise ValueError(msg)
        if depth.shape not in ((), self.data.shape[1:]):
            msg = f"depth must be one length or have the shape of the sky, {self.data.shape[1:]}, found {depth.shape}."
            raise ValueError(msg)
        for name, value in (("filling_factor", filling_factor), ("hydrogen_ratio", hydrogen_ratio)):
            if not 0 < real_number(value, name, "a number above 0 and at most 1") <= 1:
                msg = f"{name} must be above 0 and at most 1, found {value}."
                raise ValueError(msg)
        return {"depth": depth.to_value(u.cm) * filling_factor, "hydrogen_ratio": hydrogen_ratio}

    def _pixel_area(self):
        """Return the area of a pixel in the plane of the sky, at the distance of the Sun's centre."""
        smap = self.total_em()
        angles = u.Quantity(smap.scale) * u.pix
        width, height = (angles.to_value(u.rad) * smap.dsun).to(u.cm)
        return width * height

    def _map(self, data, std, unit, content):
        """Return a map of the sky of the cube, with its mask."""
        cards = {"bunit": unit.to_string("fits"), "content": content}
        uncertainty = None if std is None else StdDevUncertainty(std)
        return sunpy.map.Map(data, self.sky_header | cards, mask=self.sky_mask, uncertainty=uncertainty)

    # -- files and pictures -------------------------------------------------------------------------------------------

    def write(self, path: str | Path, *, overwrite: bool = False, compress: bool = False) -> None:
        """
        Write the cube to a FITS or ASDF file, which is there whole or not at all.

        Parameters
        ----------
        path : `str` or `pathlib.Path`
            Where to; ends in ``.fits``, ``.fit``, ``.fts``, ``.fits.gz`` or, for ASDF, ``.asdf``.
        overwrite : `bool`, optional
            Whether a file that is there may be replaced.
        compress : `bool`, optional
            Whether to compress the arrays, without loss.

        Raises
        ------
        FileExistsError
            If there is a file and ``overwrite`` is `False`.
        FileNotFoundError
            If the folder does not exist.
        ValueError
            If the suffix is another, or the cube lacks an axis.
        ImportError
            If the file is ASDF and the extra ``asdf`` is not installed.

        Examples
        --------
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from sunpy_deepem import DEMCube
        >>> dem = invert(sample_maps((64, 64)))
        >>> with TemporaryDirectory() as folder:
        ...     dem.write(Path(folder) / "dem.fits")
        ...     again = DEMCube.read(Path(folder) / "dem.fits")
        >>> again.shape
        (18, 64, 64)
        """
        from sunpy_deepem.io.files import write_cube

        write_cube(self, path, overwrite=overwrite, compress=compress)

    @classmethod
    def read(cls, path: str | Path, *, chunks=None) -> "DEMCube":
        """
        Read a cube that `write` wrote, or another program in the same layout.

        Parameters
        ----------
        path : `str` or `pathlib.Path`
        chunks : `int`, `tuple` or ``"auto"``, optional
            Chunks, as dask takes them, in which the arrays of a FITS file are read as they are needed, without checking
            their checksums. By default the whole file is read at once.

        Returns
        -------
        `DEMCube`

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is neither FITS nor ASDF, is truncated or damaged, or holds no DEM cube.
        ImportError
            If the file is ASDF and the extra ``asdf`` is not installed.

        Examples
        --------
        >>> from sunpy_deepem import DEMCube
        >>> DEMCube.read("nowhere.fits")
        Traceback (most recent call last):
        FileNotFoundError: There is no file nowhere.fits.
        """
        from sunpy_deepem.io.files import read_cube

        return read_cube(path, chunks=chunks)

    def compute(self) -> "DEMCube":
        """
        Return the cube in memory, where its arrays are dask's.

        Returns
        -------
        `DEMCube`
            Itself, if there is nothing to compute.

        Examples
        --------
        >>> lazy = invert(sample_maps((64, 64)), chunks=32)
        >>> type(lazy[:, :16, :16].compute().data)
        <class 'numpy.ndarray'>
        """
        from sunpy_deepem.cube.planes import in_memory

        return in_memory(self)

    def to_xarray(self):
        """
        Return the cube as a data set of xarray.

        Returns
        -------
        ``xarray.Dataset``
            ``em``, ``em_std`` and ``mask`` on ``log_t``, ``y``, ``x``; ``chi2``, ``quality`` and ``saturation`` on
            ``y``, ``x``; ``intensity`` and ``sigma`` on ``channel``, ``y``, ``x``. The coordinates ``tx`` and ``ty``,
            helioprojective in arcsec, belong to ``x`` and ``y`` where the cube is not rotated, and to both where it is.

        Raises
        ------
        ImportError
            If the extra ``xarray`` is not installed.
        ValueError
            If the cube lacks an axis.

        Examples
        --------
        >>> dataset = invert(sample_maps((64, 64))).to_xarray()
        >>> dataset.em.sel(tx=0, ty=100, method="nearest").sizes
        Frozen({'log_t': 18})
        """
        from sunpy_deepem.io.xarray import to_dataset

        return to_dataset(self)

    def plot_summary(self, fig=None):
        """
        Draw the quick look, see `sunpy_deepem.visualization.plot_summary`.

        Parameters
        ----------
        fig : `~matplotlib.figure.Figure` or `~matplotlib.figure.SubFigure`, optional
            Where to draw, by default a new figure.

        Returns
        -------
        `~matplotlib.figure.Figure` or `~matplotlib.figure.SubFigure`
        """
        return visualization.plot_summary(self, fig=fig)

    def plot_bins(self, *, fig=None):
        """
        Draw the EM of every bin, see `sunpy_deepem.visualization.plot_bins`.

        Parameters
        ----------
        fig : `~matplotlib.figure.Figure` or `~matplotlib.figure.SubFigure`, optional
            Where to draw, by default a new figure.

        Returns
        -------
        `~matplotlib.figure.Figure` or `~matplotlib.figure.SubFigure`
        """
        return visualization.plot_bins(self, fig=fig)

    def plot_roundtrip(self, *, fig=None):
        """
        Draw observed, synthetic and ratio of each channel, see `sunpy_deepem.visualization.plot_roundtrip`.

        Parameters
        ----------
        fig : `~matplotlib.figure.Figure` or `~matplotlib.figure.SubFigure`, optional
            Where to draw, by default a new figure.

        Returns
        -------
        `~matplotlib.figure.Figure` or `~matplotlib.figure.SubFigure`
        """
        return visualization.plot_roundtrip(self, fig=fig)

    def plot_temperature(self, *, axes=None):
        """
        Draw the EM-weighted log T, see `sunpy_deepem.visualization.plot_temperature`.

        Parameters
        ----------
        axes : `~astropy.visualization.wcsaxes.WCSAxes`, optional
            Where to draw, by default axes in a new figure.

        Returns
        -------
        `~astropy.visualization.wcsaxes.WCSAxes`
        """
        return visualization.plot_temperature(self, axes=axes)

    def plot_profile(self, region=None, *, axes=None):
        """
        Draw the EM curve of a pixel or region and its EM loci, see `sunpy_deepem.visualization.plot_profile`.

        Parameters
        ----------
        region : `~astropy.coordinates.SkyCoord`, `~regions.Region` or `~numpy.ndarray` of `bool`, optional
            As for `curve`, by default the whole field of view.
        axes : `~matplotlib.axes.Axes`, optional
            Where to draw, by default axes in a new figure.

        Returns
        -------
        `~matplotlib.axes.Axes`
        """
        return visualization.plot_profile(self, region, axes=axes)

    def animate(self, *, axes=None, interval=300):
        """
        Show the EM of one bin after the other, see `sunpy_deepem.visualization.animate`.

        Parameters
        ----------
        axes : `~astropy.visualization.wcsaxes.WCSAxes`, optional
            Where to draw, by default axes in a new figure.
        interval : `float`, optional
            Time between bins in ms.

        Returns
        -------
        `~matplotlib.animation.FuncAnimation`
        """
        return visualization.animate(self, axes=axes, interval=interval)

    def view(self, *, max_pixels=256):
        """
        Return the interactive viewer, to be shown in a notebook, see `sunpy_deepem.visualization.view`.

        Parameters
        ----------
        max_pixels : `int`, optional
            Pixels along the longer side beyond which the cube is binned.

        Returns
        -------
        `bokeh.models.LayoutDOM`
        """
        from sunpy_deepem.visualization.viewer import view

        return view(self, max_pixels=max_pixels)

    # -- what can be done to it ---------------------------------------------------------------------------------------

    def rebin(self, bin_shape, operation=None, *, handle_mask=np.any, propagate_uncertainties=True):
        """
        Return a cube of coarser pixels: the mean over pixels of the sky, the sum over bins of log T.

        EM is a column density, so that a coarser pixel holds the mean, as do the observed intensities. Of σ the noise
        goes down with the number of pixels, the systematic error does not. Of the EM the standard deviations are
        averaged over the sky, as their larger part is common to neighbours, and added in quadrature over log T. χ² and
        the flags that follow from it or from the intensities are computed anew, the other flags are those of any of the
        pixels, and the response is folded onto the wider bins.

        Parameters
        ----------
        bin_shape : sequence of `int` or `~astropy.units.Quantity`
            How many pixels along log T, y and x are made one; -1 for all. They must divide the cube's shape.
        operation : callable, optional
            For agreement with `~ndcube.NDCube.rebin`: ``numpy.mean`` is accepted where no bins of log T are merged, and
            ``numpy.sum`` where no pixels of the sky are. The default does what is right in all cases.
        handle_mask : callable, optional
            ``numpy.any`` masks what any masked pixel goes into; with ``numpy.all`` the mean is that of the pixels that
            are not masked.
        propagate_uncertainties : `bool`, optional
            Whether the new cube has an uncertainty.

        Returns
        -------
        `DEMCube`

        Raises
        ------
        ValueError
            If ``bin_shape`` does not fit the cube, ``operation`` is not right for it, or the cube lacks an axis.

        Warns
        -----
        sunpy.util.exceptions.SunpyUserWarning
            If χ² is not known of the new cube, as this one lacks some of the log T that was fitted.

        Examples
        --------
        >>> dem = invert(sample_maps((64, 64)))
        >>> coarse = dem.rebin((2, 4, 4))
        >>> coarse.shape, coarse.bins
        ((9, 16, 16), LogTBins(first=5.55, step=0.2, n=9))
        """
        self._require_3d("rebin")
        return _operations.rebin(
            self, bin_shape, operation, handle_mask=handle_mask, propagate_uncertainties=propagate_uncertainties
        )

    def reproject_to(
        self, target_wcs, algorithm="interpolation", shape_out=None, return_footprint=False, **reproject_args
    ):
        """
        Return the cube on the pixels of another map of the sky; the log T axis stays.

        EM, its standard deviation, the observed intensities and their σ are reprojected, flags are those of the nearest
        pixel, and χ² is computed anew. Nothing is gained in σ where pixels become coarser; `rebin` first for that. The
        frames are transformed as SunPy does it, so that ``sunpy.coordinates.SphericalScreen`` and
        ``propagate_with_solar_surface`` work as for maps. The new cube has the observer and time of ``target_wcs``.

        Parameters
        ----------
        target_wcs : `~astropy.wcs.WCS` or `~astropy.io.fits.Header`
            Of the sky, as that of a map, or of a cube with the same log T axis.
        algorithm : {"interpolation", "adaptive", "exact"}, optional
            Function of the package reproject that is used. For much coarser pixels take one of the last two.
        shape_out : `tuple` of `int`, optional
            Shape of the new sky, ``(ny, nx)``, where ``target_wcs`` does not tell it.
        return_footprint : `bool`, optional
            Whether to return the footprint, too.
        **reproject_args
            Passed to the function of reproject.

        Returns
        -------
        cube : `DEMCube`
            Pixels outside the old one are NaN, masked, and flagged MISSING.
        footprint : `~numpy.ndarray`
            Share of each pixel that comes from pixels of the old cube that are not masked, of the new cube's shape; if
            ``return_footprint``.

        Raises
        ------
        ValueError
            If ``target_wcs`` is none of the sky or has another log T axis, the shape is not known, ``algorithm`` is
            another, or the cube lacks an axis.

        Warns
        -----
        sunpy.util.exceptions.SunpyUserWarning
            If χ² is not known of the new cube, as this one lacks some of the log T that was fitted.

        Examples
        --------
        >>> dem = invert(sample_maps((64, 64)))
        >>> target = sample_maps((32, 32))[0]
        >>> dem.reproject_to(target.wcs, algorithm="adaptive").shape
        (18, 32, 32)
        """
        self._require_3d("reproject_to")
        cube, footprint = _operations.reproject(self, target_wcs, algorithm, shape_out, reproject_args)
        return (cube, footprint) if return_footprint else cube

    # Cubes are computed with numbers, Quantities and each other. By linearity what was observed goes with sums and
    # differences of cubes that have one response, and with multiples; where it does not, it is dropped with a warning.

    def __add__(self, value):
        return _operations.add(self, value)

    def __radd__(self, value):
        return _operations.add(self, value)

    def __sub__(self, value):
        return _operations.add(self, value, sign=-1)

    def __rsub__(self, value):
        difference = _operations.add(self, value, sign=-1)
        return difference if difference is NotImplemented else -difference

    def __neg__(self):
        return _operations.multiply(self, -1)

    def __mul__(self, value):
        return _operations.multiply(self, value)

    def __rmul__(self, value):
        return _operations.multiply(self, value)

    def __truediv__(self, value):
        return _operations.divide(self, value)

    def __rtruediv__(self, value):
        return _operations.multiply(_operations.power(self, -1), value)

    def __pow__(self, value):
        return _operations.power(self, value)

    # -- pickling, by which cubes come from other processes -----------------------------------------------------------

    def __getstate__(self):
        # ndcube's NDMeta goes into a pickle but does not come out of it.
        meta = self.meta
        if not isinstance(meta, NDMeta):
            return self.__dict__
        return self.__dict__ | {"_meta": (dict(meta), meta.key_comments, meta.axes, meta.data_shape)}

    def __setstate__(self, state):
        meta = state["_meta"]
        self.__dict__ |= state | {"_meta": NDMeta(*meta) if isinstance(meta, tuple) else meta}

    # -- slicing ------------------------------------------------------------------------------------------------------

    def __getitem__(self, item):
        meta = self.meta
        try:
            return super().__getitem__(_explicit(item, self.data.shape))
        finally:
            # ndcube takes the meta away while it slices, and does not give it back where slicing fails.
            self.meta = meta

    def _slice_wcs(self, item):
        # A FITS WCS stays one where no axis is dropped, so that the slice can be written and synthesised.
        if isinstance(self.wcs, WCS) and all(isinstance(part, slice) for part in item):
            wcs = self.wcs.deepcopy()
            wcs.array_shape = self.data.shape  # astropy before 7.2 cannot slice three axes without it
            return wcs.slice(item)
        return super()._slice_wcs(item)

    def _require_3d(self, what):
        if not self.is_3d:
            msg = f"{what} needs the axes log T, y, x, found shape {self.data.shape}. Slice with i:i+1 to keep an axis."
            raise ValueError(msg)


def _check_kinds(response, header, intensity, uncertainty):
    """Raise where what a cube is made of is of another kind."""
    if not isinstance(response, TemperatureResponse):
        msg = f"response must be a TemperatureResponse, found {type(response).__name__}."
        raise TypeError(msg)
    if not isinstance(header, Mapping):
        msg = f"header must be a dict or FITS header of the sky, found {type(header).__name__}."
        raise TypeError(msg)
    for name, array in (("intensity", intensity), ("uncertainty", uncertainty)):
        if not isinstance(array, u.Quantity):
            msg = f"{name} must be a Quantity in {INTENSITY_UNIT}, found {type(array).__name__}."
            raise TypeError(msg)
        if not array.unit.is_equivalent(INTENSITY_UNIT):
            msg = f"{name} must be in {INTENSITY_UNIT}, found {array.unit}."
            raise u.UnitsError(msg)


def _explicit(item, shape):
    """Return an index of one part for each axis, none of them negative: NDMeta and WCS miscount those."""
    item = item if isinstance(item, tuple) else (item,)
    dots = [at for at, part in enumerate(item) if part is Ellipsis]
    at = dots[0] if dots else len(item)
    item = item[:at] + (slice(None),) * (len(shape) - len(item) + len(dots[:1])) + item[at + 1 :]
    if len(item) != len(shape):
        msg = f"The cube has {len(shape)} axes, found an index of {len(item)} parts."
        raise IndexError(msg)
    return tuple(_explicit_part(part, n) for part, n in zip(item, shape, strict=True))


def _explicit_part(part, n):
    if isinstance(part, slice):
        start, stop, step = part.indices(n)
        if step != 1 or start >= stop:
            msg = f"A slice of a cube must have step 1 and not be empty, found {part} on an axis of {n}."
            raise IndexError(msg)
        return slice(start, stop)
    try:
        position = index(part)
    except TypeError:
        msg = f"A cube is indexed by slices and whole numbers, found {part!r}. Index cube.data with anything else."
        raise IndexError(msg) from None
    if not -n <= position < n:
        msg = f"{position} is out of range on an axis of {n}."
        raise IndexError(msg)
    return position % n
