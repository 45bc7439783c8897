"""Emission measure on a grid of log T and sky: `DEMCube`."""

from collections.abc import Mapping

import astropy.units as u
import numpy as np
from astropy.io.registry import UnifiedReadWriteMethod
from astropy.nddata import StdDevUncertainty
from astropy.utils.shapes import simplify_basic_index
from astropy.wcs import WCS
from ndcube import NDCube, NDMeta

from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.cube.arithmetic import Arithmetic
from sunpy_deepem.cube.channel_products import ChannelProducts
from sunpy_deepem.cube.description import Description
from sunpy_deepem.cube.input_output import DEMCubeRead, DEMCubeWrite
from sunpy_deepem.cube.planes import Planes
from sunpy_deepem.cube.posterior import PosteriorDraws
from sunpy_deepem.cube.products import Products
from sunpy_deepem.cube.resample import Resampling
from sunpy_deepem.cube.sensitivity import PriorSensitivity
from sunpy_deepem.response.temperature_response import TemperatureResponse
from sunpy_deepem.temperature import LogTBins
from sunpy_deepem.units import EM_UNIT, INTENSITY_UNIT
from sunpy_deepem.utils.uncertainty import standard_deviation
from sunpy_deepem.utils.wcs import CubeWCS, cube_wcs, sky_header, wcs_as
from sunpy_deepem.visualization import figures, movies, overview
from sunpy_deepem.visualization.slices import plot_cube

__all__ = ["DEMCube"]


