"""Maps and curves that follow from the EM of a cube: a mixin of `DEMCube`."""

from functools import partial
from typing import overload

import astropy.units as u
import numpy as np
import sunpy.map

from sunpy_deepem.analysis import derived
from sunpy_deepem.analysis.curves import EMCurve, em_curve
from sunpy_deepem.forward import content_cards
from sunpy_deepem.quality import Quality
from sunpy_deepem.temperature import BANDS
from sunpy_deepem.units import COVERAGE, EM_UNIT
from sunpy_deepem.utils.checks import real_number
from sunpy_deepem.utils.product_maps import DerivedMap
from sunpy_deepem.visualization.panels import cover_undetermined

__all__ = ["Products"]

# NOTE: protons per electron in a fully ionized plasma of coronal composition, about one helium for ten hydrogens.
_HYDROGEN_RATIO = 0.83
# Quantiles of the 68 % interval and the median.
_INTERVAL = ((1 - COVERAGE) / 2, 0.5, (1 + COVERAGE) / 2)


class Products:
    """
    Methods of `DEMCube` that return maps and curves.

    The maps that follow from the EM have an ``uncertainty`` if the cube has a posterior: half the 68 % interval of
    posterior draws, see `DEMCube.posterior`. It is computed when it is first used.
    """

    def bin_map(self, log_t, *, quantiles=None, **draws):
        """
        Return the EM of the bin that contains ``log_t`` as a map.

        Parameters
        ----------
        log_t : `float` or `~astropy.units.Quantity`
            In log10(T/K), or a temperature.
        quantiles, **draws
            As for `total_em`.

        Returns
        -------
        `~sunpy.map.GenericMap`
            In cm^-5. With ``quantiles`` a `~sunpy.map.MapSequence`, as of `total_em`.

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
        edges, log_t = self.bins.edges, derived.log_temperature(log_t, "log_t")
        if not edges[0] <= log_t < edges[-1]:
            msg = f"log_t must lie within the cube's bins, from {edges[0]} to {edges[-1]}, found {log_t}."
            raise ValueError(msg)
        index = int(np.searchsorted(edges, log_t, side="right")) - 1
        return self.total_em(edges[index], edges[index + 1], quantiles=quantiles, **draws)

    @overload
    def total_em(self, low=None, high=None, *, quantiles: None = None, **draws) -> DerivedMap: ...

    @overload
    def total_em(self, low=None, high=None, *, quantiles, **draws) -> sunpy.map.MapSequence: ...

    def total_em(self, low=None, high=None, *, quantiles=None, **draws):
        """
        Return the EM summed over a range of log T as a map.

        The map's ``plot`` fades and hatches pixels where the prior determines the EM, its interval reaches zero or the
        signal is low. This takes posterior draws of at most 64 × 64 pixels, about two seconds.

        A bin that is partly in the range counts with that fraction of its EM, as EM is uniform per dex inside a bin.

        Parameters
        ----------
        low, high : `float` or `~astropy.units.Quantity`, optional
            Limits in log10(T/K), or temperatures such as ``1 * u.MK``; by default those of the cube.
        quantiles : `float` or sequence of `float`, optional
            Quantiles of the posterior to return instead, such as ``(0.16, 0.5, 0.84)``.
        **draws
            Options of the posterior draws: ``n``, ``seed`` and ``method`` as for `map_draws`.

        Returns
        -------
        `~sunpy.map.GenericMap`
            In cm^-5. Its ``uncertainty`` is half the 68 % interval, computed from posterior draws when it is first
            used, or `None` if the cube has no posterior. With ``quantiles`` a `~sunpy.map.MapSequence` with one map for
            each, whose header has the keyword QUANTILE.

        Raises
        ------
        TypeError
            If ``method`` has no posterior.
        ValueError
            If a limit is outside the bins, the range is empty, or quantiles are asked of a cube without posterior.
        astropy.units.UnitsError
            If the unit of the cube is not that of an EM.

        Examples
        --------
        >>> dem = invert(sample_maps((64, 64)))
        >>> dem.total_em(6.3, 6.6).unit
        Unit("1 / cm5")
        >>> dem.total_em(1 * u.MK, 3 * u.MK).meta["content"]
        'EM, log T 6 to 6.477'
        >>> low, median, high = dem[:, 30:34, 30:34].total_em(6.3, 6.6, quantiles=(0.16, 0.5, 0.84))
        >>> median.meta["content"]
        'EM, log T 6.3 to 6.6, 50 % quantile'
        """
        maps = self._em_maps([(low, high)], quantiles, draws)
        return maps[0] if quantiles is None else _sequence(maps)

    def relative_uncertainty(self, low=None, high=None, **draws):
        """
        Return the relative uncertainty of the EM in a range of log T as a map: half the 68 % interval over the median.

        It is above 1 where the interval includes values near zero, as the data do not exclude that there is no plasma.

        Parameters
        ----------
        low, high, **draws
            As for `total_em`.

        Returns
        -------
        `~sunpy.map.GenericMap`
            Dimensionless; infinite where the median is zero.

        Raises
        ------
        TypeError, ValueError
            As of `total_em` with ``quantiles``.

        Examples
        --------
        >>> dem = invert(sample_maps((64, 64)))
        >>> bool(dem[:, 30:34, 30:34].relative_uncertainty(6.0, 6.3).data.max() < 1)
        True
        """
        self._require_3d("relative_uncertainty")
        begin, end = derived.band_limits(self.bins, low, high)
        function = partial(derived.band_em, bins=self.bins, low=low, high=high)
        lower, median, upper = self._quantiles([function], _INTERVAL, **draws)[0]
        with np.errstate(divide="ignore", invalid="ignore"):
            image = (upper - lower) / 2 / median
        content = f"relative uncertainty of EM, log T {begin[0]:.4g} to {end[-1]:.4g}"
        return self._map(image, None, u.one, content)

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
        return _sequence(self._em_maps(derived.checked_bands(bands), quantiles, draws))

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
            In log10(T/K), dimensionless; NaN where there is no EM.
            With ``quantiles`` a `~sunpy.map.MapSequence`, as of `total_em`.

        Raises
        ------
        TypeError, ValueError
            As of `total_em`.

        Examples
        --------
        >>> dem = invert(sample_maps((64, 64)))
        >>> bool(5.9 < dem.em_weighted_log_t().data[32, 32] < 6.4)
        True
        """
        return self._ratio_maps(derived.em_weighted_log_t, "EM-weighted log10(T/K)", quantiles, draws)

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
            Center of the bin in log10(T/K), dimensionless; NaN where there is no EM. The ``uncertainty`` is zero where
            most draws have the same peak. With ``quantiles`` a `~sunpy.map.MapSequence`, as of `total_em`.

        Raises
        ------
        TypeError, ValueError
            As of `total_em`.

        Examples
        --------
        >>> dem = invert(sample_maps((64, 64)))
        >>> bool(dem.peak_log_t().data[32, 32] in dem.log_t)
        True
        """
        return self._ratio_maps(derived.peak_log_t, "log10(T/K) of most EM", quantiles, draws)

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
            In dex, dimensionless; NaN where there is no EM.
            With ``quantiles`` a `~sunpy.map.MapSequence`, as of `total_em`.

        Raises
        ------
        TypeError, ValueError
            As of `total_em`.

        Examples
        --------
        >>> dem = invert(sample_maps((64, 64)))
        >>> bool(0.029 < dem.thermal_width().data[32, 32] < 0.5)
        True
        """
        return self._ratio_maps(derived.thermal_width, "standard deviation of EM in dex of T", quantiles, draws)

    @u.quantity_input
    def electron_density(
        self,
        depth: u.cm,
        *,
        low=None,
        high=None,
        filling_factor=1.0,
        hydrogen_ratio=_HYDROGEN_RATIO,
        quantiles=None,
        **draws,
    ):
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
        quantiles, **draws
            As for `total_em`.

        Returns
        -------
        `~sunpy.map.GenericMap`
            In cm^-3. The ``uncertainty`` is that of the EM alone; depth and filling factor are treated as exact.
            With ``quantiles`` a `~sunpy.map.MapSequence`, as of `total_em`.

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
        self._require_3d("electron_density")
        column = self._column(depth, filling_factor, hydrogen_ratio)
        # Draws are processed in tiles of pixels, so a depth that varies from pixel to pixel is applied afterwards.
        function = partial(derived.electron_density, bins=self.bins, low=low, high=high, depth=1.0, hydrogen_ratio=1.0)
        return self._maps_of(function, u.cm**-3, "electron density", quantiles, draws, scale=column**-0.5)

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
        quantiles=None,
        **draws,
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
        quantiles, **draws
            As for `total_em`.

        Returns
        -------
        `~sunpy.map.GenericMap`
            In erg cm^-2, or erg. The ``uncertainty`` is that of the EM alone; depth and filling factor are treated as
            exact. With ``quantiles`` a `~sunpy.map.MapSequence`, as of `total_em`.

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
        self._require_3d("thermal_energy")
        column = self._column(depth, filling_factor, hydrogen_ratio)
        function = partial(derived.thermal_energy, bins=self.bins, low=low, high=high, depth=1.0, hydrogen_ratio=1.0)
        unit, content, scale = u.erg / u.cm**2, "thermal energy per area", np.sqrt(column) / hydrogen_ratio
        if per_pixel:
            unit, content, scale = u.erg, "thermal energy per pixel", scale * self._pixel_area().to_value(u.cm**2)
        return self._maps_of(function, unit, content, quantiles, draws, scale=scale)

    def curve(self, region=None, *, n=500, seed=0, method=None) -> EMCurve:
        """
        Return the mean EM curve of a region, with its interval and the observed intensities.

        Parameters
        ----------
        region : `~astropy.coordinates.SkyCoord`, `~regions.Region`, `~numpy.ndarray` or `None`, optional
            One coordinate; a sky or pixel region of the package ``regions``; a boolean mask, shape ``(ny, nx)``; or, by
            default, the whole cube. See `sunpy_deepem.analysis.em_curve`.
        n, seed, method
            Options of the posterior draws, as for `map_draws`.

        Returns
        -------
        `~sunpy_deepem.analysis.EMCurve`

        Raises
        ------
        TypeError
            If ``region`` has another type, or ``method`` no posterior.
        ValueError
            If ``region`` is outside the cube, contains masked pixels only, or is a mask of another shape; or if its
            pixels have fewer than three channels in common.

        Examples
        --------
        >>> dem = invert(sample_maps((64, 64)))
        >>> curve = dem.curve(dem.chi2 < 1)
        >>> curve.em.shape, curve.draws.shape
        ((18,), (500, 18))
        """
        self._require_3d("curve")
        return em_curve(self, region, n=n, seed=seed, method=method)

    def _column(self, depth, filling_factor, hydrogen_ratio):
        """Return the depth that is filled with plasma in cm times the hydrogen ratio, checked."""
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
        return depth.to_value(u.cm) * filling_factor * hydrogen_ratio

    def _pixel_area(self):
        """Return the area of a pixel in the plane of the sky, at the distance of the Sun's center."""
        smap = self.total_em()
        angles = u.Quantity(smap.scale) * u.pix
        width, height = (angles.to_value(u.rad) * smap.dsun).to(u.cm)
        return width * height

    def _em_maps(self, ranges, quantiles, draws):
        """Return a list of maps of the EM in ranges of log T, from one pass over the draws."""
        self._require_3d("total_em")
        limits = [derived.band_limits(self.bins, *each) for each in ranges]
        contents = [f"EM, log T {begin[0]:.4g} to {end[-1]:.4g}" for begin, end in limits]
        functions = [partial(derived.band_em, bins=self.bins, low=low, high=high) for low, high in ranges]
        maps = self._maps(functions, EM_UNIT, contents, quantiles, draws)
        if quantiles is None and self.has_posterior and isinstance(self.data, np.ndarray):
            for smap, (begin, end) in zip(maps, limits, strict=True):
                if end[-1] - begin[0] < 0.9 * self.bins.step * len(self.bins):  # the total is determined
                    smap.cover = partial(cover_undetermined, self, (begin[0], end[-1]))
        return maps

    def _ratio_maps(self, function, content, quantiles, draws):
        """Return a map, or maps of quantiles, of a function of EM and bins that does not depend on the unit of EM."""
        self._require_3d("log T")
        return self._maps_of(partial(function, bins=self.bins), u.one, content, quantiles, draws)

    def _maps_of(self, function, unit, content, quantiles, draws, *, scale=1.0):
        """Return a map of a function of the EM ``(n_bins, ...)``, or a sequence of its quantiles."""
        maps = self._maps([function], unit, [content], quantiles, draws, scale=scale)
        return maps[0] if quantiles is None else _sequence(maps)

    def _maps(self, functions, unit, contents, quantiles, draws, *, scale=1.0):
        """Return a list with a map of each function of the EM ``(n_bins, ...)``, or one of each of its quantiles."""
        if quantiles is not None:
            # First, as it is read in larger chunks than the draws need. Maps that share it cannot change it.
            mask = np.array(self.sky_mask)
            mask.flags.writeable = False
            images = self._quantiles(functions, quantiles, **draws)
            images *= scale
            return [
                self._map(image, None, unit, content, quantile, mask=mask)
                for group, content in zip(images, contents, strict=True)
                for image, quantile in zip(group, np.atleast_1d(quantiles), strict=True)
            ]
        # Ratios, such as the mean log T, are defined for data in any unit.
        em = self.data if unit == u.one else (self.data << self.unit).to_value(EM_UNIT)
        uncertainties = self._uncertainties(functions, [scale] * len(functions), **draws)
        return [
            self._map(scale * function(em), uncertainty, unit, content)
            for function, uncertainty, content in zip(functions, uncertainties, contents, strict=True)
        ]

    def _map(self, image, uncertainty, unit, content, quantile=None, *, mask=None):
        """Return a map on the sky of the cube, with a mask, by default that of the cube."""
        cards = {"bunit": unit.to_string("fits"), "date-beg": self.date.isot} | content_cards(content, quantile)
        mask = self.sky_mask if mask is None else mask
        smap = DerivedMap(image, self.sky_header | cards, mask=mask, uncertainty=uncertainty)
        if isinstance(self.quality, np.ndarray):
            smap.faded = (self.quality & np.uint16(Quality.LOW_SIGNAL)) != 0
        return smap


def _sequence(maps):
    return sunpy.map.Map(maps, sequence=True, sortby=None)
