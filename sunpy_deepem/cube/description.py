"""Date, text and HTML that describe a cube: a mixin of `DEMCube`."""

import base64
import html
import io

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.time import Time

from sunpy_deepem.calibrate.alignment import REFERENCE_CHANNEL
from sunpy_deepem.quality import MASKED, Quality
from sunpy_deepem.units import EM_UNIT

__all__ = ["Description"]

_QUANTILES = (0.16, 0.5, 0.84)


class Description:
    """Methods of `DEMCube` that say what it holds."""

    @property
    def date(self) -> Time:
        """Start of the exposure in 193 Å, `~astropy.time.Time`; the time of the grid if 193 Å was not observed."""
        # A format that is stated is not searched for. The search keeps the variables of all callers in memory.
        kind = {"scale": "utc", "format": "isot"}
        dates = [str(each["date"]) for each in self.inputs if each["channel"] == REFERENCE_CHANNEL]
        try:
            return Time(dates[0], **kind)
        except (IndexError, ValueError):
            return Time(self.sky_header["date-obs"], **kind)

    @property
    def global_coords(self):
        """Coordinates of the whole cube, `~ndcube.GlobalCoords`: its time, and those of axes that were sliced away."""
        coords = super().global_coords
        if "time" not in coords and "inputs" in self.meta:
            coords.add("time", "time", self.date)
        return coords

    def describe(self):
        """
        Return facts about the cube.

        Returns
        -------
        `dict`
            Texts by name: date, method, bins of log T, shape, field of view, unit, quantiles of χ² and the fraction of
            pixels with each flag. A slice has the log T or the position of the axes that it lacks.
        """
        facts = {"date": self.date.isot[:19], "method": self._method_text(), "shape": self._shape_text()}
        if self.is_3d:
            bins = self.bins
            number = "1 bin" if len(bins) == 1 else f"{len(bins)} bins"
            facts["log T"] = f"{bins.edges[0]:g} to {bins.edges[-1]:g} in {number} of {bins.step:g} dex"
            facts["field"] = _field_text(self)
        else:
            facts |= _place_facts(self.global_coords)
        facts["unit"] = _unit_text(self.unit)
        chi2, quality = self.meta["chi2"], self.meta["quality"]
        if hasattr(chi2, "dask"):
            return facts | {"χ²": "not computed yet", "flags": "not computed yet"}
        seen = np.asarray(chi2)[np.isfinite(chi2)]
        if seen.size:
            low, middle, high = np.quantile(seen, _QUANTILES)
            facts["χ²"] = f"median {middle:.2f}, 16 to 84 % of pixels: {low:.2f} to {high:.2f}"
        return facts | {"flags": _flags_text(np.asarray(quality))}

    def __str__(self):
        facts = self.describe()
        width = max(map(len, facts)) + 2
        return "\n".join([type(self).__name__, *(f"  {name + ':':{width}}{text}" for name, text in facts.items())])

    def __repr__(self):
        return f"<{self!s}>"

    def _repr_html_(self):
        rows = "".join(
            f"<tr><th style='text-align: left; vertical-align: top'>{html.escape(name)}</th>"
            f"<td style='text-align: left'>{html.escape(text).replace(' %', '&nbsp;%')}</td></tr>"
            for name, text in self.describe().items()
        )
        table = f"<table>{rows}</table>"
        text = f"<div><b>{type(self).__name__}</b>{table}</div>"
        return f"<div style='display: flex; gap: 1em'>{text}{self._thumbnail()}</div>"

    def _method_text(self):
        provenance = self.meta["provenance"]
        text = str(provenance.get("method", "unknown"))
        if "weights" in provenance:
            text += f", weights {provenance['weights']!r} ({provenance.get('fingerprint', 'no fingerprint')})"
        return text + "".join(f"; {event}" for event in provenance.get("history", []))

    def _shape_text(self):
        text = " × ".join(f"{n}" for n in self.data.shape)
        names = _axis_names(self.wcs.low_level_wcs)
        return f"{text} ({', '.join(names)})" if len(names) == self.data.ndim else text

    def _thumbnail(self):
        """Return an image of the total EM in HTML, or nothing if there is none without computation."""
        if not self.is_3d or hasattr(self.data, "dask") or not self.unit.is_equivalent(EM_UNIT):
            return ""
        from matplotlib.figure import Figure

        smap = self.total_em()
        fig = Figure(figsize=(3.2, 2.6), layout="constrained")
        axes = fig.add_subplot(projection=smap)
        image = smap.plot(axes=axes, title=smap.meta["content"])
        axes.title.set_fontsize(9)
        for coordinate in axes.coords:  # the table states the field
            coordinate.set_ticks_visible(False)
            coordinate.set_ticklabel_visible(False)
            coordinate.set_axislabel(" ")
        fig.colorbar(image, ax=axes, fraction=0.05).set_label(smap.color_bar_label, size=9)
        file = io.BytesIO()
        fig.savefig(file, format="png", dpi=80)
        code = base64.b64encode(file.getvalue()).decode()
        return f"<img alt='total EM' src='data:image/png;base64,{code}'>"


def _unit_text(unit):
    """Return a unit as in "cm-5", and what it is the unit of."""
    try:
        text = unit.to_string("fits")
    except ValueError:  # a unit that FITS does not know
        text = unit.to_string()
    return f"{text}, EM per bin" if unit.is_equivalent(EM_UNIT) else text or "none"


def _axis_names(wcs):
    """Return the names of the data axes."""
    on_log_t = [(kind or "").endswith("log10") for kind in wcs.world_axis_physical_types]
    depends = wcs.axis_correlation_matrix[:, ::-1].T  # data axis, world axis
    is_log_t = [all(log_t for log_t, used in zip(on_log_t, row, strict=True) if used) for row in depends]
    sky = iter(("y", "x") if is_log_t.count(False) == 2 else ("sky",))
    return ["log T" if found else next(sky) for found in is_log_t]


def _place_facts(coords):
    """Return the log T and the position of a slice, as far as it has one."""
    facts = {}
    for name in coords:
        value = coords[name]
        if isinstance(value, SkyCoord):
            facts["position"] = _position_text(value)
        elif coords.physical_types.get(name, "").endswith("log10"):
            facts["log T"] = f"bin around {float(value):g}"
    return facts


def _position_text(coordinate):
    place = coordinate.spherical
    x, y = (round(angle.to_value("arcsec")) for angle in (place.lon.wrap_at("180d"), place.lat))
    return f"x = {x}″, y = {y}″"


def _field_text(cube):
    header, (ny, nx) = cube.sky_header, cube.data.shape[1:]
    size = [abs(n * header[f"cdelt{axis}"]) for n, axis in ((nx, 1), (ny, 2))]
    center = cube.wcs.celestial.pixel_to_world((nx - 1) / 2, (ny - 1) / 2)
    return (
        f"{size[0]:.0f}″ × {size[1]:.0f}″ around {_position_text(center)}; "
        f"pixels of {abs(header['cdelt1']):.3g}″ × {abs(header['cdelt2']):.3g}″"
    )


def _flags_text(quality):
    if not quality.size:
        return "none"
    fractions = {flag.name: np.mean((quality & np.uint16(flag)) != 0) for flag in Quality}
    found = [f"{name} {_percent(fraction)}" for name, fraction in fractions.items() if fraction]
    masked = np.mean((quality & np.uint16(MASKED)) != 0)
    return ", ".join([*found, f"masked {_percent(masked)}"]) if found else "none"


def _percent(fraction):
    percent = 100 * fraction
    return f"{percent:.2g} %" if percent < 99.5 else f"{percent:.0f} %"