class DEMCube(Description, PosteriorDraws, PriorSensitivity, Products, ChannelProducts, Resampling, Arithmetic, NDCube):
    """
    Emission measure on a grid of log T and sky.

    The data are the EM of each bin of log T in cm^-5, that is, the integral of the DEM over the bin, with n_e n_H; axes
    are log T, y, x. Made by `sunpy_deepem.invert`, `read` or `from_planes`. It can be sliced, cropped, rebinned,
    reprojected and used in arithmetic like any `~ndcube.NDCube`; ``chi2``, ``quality`` and the observed intensities
    follow. ``meta["provenance"]`` holds how it was made, and its ``"history"`` the operations since.

    Examples
    --------
    >>> dem = invert(sample_maps((64, 64)), shape=None)
    >>> dem.data.shape, str(dem.unit)
    ((18, 64, 64), '1 / cm5')
    """

    read = UnifiedReadWriteMethod(DEMCubeRead)
    write = UnifiedReadWriteMethod(DEMCubeWrite)

    plot = plot_cube
    plot_summary = overview.plot_summary
    plot_bands = overview.plot_bands
    plot_bins = figures.plot_bins
    plot_contraction = figures.plot_contraction
    plot_roundtrip = figures.plot_roundtrip
    plot_temperature = figures.plot_temperature
    plot_prior_sensitivity = figures.plot_prior_sensitivity
    plot_profile = figures.plot_profile
    animate = movies.animate

    def __init__(self, data, *args, **kwargs):
        kwargs.setdefault("unit", EM_UNIT)
        super().__init__(data, *args, **kwargs)

    @property
    def mask(self):
        """`True` where the EM is not to be used, shape of the data, or `None`; a mask of the sky is broadcast."""
        return self._mask

    @mask.setter
    def mask(self, mask):
        self._mask = None if mask is None else np.broadcast_to(mask, self.data.shape).copy()

    @classmethod
    def from_planes(cls, planes, response, header, *, inputs, provenance=None, unit=EM_UNIT, meta=None, axes=None):
        """
        Make a cube from its arrays.

        Parameters
        ----------
        planes : `~sunpy_deepem.cube.Planes`
            The arrays, for instance from `Planes.from_fit`.
        response : `TemperatureResponse`
            The response used in the inversion.
        header : `dict` or `~astropy.wcs.WCS`
            FITS header of the sky with WCS, observer and time, for a cube with all bins of ``response``; or the WCS of
            the cube, with its log T axis.
        inputs : sequence of `dict`
            For each channel ``channel``, ``date``, ``exposure_time`` and whatever else is known.
        provenance : `dict`, optional
            How the cube was made.
        unit : `~astropy.units.Unit`, optional
            Unit of the EM.
        meta : `dict`, optional
            More entries of ``meta``.
        axes : `dict`, optional
            Data axes of each image of ``planes``, for cubes that lack an axis.

        Returns
        -------
        `DEMCube`

        Raises
        ------
        TypeError
            If ``response`` or ``header`` is of the wrong type.
        """
        if not isinstance(response, TemperatureResponse):
            msg = f"response must be a TemperatureResponse, found {type(response).__name__}."
            raise TypeError(msg)
        if not isinstance(header, Mapping) and not hasattr(header, "low_level_wcs"):
            msg = f"header must be a dict or FITS header of the sky, or a WCS, found {type(header).__name__}."
            raise TypeError(msg)
        wcs, provenance = wcs_as(header, CubeWCS), dict(provenance or {})
        if isinstance(header, Mapping):
            wcs = cube_wcs(header, response.bins)
            provenance["log_t_range"] = response.bins.edges[[0, -1]].tolist()
        images, facts = planes.images, {"response": response, "inputs": tuple(inputs), "provenance": provenance}
        # In double precision, as the squares of EM in the propagation of errors overflow single.
        std = None if planes.std is None else StdDevUncertainty(_in_double(planes.std), copy=False)
        return cls(
            _in_double(planes.em),
            wcs=wcs,
            uncertainty=std,
            mask=planes.mask,
            unit=unit,
            meta=NDMeta(
                images | facts | dict(meta or {}),
                axes=dict.fromkeys(images, (1, 2)) if axes is None else axes,
                data_shape=planes.em.shape,
            ),
        )

    # -- content ------------------------------------------------------------------------------------------------------

    @property
    def planes(self):
        """The arrays of the cube as `~sunpy_deepem.cube.Planes`, not copied."""
        images = {name: self.meta[name] for name in self._image_names}
        return Planes.from_images(self.data, standard_deviation(self), self.mask, images)

    @property
    def _image_names(self):
        names = Planes.image_names(CHANNELS) + [name for name in Planes.limit_names(CHANNELS) if name in self.meta]
        return names + [name for name in self.meta.axes if name not in names]

    @property
    def user_meta(self):
        """Entries of ``meta`` that the package did not make, as a `dict`."""
        known = {"response", "inputs", "provenance", *self._image_names}
        return {key: value for key, value in self.meta.items() if key not in known}

    def with_planes(self, planes, event=None, *, wcs=None, unit=None, factor=1.0):
        """
        Return a cube with other arrays and the same meta.

        Parameters
        ----------
        planes : `~sunpy_deepem.cube.Planes`
        event : `str`, optional
            Entry to be added to the history in the provenance.
        wcs : `~astropy.wcs.WCS`, optional
            The new WCS, by default that of this cube.
        unit : `~astropy.units.Unit`, optional
            The new unit, by default that of this cube.
        factor : `float` or `None`, optional
            Multiple of the EM and intensities of this cube that the new one holds, as far as it has the same pixels;
            `None` if it holds something else.

        Returns
        -------
        `DEMCube`
        """
        provenance = dict(self.meta["provenance"])
        if event is not None:
            provenance["history"] = [*provenance.get("history", []), event]
        if factor != 1:
            before = provenance.get("factor", 1.0)
            provenance["factor"] = None if before is None or factor is None else before * factor
        return type(self).from_planes(
            planes,
            self.meta["response"],
            self.wcs if wcs is None else wcs,
            inputs=self.inputs,
            provenance=provenance,
            unit=self.unit if unit is None else unit,
            meta=self.user_meta,
            axes=None if self.is_3d else dict(self.meta.axes),
        )

    def compute(self) -> "DEMCube":
        """
        Return the cube with NumPy arrays, if its arrays are dask's; otherwise the cube itself.

        Examples
        --------
        >>> lazy = invert(sample_maps((64, 64)), chunks=32)
        >>> type(lazy[:, :16, :16].compute().data)
        <class 'numpy.ndarray'>
        """
        planes = self.planes
        computed = planes.compute()
        return self if computed is planes else self.with_planes(computed)

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
        """Whether the cube has all its axes, log T, y and x; slicing by an integer removes one."""
        return self.data.ndim == 3 and isinstance(self.wcs, WCS)

    @property
    def log_t(self) -> np.ndarray:
        """Centers of the bins in log10(T/K), shape ``(number of bins,)``."""
        return self.bins.centers

    @property
    def chi2(self) -> np.ndarray:
        """Mean over channels of ((synthetic − observed) / σ)², shape ``(ny, nx)``."""
        return self.meta["chi2"]

    @property
    def quality(self) -> np.ndarray:
        """Bit flags of each pixel, see `Quality`, shape ``(ny, nx)``."""
        return self.meta["quality"]

    @property
    def saturation(self):
        """Fraction of the native pixels in each pixel that are saturated, in the worst channel, shape ``(ny, nx)``."""
        return self.meta["saturation"]

    @property
    def response(self):
        """The `TemperatureResponse` of the inversion, on the bins of the cube."""
        response = self.meta["response"]
        return response.with_bins(self.bins) if self.is_3d else response

    @property
    def inputs(self):
        """Facts about the observation of each channel, `tuple` of `dict`."""
        return self.meta["inputs"]

    @property
    def intensity(self) -> u.Quantity:
        """The observed intensities in DN s^-1 pix^-1, NaN where not used, `~astropy.units.Quantity` ``(6, ny, nx)``."""
        return np.stack([self.meta[f"intensity_{channel}"] for channel in CHANNELS]) << INTENSITY_UNIT

    @property
    def intensity_uncertainty(self) -> u.Quantity:
        """σ of the observed intensities, of the same unit and shape."""
        return np.stack([self.meta[f"sigma_{channel}"] for channel in CHANNELS]) << INTENSITY_UNIT

    @property
    def lower_limit(self):
        """`True` where a channel is saturated, so that only a lower limit is known, shape ``(6, ny, nx)``."""
        limit = self.planes.limit
        return np.zeros(self.intensity.shape, dtype=bool) if limit is None else np.isfinite(np.stack(limit))

    def with_limits(self):
        """
        Return the observed intensities including lower limits.

        Returns
        -------
        intensity : `~numpy.ndarray`
            DN s^-1 pix^-1, the lower limit where a channel is saturated, shape ``(6, ny, nx)``.
        lower_limit : `~numpy.ndarray` or `None`
            `True` for lower limits; `None` if there are none.
        """
        limit = self.planes.limit
        if limit is None:
            return self.intensity.value, None
        limit = np.stack(limit)
        return np.where(np.isfinite(limit), limit, self.intensity.value), np.isfinite(limit)

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

    def to_xarray(self):
        """
        Return the cube as an xarray data set.

        Returns
        -------
        ``xarray.Dataset``
            ``em``, ``em_std`` and ``mask`` on ``log_t``, ``y``, ``x``; ``chi2``, ``quality`` and ``saturation`` on
            ``y``, ``x``; ``intensity`` and ``sigma`` on ``channel``, ``y``, ``x``. The coordinates ``tx`` and ``ty``,
            helioprojective in arcsec, depend on ``x`` and ``y``, respectively, or on both if the cube is rotated.

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
        from sunpy_deepem.cube.dataset import to_dataset

        return to_dataset(self)

    def view(self, *, max_pixels=256):
        """
        Return the interactive viewer for notebooks, see `sunpy_deepem.visualization.view`.

        Parameters
        ----------
        max_pixels : `int`, optional
            Number of pixels along the longer side above which the cube is binned.

        Returns
        -------
        `bokeh.models.LayoutDOM`
        """
        from sunpy_deepem.visualization.viewer import view

        return view(self, max_pixels=max_pixels)

    # -- slicing ------------------------------------------------------------------------------------------------------

    def __getitem__(self, item):
        meta, parts = self.meta, _basic_index(item, self.data.shape)
        try:
            part = super().__getitem__(parts)
        finally:
            # ndcube removes the meta while it slices, and does not restore it after an error.
            self.meta = meta
        if part.data.ndim < 3:
            part._origin = (self, parts)
        return part

    def whole_slice(self):
        """
        Return a slice of two axes with its third axis, which has one pixel.

        Returns
        -------
        cube : `DEMCube` or `None`
            `None` if this is not a slice of two axes of a cube, or what was computed from one.
        axis : `int` or `None`
            Number of the axis of one pixel.
        """
        parent, parts = getattr(self, "_origin", (None, ()))
        if parent is None or self.data.ndim != 2:
            return None, None
        if parent.is_3d:
            axis = next(axis for axis, part in enumerate(parts) if not isinstance(part, slice))
            kept = [part if isinstance(part, slice) else slice(part, part + 1) for part in parts]
            return parent[tuple(kept)], axis
        whole, axis = parent.whole_slice()
        return (None, None) if whole is None else (whole[(*parts[:axis], slice(None), *parts[axis:])], axis)

    def _slice_wcs(self, item):
        # If no axis is dropped, a FITS WCS stays one, so that the slice can be written and synthesized.
        if isinstance(self.wcs, WCS) and all(isinstance(part, slice) for part in item):
            wcs = self.wcs.deepcopy()
            wcs.array_shape = self.data.shape  # astropy before 7.2 cannot slice three axes without it
            return wcs.slice(item)
        return super()._slice_wcs(item)

    def _require_3d(self, what):
        if not self.is_3d:
            msg = f"{what} needs the axes log T, y, x, found shape {self.data.shape}. Slice with i:i+1 to keep an axis."
            raise ValueError(msg)

    # -- pickling -----------------------------------------------------------------------------------------------------

    def __getstate__(self):
        # A slice is smaller than the cube that it was taken from, and NDMeta can be pickled but not unpickled.
        state = {name: value for name, value in self.__dict__.items() if name != "_origin"}
        meta = self.meta
        if not isinstance(meta, NDMeta):
            return state
        return state | {"_meta": (dict(meta), meta.key_comments, meta.axes, meta.data_shape)}

    def __setstate__(self, state):
        meta = state["_meta"]
        self.__dict__ |= state | {"_meta": NDMeta(*meta) if isinstance(meta, tuple) else meta}


def _in_double(array):
    return array if array.dtype == np.float64 else array.astype(np.float64)


def _basic_index(item, shape):
    """Return an index with one part per axis and no negative numbers, which NDMeta and WCS miscount."""
    try:
        parts = simplify_basic_index(item if isinstance(item, tuple) else (item,), shape=shape)
    except ValueError as error:
        msg = f"A cube of shape {shape} is indexed by slices and integers, found {item!r} ({error})."
        raise IndexError(msg) from None
    for part, n in zip(parts, shape, strict=True):
        if isinstance(part, slice) and (part.step != 1 or part.start >= part.stop):
            msg = f"A slice of a cube must have step 1 and not be empty, found {part} on an axis of {n}."
            raise IndexError(msg)
    return parts
