"""Maps and curves that follow from a cube: a mixin of `DEMCube`."""

from functools import partial

import astropy.units as u
import numpy as np
import sunpy.map
from astropy.nddata import StdDevUncertainty
from astropy.time import Time

from sunpy_deepem.analysis import derived
from sunpy_deepem.analysis.curves import em_curve
from sunpy_deepem.analysis.intervals import quantiles_of
from sunpy_deepem.calibrate.degradation import degradation_factor
from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.forward import channel_maps, synthesize_maps, synthetic_intensity
from sunpy_deepem.temperature import BANDS
from sunpy_deepem.units import EM_UNIT
from sunpy_deepem.utils.checks import real_number
from sunpy_deepem.utils.uncertainty import standard_deviation

__all__ = ["Products"]

# NOTE: protons per electron in a fully ionized plasma of coronal composition, about one helium for ten hydrogens.
_HYDROGEN_RATIO = 0.83


class Products:
    """Methods of `DEMCube` that return maps and curves."""

    def synthesize(self, channels=CHANNELS, *, degraded: bool = False) -> sunpy.map.MapSequence:
        """
        Return synthetic AIA maps.

        The maps are in DN / s at the epoch of the response, to be compared with observations that are corrected for
        degradation. Their CONTENT keyword contains the word "synthetic". They have no uncertainty, as the errors of
        neighboring bins cancel by an unknown amount; `residual_maps` compares them with the observations.

        Parameters
        ----------
        channels : sequence of `int`, optional
            Wavelengths in Å, by default all six.
        degraded : `bool`, optional
            Whether to apply the degradation at the date of the observation, for comparison with level 1.5 data divided
            by exposure time. The factor of each channel, by which the intensities were corrected, is in its DEGRFACT
            keyword. Such maps can be inverted like observed ones.

        Returns
        -------
        `~sunpy.map.MapSequence`
            One `~sunpy.map.sources.AIAMap` for each of ``channels``, in that order.

        Raises
        ------
        ValueError
            If a channel is unknown, or the cube lacks an axis.
        astropy.units.UnitsError
            If the unit of the cube is not that of an EM.

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
        """Return the degradation of an observation relative to the cube's response."""
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
        Return the calibrated, aligned and binned observations.

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
        Return the residual of each channel: (observed − synthetic) / σ.

        If the cube was cut along log T, the residual includes emission from the removed bins.

        Returns
        -------
        `~sunpy.map.MapSequence`
            Six `~sunpy.map.sources.AIAMap`, dimensionless, in channel order. Their ``uncertainty``, that of the
            observations, is one.

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

    def bin_map(self, log_t: float, *, quantiles=None, **draws):
        """
        Return the EM of the bin that contains ``log_t`` as a map.

        Parameters
        ----------
        log_t : `float`
            In log10(T/K).
        quantiles, **draws
            As for `total_em`.

        Returns
        -------
        `~sunpy.map.GenericMap`
            In cm^-5, with the cube's standard deviation, if it has one, as ``uncertainty``.

        Raises
        ------
        ValueError
            If ``log_t`` is outside the bins.

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
        return self.total_em(edges[index], edges[index + 1], quantiles=quantiles, **draws)

    def total_em(self, low: float | None = None, high: float | None = None, *, quantiles=None, **draws):
        """
        Return the EM summed over a range of log T as a map.

        A bin that is partly in the range counts with that fraction of its EM, as EM is uniform per dex inside a bin.

        Parameters
        ----------
        low, high : `float`, optional
            Limits in log10(T/K), by default those of the cube.
        quantiles : `float` or sequence of `float`, optional
            Quantiles of the joint posterior to be returned instead, such as ``(0.16, 0.5, 0.84)``.
        **draws
            Options of the draws for ``quantiles``: ``n``, ``seed`` and ``method`` as for `map_draws`.

        Returns
        -------
        `~sunpy.map.GenericMap`
            In cm^-5. The ``uncertainty`` is the root of the sum of squares over the bins, as if their errors were
            independent, which they are not: ``quantiles`` come from the joint posterior.
            With ``quantiles`` a `~sunpy.map.MapSequence` with one map for each.

        Raises
        ------
        ValueError
            If a limit is outside the bins, or the range is empty.

        Examples
        --------
        >>> dem = invert(sample_maps((64, 64)))
        >>> dem.total_em(6.3, 6.6).unit
        Unit("1 / cm5")
        """
        self._require_3d("total_em")
        begin, end = derived.band_limits(self.bins, low, high)
        fraction = ((end - begin) / self.bins.step).round(9)
        content = f"EM, log T {begin[0]:g} to {end[-1]:g}"
        if quantiles is not None:
            return self._quantile_maps(lambda em: _weighted(fraction, em), quantiles, EM_UNIT, content, draws)
        part, std = fraction > 0, standard_deviation(self)
        std = None if std is None else np.sqrt(np.tensordot(fraction[part] ** 2, std[part] ** 2, axes=1))
        total = np.tensordot(fraction[part], self.data[part], axes=1)
        return self._map(total, std, self.unit, content)

    def band_maps(self, bands=BANDS, *, quantiles=None, **draws) -> sunpy.map.MapSequence:
        """
        Return the EM of several ranges of log T as maps.

        Parameters
        ----------
        bands : sequence of pairs of `float`, optional
            Limits in log10(T/K), as for `total_em`; by default 5.6 to 6.0, 6.0 to 6.3, 6.3 to 6.6 and 6.6 to 7.0.
        quantiles, **draws
            As for `total_em`.

        Returns
        -------
        `~sunpy.map.MapSequence`
            One `~sunpy.map.GenericMap` in cm^-5 for each band, in their order, or one for each quantile of each band.

        Raises
        ------
        ValueError
            If a limit is outside the bins, or a range is empty.

        Examples
        --------
        >>> dem = invert(sample_maps((64, 64)))
        >>> [smap.meta["content"] for smap in dem.band_maps()]
        ['EM, log T 5.6 to 6', 'EM, log T 6 to 6.3', 'EM, log T 6.3 to 6.6', 'EM, log T 6.6 to 7']
        """
        pairs = derived.checked_bands(bands)
        if quantiles is None:
            maps = [self.total_em(low, high) for low, high in pairs]
        else:
            maps = [each for low, high in pairs for each in self.total_em(low, high, quantiles=quantiles, **draws)]
        return sunpy.map.Map(maps, sequence=True, sortby=None)

    def em_weighted_log_t(self, *, quantiles=None, **draws):
        """
        Return the mean log T weighted by EM as a map.

        Parameters
        ----------
        quantiles, **draws
            As for `total_em`.

        Returns
        -------
        `~sunpy.map.GenericMap`
            In log10(T/K), dimensionless; NaN where there is no EM. The ``uncertainty`` assumes independent errors of
            the bins.

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
        return self._quantity(derived.mean_log_t, "EM-weighted log10(T/K)", quantiles, draws)

    def peak_log_t(self, *, quantiles=None, **draws):
        """
        Return the log T of the bin with the most EM as a map.

        Parameters
        ----------
        quantiles, **draws
            As for `total_em`.

        Returns
        -------
        `~sunpy.map.GenericMap`
            Center of the bin in log10(T/K), dimensionless; NaN where there is no EM. The ``uncertainty`` is half the
            width of the range of bins that may contain the peak: those whose EM plus its standard deviation is at
            least the EM of the peak minus its own. It is at least half a bin.

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
        return self._quantity(derived.peak_log_t, "log10(T/K) of most EM", quantiles, draws)

    def thermal_width(self, *, quantiles=None, **draws):
        """
        Return the standard deviation of the EM along log T as a map.

        EM is uniform per dex inside a bin, so plasma in a single bin of 0.1 dex has a width of 0.1 / √12 = 0.029.

        Parameters
        ----------
        quantiles, **draws
            As for `total_em`.

        Returns
        -------
        `~sunpy.map.GenericMap`
            In dex, dimensionless; NaN where there is no EM. The ``uncertainty`` assumes independent errors of the bins.

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
        return self._quantity(derived.thermal_width, "standard deviation of EM in dex of T", quantiles, draws)

    @u.quantity_input
    def electron_density(self, depth: u.cm, *, low=None, high=None, filling_factor=1.0, hydrogen_ratio=_HYDROGEN_RATIO):
        r"""
        Return the electron density as a map, given the depth of the plasma along the line of sight.

        The EM is the integral of n_e n_H along the line of sight, so for uniform density
        :math:`n_e = \sqrt{\mathrm{EM} / (h f d)}`, with the ratio h of n_H to n_e, the filling factor f and the depth
        d.

        Parameters
        ----------
        depth : `~astropy.units.Quantity`
            Length along the line of sight, scalar or of shape ``(ny, nx)``.
        low, high : `float`, optional
            Range of log10(T/K), as for `total_em`.
        filling_factor : `float`, optional
            Fraction of the depth that contains plasma, above 0 and at most 1.
        hydrogen_ratio : `float`, optional
            Hydrogen nuclei per electron; 0.83 in fully ionized plasma, and 1 for an EM of n_e².

        Returns
        -------
        `~sunpy.map.GenericMap`
            In cm^-3. The ``uncertainty`` is that of the EM alone; depth and filling factor are treated as exact.

        Raises
        ------
        ValueError
            If ``depth``, ``filling_factor``, ``hydrogen_ratio`` or the range of log T is out of range.
        astropy.units.UnitsError
            If ``depth`` is not a length.

        Examples
        --------
        >>> dem = invert(sample_maps((64, 64)))
        >>> dem.electron_density(50 * u.Mm, low=6.0, high=6.6).unit
        Unit("1 / cm3")
        """
        column = self._column(depth, filling_factor, hydrogen_ratio)
        value, std = derived.electron_density(*self._em_in_cgs(), self.bins, low=low, high=high, **column)
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
        Return the thermal energy as a map, given the depth of the plasma along the line of sight.

        :math:`E = 3 k_B n_e T V`, for electrons and as many ions. The density n_e, as in `electron_density`, is the
        same at all temperatures, so each temperature fills a fraction of the volume equal to its fraction of the EM,
        and T is the EM-weighted mean temperature.

        Parameters
        ----------
        depth, low, high, filling_factor, hydrogen_ratio
            As for `electron_density`.
        per_pixel : `bool`, optional
            Whether to return the energy in each pixel in erg, with the area of the pixel at the distance of the Sun's
            center, rather than the energy per area in erg cm^-2.

        Returns
        -------
        `~sunpy.map.GenericMap`
            In erg cm^-2, or erg. The ``uncertainty`` is that of the EM alone and assumes independent errors of the
            bins.

        Raises
        ------
        ValueError
            If ``depth``, ``filling_factor``, ``hydrogen_ratio`` or the range of log T is out of range.
        astropy.units.UnitsError
            If ``depth`` is not a length.

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
        value, std = derived.thermal_energy(*self._em_in_cgs(), self.bins, low=low, high=high, **column)
        if not per_pixel:
            return self._map(value, std, u.erg / u.cm**2, "thermal energy per area")
        area = self._pixel_area().to_value(u.cm**2)
        return self._map(value * area, None if std is None else std * area, u.erg, "thermal energy per pixel")

    def curve(self, region=None):
        """
        Return the mean EM curve of a region, with its interval and the observed intensities.

        Parameters
        ----------
        region : `~astropy.coordinates.SkyCoord`, `~regions.Region`, `~numpy.ndarray` or `None`, optional
            One coordinate; a sky or pixel region of the package ``regions``; a boolean mask, shape ``(ny, nx)``; or, by
            default, the whole cube. See `sunpy_deepem.analysis.em_curve`, also for the meaning of the interval.

        Returns
        -------
        `~sunpy_deepem.analysis.EMCurve`

        Raises
        ------
        TypeError
            If ``region`` has another type.
        ValueError
            If ``region`` is outside the cube, contains masked pixels only, or is a mask of another shape.

        Examples
        --------
        >>> dem = invert(sample_maps((64, 64)))
        >>> dem.curve(dem.chi2 < 1).em.unit
        Unit("1 / cm5")
        """
        self._require_3d("curve")
        return em_curve(self, region)

    def _em_in_cgs(self):
        """Return EM and its standard deviation in cm^-5."""
        self._require_3d("an EM")
        to_cgs, std = self.unit.to(EM_UNIT), standard_deviation(self)
        return self.data * to_cgs, None if std is None else std * to_cgs

    def _column(self, depth, filling_factor, hydrogen_ratio):
        """Return the arguments of `derived` that describe the line of sight."""
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
        """Return the area of a pixel in the plane of the sky, at the distance of the Sun's center."""
        smap = self.total_em()
        angles = u.Quantity(smap.scale) * u.pix
        width, height = (angles.to_value(u.rad) * smap.dsun).to(u.cm)
        return width * height

    def _map(self, data, std, unit, content):
        """Return a map on the sky of the cube, with its mask."""
        cards = {"bunit": unit.to_string("fits"), "content": content}
        uncertainty = None if std is None else StdDevUncertainty(std)
        return sunpy.map.Map(data, self.sky_header | cards, mask=self.sky_mask, uncertainty=uncertainty)

    def _quantity(self, function, content, quantiles, draws):
        """Return a dimensionless map of ``function(em, std, bins)``, or maps of its quantiles."""
        if quantiles is not None:
            value = partial(function, std=None, bins=self.bins)
            return self._quantile_maps(lambda em: value(em)[0], quantiles, u.one, content, draws)
        value, std = function(self.data, standard_deviation(self), self.bins)
        return self._map(value, std, u.one, content)

    def _quantile_maps(self, function, quantiles, unit, content, draws):
        """Return a map for each quantile of a function of EM ``(n_bins, ...)`` over posterior draws."""
        asked = np.atleast_1d(quantiles)
        images = self.map_draws(lambda em: quantiles_of(function, em, asked), **draws)
        maps = [
            self._map(image, None, unit, f"{content}, {100 * quantile:g} % quantile")
            for image, quantile in zip(images, asked, strict=True)
        ]
        return sunpy.map.Map(maps, sequence=True, sortby=None)


def _weighted(weights, em):
    """Return the sum of EM ``(n_bins, ...)`` over bins with weights, some of them zero."""
    part = weights > 0
    return np.tensordot(weights[part].astype(em.dtype), em[part], axes=1)
