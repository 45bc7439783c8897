"""Date, text and HTML that describe a cube: a mixin of `DEMCube`."""

import base64
import html
import io

import numpy as np
from astropy.time import Time

from sunpy_deepem.calibrate.alignment import REFERENCE_CHANNEL
from sunpy_deepem.quality import MASKED, Quality

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
            Texts by name: date, method, bins of log T, shape, field of view, quantiles of χ² and the fraction of
            pixels with each flag.
        """
        facts = {"date": self.date.isot[:19], "method": self._method_text(), "shape": self._shape_text()}
        if self.is_3d:
            bins = self.bins
            facts["log T"] = f"{bins.edges[0]:g} to {bins.edges[-1]:g} in {len(bins)} bins of {bins.step:g} dex"
            facts["field"] = _field_text(self)
        facts["unit"] = f"{self.unit.to_string()}, EM per bin"
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
            f"<td style='text-align: left'>{html.escape(text)}</td></tr>"
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
        names = dict(zip(("log T", "y", "x"), self.data.shape, strict=False)) if self.is_3d else {}
        text = " × ".join(f"{n}" for n in self.data.shape)
        return f"{text} ({', '.join(names)})" if names else text

    def _thumbnail(self):
        """Return an image of the total EM in HTML, or nothing if there is none without computation."""
        if not self.is_3d or hasattr(self.data, "dask"):
            return ""
        from matplotlib.figure import Figure

        smap = self.total_em()
        fig = Figure(figsize=(3.2, 2.8), layout="constrained")
        smap.plot(axes=fig.add_subplot(projection=smap), colorbar=True)
        file = io.BytesIO()
        fig.savefig(file, format="png", dpi=80)
        code = base64.b64encode(file.getvalue()).decode()
        return f"<img alt='total EM' src='data:image/png;base64,{code}'>"


def _field_text(cube):
    header, (ny, nx) = cube.sky_header, cube.data.shape[1:]
    size = [abs(n * header[f"cdelt{axis}"]) for n, axis in ((nx, 1), (ny, 2))]
    center = cube.wcs.celestial.pixel_to_world((nx - 1) / 2, (ny - 1) / 2)
    x, y = (angle.to_value("arcsec") for angle in (center.spherical.lon.wrap_at("180d"), center.spherical.lat))
    return (
        f"{size[0]:.0f}″ × {size[1]:.0f}″ around x = {x:.0f}″, y = {y:.0f}″; "
        f"pixels of {abs(header['cdelt1']):.3g}″ × {abs(header['cdelt2']):.3g}″"
    )


def _flags_text(quality):
    if not quality.size:
        return "none"
    fractions = {flag.name: np.mean((quality & np.uint16(flag)) != 0) for flag in Quality}
    found = [f"{name} {100 * fraction:.2g} %" for name, fraction in fractions.items() if fraction]
    masked = np.mean((quality & np.uint16(MASKED)) != 0)
    return ", ".join([*found, f"masked {100 * masked:.2g} %"]) if found else "none"
