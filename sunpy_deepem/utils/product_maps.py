"""
Maps of derived quantities that choose their own color scale, title and label of the color bar.

`DerivedMap` and `ChannelMap` are sunpy maps. The header says how they look, so a map that was saved looks the same when
it is read again.
"""

import gzip
import io

import numpy as np
import sunpy.map
from astropy.io import fits
from astropy.nddata import StdDevUncertainty
from matplotlib import pyplot as plt
from matplotlib.colors import LogNorm, Normalize, PowerNorm, to_rgba
from matplotlib.image import AxesImage
from sunpy.map.sources import AIAMap

from sunpy_deepem.utils.files import FITS_SUFFIXES, checked_path
from sunpy_deepem.utils.fits import inflated
from sunpy_deepem.utils.uncertainty import ComputedUncertainty

__all__ = [
    "CREATOR",
    "MASKED_COLOR",
    "ChannelMap",
    "DerivedMap",
    "ScaledLogNorm",
    "ScaledPowerNorm",
    "fade",
    "read_map",
    "top_of_scale",
]

#: Gray of masked pixels.
MASKED_COLOR = "#999999"

#: Value of CREATOR in the headers of maps.
CREATOR = "sunpy_deepem"
_ERRORS = "ERRORS"
_LOG_T = r"$\log_{10}$ (T / K)"


class ScaledLogNorm(LogNorm):
    """
    Logarithmic scale below the 99.9th percentile of the data; smaller values are dark.

    Parameters
    ----------
    decades : `float`, optional
        Length of the scale if ``vmin`` is not given.
    vmin, vmax, clip : optional
        As for `~matplotlib.colors.LogNorm`.
    """

    def __init__(self, decades=4.0, vmin=None, vmax=None, clip=True):
        super().__init__(vmin, vmax, clip)
        self.decades = decades

    def autoscale_None(self, A):
        """Set the limits that are not set yet from data."""
        if self.vmax is None:
            self.vmax = top_of_scale(A, 99.9)
        if self.vmin is None:
            self.vmin = self.vmax / 10**self.decades


class ScaledPowerNorm(PowerNorm):
    """Square root scale from zero to the 99.7th percentile of the data, for intensities."""

    def __init__(self, vmin=None, vmax=None, clip=True):
        super().__init__(0.5, vmin, vmax, clip)

    def autoscale_None(self, A):
        """Set the limits that are not set yet from data."""
        if self.vmax is None:
            self.vmax = top_of_scale(A, 99.7)
        if self.vmin is None:
            self.vmin = 0.0


def top_of_scale(data, percentile):
    """Return a percentile of the finite values of data, or 1 if it is not positive."""
    data = np.ma.filled(np.ma.asarray(data, dtype=float), np.nan)
    finite = data[np.isfinite(data)]
    top = np.percentile(finite, percentile) if finite.size else 0
    return top if top > 0 else 1.0


def fade(image, where, extent=None):
    """
    Cover pixels of an image with transparent gray, and return the veil, or `None` if there is nothing to cover.

    ``extent`` is that of ``where``, by default of the image.
    """
    if not where.any():
        return None
    veil = np.zeros((*where.shape, 4))
    veil[where] = to_rgba(MASKED_COLOR, 0.75)
    options = {"origin": "lower", "interpolation": "nearest", "transform": image.get_transform()}
    options["aspect"] = image.axes.get_aspect()  # imshow would set it
    return image.axes.imshow(veil, extent=image.get_extent() if extent is None else extent, **options)


