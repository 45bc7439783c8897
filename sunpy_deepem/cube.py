"""What comes out: `DEMCube`."""

from operator import index

import numpy as np
import sunpy.map
from astropy.nddata import StdDevUncertainty
from astropy.wcs import WCS
from ndcube import NDCube, NDMeta

from sunpy_deepem._wcs import cube_wcs, sky_header
from sunpy_deepem.channels import CHANNELS, INTENSITY_UNIT
from sunpy_deepem.forward import EM_UNIT, channel_maps, chi_squared, synthesize_maps
from sunpy_deepem.quality import HIGH_CHI2, Quality
from sunpy_deepem.temperature import LogTBins

__all__ = ["DEMCube"]

_EDGE_SHARE = 0.25
_EDGE_BINS = 2


class DEMCube(NDCube):
    """
    Emission measure on a grid of log T and sky.

    The data are the EM of each bin of log T in cm^-5, that is, the integral of the DEM over the bin, with n_e n_H;
    axes are log T, y, x. Made by `sunpy_deepem.invert`, `from_arrays` or `read`; slices and crops like any
    `~ndcube.NDCube`, and its companions (``chi2``, ``quality``, the observed intensities) are sliced with it.

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
            Its standard deviation, of the same shape.
        response : `TemperatureResponse`
            The response for which it was found.
        header : `dict`
            FITS header of the sky: WCS, observer, time.
        inputs : sequence of `dict`
            For each channel ``channel``, ``date``, ``exposure_time`` and whatever else is known.
        intensity, uncertainty : `~astropy.units.Quantity`
            What was inverted, DN s^-1 pix^-1, shape ``(6, ny, nx)``.
        quality : `~numpy.ndarray`, optional
            `Quality` flags so far, shape ``(ny, nx)``. Pixels MISSING or SATURATED are masked; so are those in which EM
            or intensity is not finite, which are flagged MISSING.
        saturation : `~numpy.ndarray`, optional
            Share of native pixels that are saturated, shape ``(ny, nx)``, zero by default.
        meta : `dict`, optional
            More provenance.

        Returns
        -------
        `DEMCube`

        Raises
        ------
        ValueError
            If shapes do not fit.
        """
        # Double precision, as squares of EM, which every propagation of errors takes, overflow single.
        em = np.array(em, dtype=float)
        sky = em.shape[1:]
        expected = {"em": (em, (len(response.bins), *sky)), "intensity": (intensity, (len(CHANNELS), *sky))}
        expected |= {"uncertainty": (uncertainty, (len(CHANNELS), *sky))}
        expected |= {} if em_std is None else {"em_std": (em_std, em.shape)}
        expected |= {} if quality is None else {"quality": (quality, sky)}
        for name, (array, shape) in expected.items():
            if array.shape != shape or len(sky) != 2:
                msg = f"{name} must have shape {shape if len(sky) == 2 else '(bins, ny, nx)'}, found {array.shape}."
                raise ValueError(msg)
        quality = np.zeros(sky, dtype=np.uint16) if quality is None else quality.astype(np.uint16)
        missing = ~(np.isfinite(em).all(axis=0) & np.isfinite(intensity).all(axis=0))
        quality |= np.where(missing & ((quality & Quality.SATURATED) == 0), Quality.MISSING, 0).astype(np.uint16)
        masked = (quality & (Quality.MISSING | Quality.SATURATED)) != 0
        em[:, masked] = np.nan
        chi2 = chi_squared(em << EM_UNIT, intensity, uncertainty, response).astype(np.float32)
        quality |= _fit_flags(em, chi2)
        saturation = np.zeros(sky, dtype=np.float32) if saturation is None else saturation
        companions = {"chi2": chi2, "quality": quality, "saturation": saturation}
        for channel, g, sigma in zip(CHANNELS, intensity, uncertainty, strict=True):
            companions[f"intensity_{channel}"] = g.to_value(INTENSITY_UNIT)
            companions[f"sigma_{channel}"] = sigma.to_value(INTENSITY_UNIT)
        facts = {"response": response, "inputs": tuple(inputs), "provenance": dict(meta or {})}
        return cls(
            em,
            wcs=cube_wcs(header, response.bins),
            uncertainty=None if em_std is None else StdDevUncertainty(np.array(em_std, dtype=float)),
            mask=np.broadcast_to(masked, em.shape).copy(),
            meta=NDMeta(companions | facts, axes=dict.fromkeys(companions, (1, 2)), data_shape=em.shape),
        )

    # -- what it holds ------------------------------------------------------------------------------------------------

    @property
    def bins(self):
        """The bins of the log T axis, `LogTBins`."""
        self._require_3d("bins")
        wcs = self.wcs.wcs
        axis = wcs.naxis - 1
        first = wcs.crval[axis] + (1 - wcs.crpix[axis]) * wcs.cdelt[axis]
        return LogTBins(round(first, 9), round(wcs.cdelt[axis], 9), self.data.shape[0])

    @property
    def log_t(self):
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
        return response.with_bins(self.bins) if self._is_3d else response

    @property
    def inputs(self):
        """For each channel the observation that went in, `tuple` of `dict`."""
        return self.meta["inputs"]

    @property
    def intensity(self):
        """The observed intensities, `~astropy.units.Quantity` in DN s^-1 pix^-1, shape ``(6, ny, nx)``."""
        return np.stack([self.meta[f"intensity_{channel}"] for channel in CHANNELS]) << INTENSITY_UNIT

    @property
    def intensity_uncertainty(self):
        """σ of the observed intensities, of the same unit and shape."""
        return np.stack([self.meta[f"sigma_{channel}"] for channel in CHANNELS]) << INTENSITY_UNIT

    @property
    def sky_header(self):
        """FITS header of the two sky axes, with observer and time, as a `dict`."""
        self._require_3d("sky_header")
        return sky_header(self.wcs)

    # -- what follows from it -----------------------------------------------------------------------------------------

    def synthesize(self, channels=CHANNELS):
        """
        Return the AIA maps that the cube's plasma would give.

        The maps are in DN / s at the response's epoch, that is, to be compared with observations that were corrected
        for degradation, and hold the word "synthetic" in their CONTENT keyword.

        Parameters
        ----------
        channels : sequence of `int`, optional
            Wavelengths in Å, by default all six.

        Returns
        -------
        `~sunpy.map.MapSequence`
            One `~sunpy.map.sources.AIAMap` for each of ``channels``, in that order.

        Raises
        ------
        ValueError
            If a channel is none of the six, or the cube lacks an axis.
        """
        self._require_3d("synthesize")
        response = self.response.with_channels(channels)
        by_channel = {observation["channel"]: observation for observation in self.inputs}
        inputs = [by_channel[channel] for channel in response.channels]
        return synthesize_maps(self.data << self.unit, response, self.sky_header, inputs, mask=self.mask.any(axis=0))

    def observed_maps(self):
        """
        Return the observations that went in, calibrated, aligned and binned.

        Returns
        -------
        `~sunpy.map.MapSequence`
            Six `~sunpy.map.sources.AIAMap` in DN / s, in channel order, on the grid of `synthesize`.
        """
        self._require_3d("observed_maps")
        return channel_maps(self.intensity, self.sky_header, self.inputs, mask=self.mask.any(axis=0))

    @property
    def dem(self):
        """The DEM, EM over the width of the bin in temperature, `~astropy.units.Quantity` in cm^-5 K^-1."""
        self._require_3d("dem")
        return self.bins.em_to_dem(self.data << self.unit)

    @property
    def em_per_dex(self):
        """EM over the width of the bin in log T, `~astropy.units.Quantity` in cm^-5 (per dex)."""
        self._require_3d("em_per_dex")
        return (self.data << self.unit) / self.bins.step

    def bin_map(self, log_t):
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
        """
        edges = self.bins.edges
        if not edges[0] <= log_t < edges[-1]:
            msg = f"log_t must lie within the cube's bins, from {edges[0]} to {edges[-1]}, found {log_t}."
            raise ValueError(msg)
        index = int(np.searchsorted(edges, log_t, side="right")) - 1
        return self._em_map(slice(index, index + 1))

    def total_em(self, low=None, high=None):
        """
        Return the EM summed over a range of log T as a map.

        Parameters
        ----------
        low, high : `float`, optional
            Limits in log10(T/K), which must be edges of bins; by default all bins.

        Returns
        -------
        `~sunpy.map.GenericMap`
            In cm^-5. The ``uncertainty`` is the root of the sum of squares over the bins, which is too large, as bins
            next to each other share their plasma.

        Raises
        ------
        ValueError
            If a limit is no edge, or the range is empty.
        """
        edges = self.bins.edges
        first = 0 if low is None else self._edge(low, edges)
        last = edges.size - 1 if high is None else self._edge(high, edges)
        if first >= last:
            msg = f"low must be below high, found {low} and {high}."
            raise ValueError(msg)
        return self._em_map(slice(first, last))

    @staticmethod
    def _edge(limit, edges):
        found = np.flatnonzero(np.isclose(edges, limit, rtol=0, atol=1e-6))
        if found.size == 0:
            msg = f"{limit} is no edge of a bin; the edges are {edges.tolist()}."
            raise ValueError(msg)
        return int(found[0])

    def _em_map(self, part):
        edges = self.bins[part].edges
        std = None if self.uncertainty is None else self.uncertainty.array[part]
        cards = {"bunit": self.unit.to_string("fits"), "content": f"EM, log T {edges[0]} to {edges[-1]}"}
        return sunpy.map.Map(
            self.data[part].sum(axis=0),
            self.sky_header | cards,
            mask=self.mask.any(axis=0),
            uncertainty=None if std is None else StdDevUncertainty(np.sqrt((std**2).sum(axis=0))),
        )

    def em_weighted_log_t(self):
        """
        Return the mean log T weighted by EM, shape ``(ny, nx)``.
        """
        self._require_3d("em_weighted_log_t")
        with np.errstate(invalid="ignore"):
            return np.tensordot(self.log_t, self.data, axes=1) / self.data.sum(axis=0)

    # -- files and pictures -------------------------------------------------------------------------------------------

    def write(self, path, *, overwrite=False):
        """
        Write the cube to a FITS file, atomically.

        Parameters
        ----------
        path : `str` or `pathlib.Path`
            Where to.
        overwrite : `bool`, optional
            Whether a file that is there may be replaced.

        Raises
        ------
        FileExistsError
            If there is a file and ``overwrite`` is `False`.
        """
        from sunpy_deepem.io import write_fits

        write_fits(self, path, overwrite=overwrite)

    @classmethod
    def read(cls, path):
        """
        Read a cube that `write` wrote.

        Parameters
        ----------
        path : `str` or `pathlib.Path`

        Returns
        -------
        `DEMCube`

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is unreadable or holds no DEM cube.
        """
        from sunpy_deepem.io import read_fits

        return read_fits(path)

    def plot_summary(self, fig=None):
        """
        Draw the quick look: observed, synthetic, EM in twelve bins, EM-weighted temperature and χ².

        Parameters
        ----------
        fig : `~matplotlib.figure.Figure`, optional
            Where to draw, by default a new figure.

        Returns
        -------
        `~matplotlib.figure.Figure`
        """
        from sunpy_deepem.visualization import plot_summary

        return plot_summary(self, fig=fig)

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
            return self.wcs.slice(item)
        return super()._slice_wcs(item)

    @property
    def _is_3d(self):
        return self.data.ndim == 3 and isinstance(self.wcs, WCS)

    def _require_3d(self, what):
        if not self._is_3d:
            msg = f"{what} needs the axes log T, y, x, found shape {self.data.shape}. Slice with i:i+1 to keep an axis."
            raise ValueError(msg)


def _fit_flags(em, chi2):
    with np.errstate(invalid="ignore"):
        total = em.sum(axis=0)
        edge = np.maximum(em[:_EDGE_BINS].sum(axis=0), em[-_EDGE_BINS:].sum(axis=0)) > _EDGE_SHARE * total
        flags = np.where(chi2 > HIGH_CHI2, Quality.HIGH_CHI2, 0) | np.where(edge, Quality.EDGE, 0)
    return flags.astype(np.uint16)


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
