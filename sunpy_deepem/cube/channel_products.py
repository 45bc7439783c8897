"""Maps of the channels of a cube, observed and synthetic: a mixin of `DEMCube`."""

from functools import partial

import numpy as np
import sunpy.map
from astropy.nddata import StdDevUncertainty
from astropy.time import Time

from sunpy_deepem.analysis import derived
from sunpy_deepem.calibrate.degradation import degradation_factor
from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.forward import channel_maps, synthetic_intensity, synthetic_maps
from sunpy_deepem.units import INTENSITY_UNIT, RESPONSE_UNIT

__all__ = ["ChannelProducts"]


class ChannelProducts:
    """Methods of `DEMCube` that return a map of each channel."""

    def synthesize(
        self, channels=CHANNELS, *, degraded: bool = False, quantiles=None, **draws
    ) -> sunpy.map.MapSequence:
        """
        Return synthetic AIA maps.

        The maps are in DN / s at the epoch of the response, to be compared with observations that are corrected for
        degradation. Their CONTENT keyword contains the word "synthetic". Maps of a channel that the inversion did not
        use are a prediction, and ``quantiles`` give its interval.

        Parameters
        ----------
        channels : sequence of `int`, optional
            Wavelengths in Å, by default all six.
        degraded : `bool`, optional
            Whether to apply the degradation at the date of the observation, for comparison with level 1.5 data divided
            by exposure time. The factor of each channel, by which the intensities were corrected, is in its DEGRFACT
            keyword: that of the inversion, or of the ``correction_table`` that was given with ``degradation=None``, by
            default the packaged one. Such maps can be inverted like observed ones.
        quantiles, **draws
            As for `total_em`.

        Returns
        -------
        `~sunpy.map.MapSequence`
            One `~sunpy.map.sources.AIAMap` for each of ``channels``, in that order, or one for each quantile of each
            channel.

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
        facts = {observation["channel"]: observation for observation in self.inputs}
        inputs = [facts[channel] for channel in response.channels]
        factors = [self._degradation(observation) for observation in inputs] if degraded else None
        maps = partial(synthetic_maps, header=self.sky_header, inputs=inputs, degradation=factors, mask=self.sky_mask)
        rows = response.matrix.to_value(RESPONSE_UNIT)
        functions = [partial(derived.weighted_sum, row) for row in rows]
        if quantiles is not None:
            images = np.moveaxis(self._quantiles(functions, quantiles, **draws), 1, 0) << INTENSITY_UNIT
            by_quantile = [maps(image, quantile=q) for image, q in zip(images, np.atleast_1d(quantiles), strict=True)]
            by_channel = [smap for group in zip(*by_quantile, strict=True) for smap in group]
            return sunpy.map.Map(by_channel, sequence=True, sortby=None)
        scales = factors or [1.0] * len(rows)
        uncertainty = self._uncertainties(functions, scales, **draws)
        return maps(synthetic_intensity(self.data << self.unit, response), uncertainty=uncertainty)

    def _degradation(self, observation):
        """Return the degradation of an observation relative to the cube's response."""
        corrected = self.meta["provenance"].get("degradation")
        if corrected == "data":
            return float(observation["degradation"])
        if corrected == "response":
            return 1.0
        if "earlier_correction" in observation:
            return float(observation["earlier_correction"])
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
            uncertainty=[StdDevUncertainty(np.ones(image.shape)) for image in residual],
            content="residual, (observed - synthetic) / sigma",
        )