# By the beginning of CONTENT: color map, scale, and label of the color bar, in which UNIT is replaced.
_LOOKS = {
    "EM-weighted log10": ("plasma", (Normalize, 5.8, 6.8), _LOG_T),
    "log10(T/K) of most EM": ("plasma", (Normalize, 5.5, 7.2), _LOG_T),
    "standard deviation of EM": ("cividis", (Normalize, 0.0, 0.5), "width (dex of T)"),
    "relative uncertainty": ("magma", (Normalize, 0.0, 1.0), "half 68 % interval / median"),
    "electron density": ("viridis", (ScaledLogNorm, 2.0), "electron density (UNIT)"),
    "thermal energy": ("inferno", (ScaledLogNorm, 3.0), "thermal energy (UNIT)"),
    "Fe XVIII": ("sdoaia94", (ScaledPowerNorm,), "Fe XVIII (UNIT pix$^{-1}$)"),
    "residual": ("RdBu_r", (Normalize, -5.0, 5.0), "(observed − synthetic) / σ"),
    "EM": ("viridis", (ScaledLogNorm,), "EM (UNIT)"),
}


class _Described:
    """A sunpy map with a color scale, title and label that follow from its CONTENT."""

    #: Where the map is not reliable and drawn faded, shape of the data; `None` after an operation on the map.
    faded = None
    #: Function that covers the parts of an image of the map that are not to be trusted, instead of ``faded``.
    cover = None

    def __init__(self, data, header, **kwargs):
        given = kwargs.pop("plot_settings", None) or {}
        super().__init__(data, header, **kwargs)
        if look := self._look:
            cmap, (norm, *limits), _ = look
            self.plot_settings |= {"cmap": cmap, "norm": norm(*limits)}
        self.plot_settings |= given

    @property
    def color_bar_label(self) -> str:
        """Quantity and unit, for a color bar."""
        unit = "" if self.unit is None else self.unit.to_string("latex_inline")
        return self._look[2].replace("UNIT", unit) if self._look else unit

    @property
    def _look(self):
        content = self.meta.get("content", "")
        return next((look for start, look in _LOOKS.items() if content.startswith(start)), None)

    @property
    def latex_name(self) -> str:
        """Title of plots. In ``plot_settings``, sunpy would pass it on to contours, which fail."""
        return f"{self.meta.get('content', '')}\n{self._date_text}"

    @property
    def _date_text(self):
        return str(self.meta.get("date-beg") or self.date.isot)[:19]

    def plot(self, *, axes=None, colorbar=None, **kwargs):
        """
        Plot the map, as `sunpy.map.GenericMap.plot` does, with a labeled color bar.

        Parameters
        ----------
        axes : `~astropy.visualization.wcsaxes.WCSAxes`, optional
            Axes to draw on, by default the current ones.
        colorbar : `bool`, optional
            Whether to draw a color bar, by default only if the figure is empty and ``axes`` are not given.
        **kwargs
            As for `sunpy.map.GenericMap.plot`.

        Returns
        -------
        `~matplotlib.image.AxesImage`
        """
        if colorbar is None:
            colorbar = axes is None and not plt.gcf().axes
            if colorbar and plt.gcf().get_layout_engine() is None:
                plt.gcf().set_layout_engine("constrained")  # with a color bar, labels would leave the figure
        image = super().plot(axes=axes, **kwargs)
        image.axes.set_facecolor(MASKED_COLOR)
        image.axes.grid(False)
        if isinstance(image, AxesImage) and self.cover is not None:
            self.cover(image)
        elif isinstance(image, AxesImage) and self.faded is not None:
            fade(image, self.faded)
        if colorbar:
            image.axes.figure.colorbar(image, ax=image.axes, label=self.color_bar_label)
        return image

    def __getstate__(self):
        # The function holds the cube, which is larger than the map.
        return self.__dict__ | {"cover": None}

    def save(self, filepath, filetype="auto", **kwargs):
        """
        Save the map, as `sunpy.map.GenericMap.save` does, with its uncertainty and mask.

        In a FITS file they are in the table ERRORS, which `sunpy.map.Map` ignores; `sunpy_deepem.io.read_map` reads
        them. ASDF files hold them as sunpy does.

        Parameters
        ----------
        filepath : `str` or `pathlib.Path`
        filetype, **kwargs
            As for `sunpy.map.GenericMap.save`.
        """
        if isinstance(self.uncertainty, ComputedUncertainty):  # a class that ASDF does not know
            self.uncertainty = StdDevUncertainty(self.uncertainty.array, copy=False)
        super().save(filepath, filetype=filetype, **kwargs)
        if filetype == "fits" or (filetype == "auto" and str(filepath).lower().endswith(FITS_SUFFIXES)):
            self._append_errors(checked_path(filepath))

    def _append_errors(self, path):
        ny, nx = shape = self.data.shape
        images = {}
        if self.uncertainty is not None:
            images["uncertainty"] = np.broadcast_to(self.uncertainty.array, shape).astype(">f8")
        if self.mask is not None:
            images["mask"] = np.where(np.broadcast_to(self.mask, shape), b"T", b"F")
        if not images:
            return
        kinds = {"uncertainty": "D", "mask": "L"}
        columns = [fits.Column(name, f"{nx * ny}{kinds[name]}", dim=f"({nx},{ny})") for name in images]
        header = fits.BinTableHDU.from_columns(columns, name=_ERRORS).header
        header["NAXIS2"] = 1
        file, zipped = str(path), path.name.lower().endswith(".gz")
        if zipped:  # has to be written anew
            file = io.BytesIO(inflated(path))
            file.seek(0, io.SEEK_END)
        # A BinTableHDU would hold the images several times, and the mask as 64-bit integers.
        with fits.StreamingHDU(file, header) as table:
            for image in images.values():
                table.write(np.ascontiguousarray(image).view(np.uint8))
            if zipped:
                path.write_bytes(gzip.compress(file.getbuffer()))


class DerivedMap(_Described, sunpy.map.GenericMap):
    """Map of a quantity that was derived from the EM of a cube."""

    @classmethod
    def is_datasource_for(cls, data, header, **kwargs):
        """Return whether a header is that of a derived map."""
        is_ours = str(header.get("creator", "")) == CREATOR and "content" in header
        return is_ours and not str(header.get("instrume", "")).startswith("AIA")


class ChannelMap(_Described, AIAMap):
    """AIA map of observed or synthetic intensities of a cube, or their residual."""

    @property
    def color_bar_label(self) -> str:
        """Quantity and unit, for a color bar."""
        return self._look[2] if self._look else "DN s$^{-1}$ pix$^{-1}$"

    def __init__(self, data, header, **kwargs):
        super().__init__(data, header, **kwargs)
        if not self._look:
            self.plot_settings["norm"] = ScaledPowerNorm()

    @property
    def latex_name(self) -> str:
        """Title of plots."""
        content = self.meta.get("content", "observed").replace(", from DEM", "")
        return f"AIA {self.wavelength.value:g} Å, {content}\n{self._date_text}"

    @classmethod
    def is_datasource_for(cls, data, header, **kwargs):
        """Return `False`: sunpy reads the files of these maps as AIA maps."""
        # Two classes for one header are an error for sunpy.
        return False


def read_map(path):
    """
    Read a map of a derived quantity with its uncertainty and mask.

    Parameters
    ----------
    path : `str` or `pathlib.Path`
        FITS file that was written by the ``save`` method of a map of a cube.

    Returns
    -------
    `~sunpy.map.GenericMap`

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file holds no map or several.

    Examples
    --------
    >>> from sunpy_deepem.io import read_map
    >>> read_map("em.fits").uncertainty  # doctest: +SKIP
    """
    path = checked_path(path)
    if not path.is_file():
        msg = f"There is no file {path}."
        raise FileNotFoundError(msg)
    smap = sunpy.map.Map(path)
    if not isinstance(smap, sunpy.map.GenericMap):
        msg = f"{path} must hold one map, found {len(smap)}."
        raise ValueError(msg)
    with fits.open(path, memmap=False) as hdus:
        if _ERRORS in hdus:
            (row,) = hdus[_ERRORS].data
            names = hdus[_ERRORS].columns.names
            if "uncertainty" in names:
                smap.uncertainty = StdDevUncertainty(np.array(row["uncertainty"], dtype=float))
            if "mask" in names:
                smap.mask = np.array(row["mask"], dtype=bool)
    return smap
