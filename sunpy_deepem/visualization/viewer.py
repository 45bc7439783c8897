"""
Interactive viewer: an image of the Sun and the EM curve and fit of the pixel under the pointer.

The viewer is a bokeh layout with callbacks that run in the browser. It works in a notebook and as a self-contained
HTML file without network or Python. The cube is binned to at most 256 pixels a side, EM is rounded to 1 %, the limits
of its interval to 17 % and intensities to 0.4 %, so that the page of a full disk has less than 5 MB.
"""

from operator import itemgetter

import matplotlib as mpl
import numpy as np
from matplotlib.colors import to_hex

from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.quality import Quality
from sunpy_deepem.units import COVERAGE, EM_UNIT
from sunpy_deepem.utils.files import atomic_path
from sunpy_deepem.utils.uncertainty import standard_deviation
from sunpy_deepem.visualization.packing import UNPACK, log_codes, packed, ratio_codes, signed_codes, signed_values
from sunpy_deepem.visualization.panels import (
    CHANNEL_COLORS,
    MASKED_COLOR,
    checked_cube,
    em_norm,
    intensity_norm,
    log_t_norm,
    visible,
    visible_em,
)

try:
    from bokeh.embed import file_html
    from bokeh.layouts import column, row
    from bokeh.models import (
        BoxAnnotation,
        ColorBar,
        ColumnDataSource,
        CustomJS,
        Div,
        LinearColorMapper,
        Range1d,
        Select,
        Slider,
    )
    from bokeh.plotting import figure
    from bokeh.resources import INLINE
except ImportError as error:
    msg = 'The viewer needs bokeh. Install it with pip install "sunpy_deepem[viewer]".'
    raise ImportError(msg) from error

__all__ = ["view", "write_page"]

_FLAG_WORDS = {
    Quality.MISSING: "a channel has no valid data",
    Quality.SATURATED: "saturated",
    Quality.LOW_SIGNAL: "fewer than three channels above 3 σ",
    Quality.HIGH_CHI2: "χ² above 3",
    Quality.EDGE: "much EM in the outermost bins, an extrapolation",
    Quality.NEGATIVE: "a channel is negative",
    Quality.BLOOMING: "in the detector column of saturated pixels",
    Quality.PRIOR: "a band is determined by the prior",
    Quality.UNUSUAL: "unlike the training data of the network",
    Quality.UNSOLVED: "the method found no EM",
    Quality.OUTSIDE: "outside the inverted region",
    Quality.PARTIAL: "a channel is not used",
    Quality.FEW_CHANNELS: "too few channels can be used",
}
_DASHES = ("solid", "dashed", "dashdot", "dotted", "solid", "dashed")
# EM is stored as its logarithm in this many decades below the highest value; smaller values are stored as zero.
_DECADES = 8
# Steps of log10 of EM, the ends of its interval, intensities, their σ, and χ².
_STEPS = {"em": 0.009, "band": 0.14, "intensity": 0.003, "noise": 0.02, "chi2": 0.0005}
# EM below this fraction of a pixel's total is stored as zero: no channel sees it, and its logarithm is mostly noise.
_NEGLIGIBLE = {"em": 1e-5, "band": 1e-4}
_DRAWS = 32
_LOWEST_CHI2 = -12
_SIDE = 560

# Decodes the data once, when the page is laid out.
_DECODE = (
    UNPACK
    + """
if (store.data.em.length) return
const {em, band, intensity, noise, chi2, quality, masked} = packed.data
const observed = Float64Array.from(unpack(intensity[0], false), (code) => signed(code, steps.intensity))
const sigma = unpack(noise[0], false)
const edges = unpack(band[0], true)
const half = edges.length / 2
store.data = {
  em: [unpack(em[0], true)], low: [edges.slice(0, half)], high: [edges.slice(half)], intensity: [observed],
  noise: [Float64Array.from(sigma, (code, i) => relative(code, steps.noise, observed[i]))],
  chi2: [Float64Array.from(unpack(chi2[0], false), (code) => code ? 10 ** (LOWEST + (code - 1) * steps.chi2) : NaN)],
  quality, masked,
}
""".replace("LOWEST", str(_LOWEST_CHI2))
)

# Shows the pixel under the pointer. The figure has sky coordinates, rotated to the pixel grid.
_READ_PIXEL = """
const [column, row] = [Math.floor((pointer.data.x[0] - left) / dx), Math.floor((pointer.data.y[0] - bottom) / dy)]
if (column < 0 || column >= nx || row < 0 || row >= ny) return
const [n, pixel] = [nx * ny, row * nx + column]
const {em, low, high, intensity, noise, chi2, quality, masked} = store.data
if (!em.length) return
const decode = ([codes], j, step) => codes[j * n + pixel] ? 10 ** (lowest_em + step * (codes[j * n + pixel] - 1)) : 0
const digits = (value, n = 3) => Number.isFinite(value) ? Number(value.toPrecision(n)).toString() : "–"

const [x, y] = [left + (column + 0.5) * dx, bottom + (row + 0.5) * dy]
marker.data = {x: [x], y: [y]}
const sky = rotation.map(([a, b]) => (a * x + b * y).toFixed(1))
const words = Object.keys(flags).filter((flag) => quality[0][pixel] & flag).map((flag) => flags[flag])

const hidden = masked[0][pixel] > 0
const plasma = log_t.map((_, j) => hidden ? NaN : decode(em, j, steps.em))
const bands = [low, high].map((edge) => log_t.map((_, j) => hidden ? NaN : decode(edge, j, steps.band)))
const observed = channels.map((_, i) => intensity[0][i * n + pixel])
const error = channels.map((_, i) => noise[0][i * n + pixel])
const synthetic = matrix.map((k) => k.reduce((sum, value, j) => sum + value * plasma[j], 0))
const total = plasma.reduce((sum, value) => sum + value, 0)
const mean = plasma.reduce((sum, value, j) => sum + value * log_t[j], 0) / total

const lowest = curves.map((curve, i) => Math.min(...curve.map((k) => k > 0 ? observed[i] / k : Infinity)))
const peaks = [...plasma, ...bands[1], ...lowest]
const top = 5 * Math.max(...peaks.filter((value) => value > 0 && Number.isFinite(value)), 1)
em_range.setv({start: top / 1e6, end: top})
curve.data = {
  ...curve.data, em: plasma, high: bands[1], low: bands[0].map((value) => Math.max(value, top / 1e9)),
}
loci.data = {
  ...loci.data,
  ys: curves.map((curve, i) => curve.map((k) => k > 0 && observed[i] > 0 ? observed[i] / k : NaN)),
}
const residual = channels.map((_, i) => (observed[i] - synthetic[i]) / error[i])
const reach = 1.1 * Math.max(3, ...residual.filter(Number.isFinite).map(Math.abs))
residual_range.setv({start: -reach, end: reach})
fit.data = {...fit.data, residual}

const state = pointer.data.held[0] ? ", held" : ""
readout.text = `<b>x, y = ${sky[0]}″, ${sky[1]}″</b> (row ${row}, column ${column})${state}<br>
  χ² ${digits(chi2[0][pixel], 4)}, EM-weighted log T ${mean.toFixed(2)}, total EM ${total.toExponential(2)} cm⁻⁵<br>
  ${hidden ? "masked: " : ""}${words.join("; ") || (hidden ? "no data" : "no flags")}`
const cell = (value) => `<td style="padding: 0 0.7em; text-align: right">${value}</td>`
const cells = (values) => values.map(cell).join("")
const lines = channels.map((channel, i) => "<tr>" + cells([
  `${channel} Å`, `${digits(observed[i])} ± ${digits(error[i])}`, digits(synthetic[i]),
  (synthetic[i] / observed[i]).toFixed(2), residual[i].toFixed(1),
]) + "</tr>")
const heads = ["DN s⁻¹ pix⁻¹", "observed", "synthetic", "synthetic / observed", "(observed − synthetic) / σ"]
table.text = `<table><tr>${cells(heads)}</tr>${lines.join("")}</table>`
"""

_SHOW_IMAGE = """
const n = nx * ny
const {em, intensity, chi2, masked} = store.data
if (!em.length) return
const exponent = (code) => code ? lowest_em + steps.em * (code - 1) : -99
const bin = Math.round((slider.value - slider.start) / slider.step)
const log10 = (value) => Math.log10(Math.max(value, 1e-30))
const values = {
  em: (pixel) => exponent(em[0][bin * n + pixel]),
  chi2: (pixel) => log10(chi2[0][pixel]),
  log_t: (pixel) => {
    let [total, sum] = [0, 0]
    for (const [j, value] of log_t.entries()) {
      const plasma = 10 ** exponent(em[0][j * n + pixel])
      total += plasma
      sum += plasma * value
    }
    return sum / total
  },
}
channels.forEach((channel, i) => values[channel] = (pixel) => log10(intensity[0][i * n + pixel]))
const value = values[select.value]
const shown = image.data.image[0]
for (let pixel = 0; pixel < n; pixel++) shown[pixel] = masked[0][pixel] ? NaN : value(pixel)
image.change.emit()
const {palette, low, high, title} = looks[select.value]
mapper.setv({palette, low, high})
bar.title = title
"""


_MOVE = """
const {held} = pointer.data
if (!held[0]) pointer.data = {x: [cb_obj.x], y: [cb_obj.y], held}
"""

_TAP = """
pointer.data = {x: [cb_obj.x], y: [cb_obj.y], held: [!pointer.data.held[0]]}
"""


def view(cube, *, max_pixels=256):
    """
    Return the interactive viewer of a cube.

    It shows, for the pixel under the pointer, the EM curve with the band of its 68 % interval, from 32 posterior draws;
    the EM loci; observed and synthetic intensities and their residual, as in `DEMCube.residual_maps`; χ² and the
    quality flags. A click holds the pixel, another one releases it. In a notebook, call ``bokeh.io.output_notebook()``
    once and then ``bokeh.io.show(cube.view())``.

    Parameters
    ----------
    cube : `DEMCube`
    max_pixels : `int`, optional
        A cube with more pixels along the longer side is binned by an integer factor; partial pixels at the upper and
        right edges are dropped. A cube of 18 × 256 × 256 makes a page of less than 5 MB.

    Returns
    -------
    `bokeh.models.LayoutDOM`

    Raises
    ------
    ImportError
        If bokeh is not installed.
    TypeError
        If ``cube`` is not a `DEMCube`.
    ValueError
        If ``max_pixels`` is not a positive whole number, or the cube lacks an axis.

    Examples
    --------
    >>> from sunpy_deepem.visualization.viewer import view
    >>> layout = view(sample_cube((64, 64)))
    """
    cube = _binned(checked_cube(cube), max_pixels)
    stored, facts = _packed(cube)
    shared = _grid(cube) | facts
    pointer = ColumnDataSource(_brightest(cube, shared) | {"held": [False]})
    controls, image, marker, show = _image_panel(cube, shared)
    panels, models = _pixel_panels(cube)
    read = CustomJS(args=shared | models | {"pointer": pointer, "marker": marker}, code=_READ_PIXEL)
    pointer.js_on_change("data", read)
    # Pages and notebooks have no common "ready" event, but in both a figure gets its size when it is laid out.
    decode = CustomJS(args=shared | {"packed": ColumnDataSource(stored)}, code=_DECODE)
    image.js_on_change("inner_width", decode, show, read)
    image.js_on_event("mousemove", CustomJS(args={"pointer": pointer}, code=_MOVE))
    # The second of two quick clicks arrives as a double click only.
    for event in ("tap", "doubletap"):
        image.js_on_event(event, CustomJS(args={"pointer": pointer}, code=_TAP))
    # A Div is HTML, so no text of a header may be in it; the date is parsed.
    date = cube.date.isot[:19]
    title = f"<b>SDO/AIA emission measure, {date}</b>. Move over the Sun; click to hold a pixel, click again to let go."
    return column(Div(text=title), row(column(*controls, image), column(*panels)))


def write_page(cube, path, *, max_pixels=256, overwrite=False):
    """
    Write the interactive viewer as one self-contained HTML file.

    Parameters
    ----------
    cube : `DEMCube`
    path : `str` or `pathlib.Path`
        File to write.
    max_pixels : `int`, optional
        See `view`.
    overwrite : `bool`, optional
        Whether to replace an existing file.

    Raises
    ------
    ImportError
        If bokeh is not installed.
    FileExistsError
        If the file exists and ``overwrite`` is `False`.
    TypeError, ValueError
        As in `view`.

    Examples
    --------
    >>> from sunpy_deepem.visualization.viewer import write_page
    >>> write_page(sample_cube((64, 64)), "sun.html")  # doctest: +SKIP
    """
    title = f"Emission measure, {checked_cube(cube).date.isot[:19]}"
    with atomic_path(path, overwrite=overwrite) as partial:
        partial.write_text(file_html(view(cube, max_pixels=max_pixels), INLINE, title), encoding="utf-8")


def _binned(cube, max_pixels):
    if isinstance(max_pixels, bool) or not isinstance(max_pixels, int | np.integer) or max_pixels < 1:
        msg = f"max_pixels must be a positive whole number, found {max_pixels!r}. The default is 256."
        raise ValueError(msg)
    bins = len(cube.bins)
    ny, nx = cube.data.shape[1:]
    factor = -(-max(ny, nx) // max_pixels)
    if factor == 1:
        return cube
    factors = min(factor, ny), min(factor, nx)
    ny, nx = ny // factors[0] * factors[0], nx // factors[1] * factors[1]
    return cube[:bins, :ny, :nx].rebin((1, *factors))


def _grid(cube):
    """Return position and size of the pixels in arcsec from Sun center along rows and columns, and the rotation."""
    header, (ny, nx) = cube.sky_header, cube.data.shape[1:]
    matrix = np.array(
        [
            [header[f"cdelt{i}"] * header.get(f"pc{i}_{j}", float(i == j)) for j in (1, 2)]  # FITS counts from one
            for i in (1, 2)
        ]
    )
    pixel = np.hypot(*matrix) * np.sign(np.diag(matrix))
    rotation = matrix / pixel
    origin = np.linalg.solve(rotation, [header["crval1"], header["crval2"]])
    left, bottom = origin + pixel * (0.5 - np.array([header["crpix1"], header["crpix2"]]))
    return {
        "nx": nx,
        "ny": ny,
        "left": left,
        "bottom": bottom,
        "dx": pixel[0],
        "dy": pixel[1],
        "rotation": rotation.tolist(),
    }


def _packed(cube):
    """Return the data for the browser, columns of one array, and what it needs to decode and show them."""
    em, band = visible_em(cube), _band(cube)
    positive = em[em > 0]
    high = np.log10(positive.max()) if positive.size else 0.0
    intensity = signed_codes(cube.intensity.value, _STEPS["intensity"])
    known = signed_values(intensity, _STEPS["intensity"])
    total = np.nansum(em, axis=0)
    em, band = (
        np.where(values < _NEGLIGIBLE[name] * total, 0, values)
        for name, values in (("em", em), ("band", np.concatenate(band)))
    )
    noise = ratio_codes(cube.intensity_uncertainty.value, known, _STEPS["noise"])
    columns = {
        "em": packed(log_codes(em, high - _DECADES, _STEPS["em"]), chained=True),
        "band": packed(log_codes(band, high - _DECADES, _STEPS["band"]), chained=True),
        "intensity": packed(intensity),
        "noise": packed(noise),
        "chi2": packed(log_codes(np.asarray(cube.chi2)[np.newaxis], _LOWEST_CHI2, _STEPS["chi2"])),
        "quality": np.asarray(cube.quality, dtype=np.uint16).ravel(),
        "masked": cube.sky_mask.astype(np.uint8).ravel(),
    }
    empty = {name: [] for name in ("em", "low", "high", "intensity", "noise", "chi2", "quality", "masked")}
    return {name: [array] for name, array in columns.items()}, {
        "store": ColumnDataSource(empty),
        "lowest_em": high - _DECADES,
        "steps": _STEPS,
        "log_t": cube.log_t.tolist(),
        "channels": list(CHANNELS),
    }


def _band(cube):
    """Return the limits of the EM in cm^-5: quantiles of draws, or by the standard deviation without a posterior."""
    if cube.has_posterior:
        each_bin = [itemgetter(index) for index in range(len(cube.bins))]
        limits = cube._quantiles(each_bin, ((1 - COVERAGE) / 2, (1 + COVERAGE) / 2), n=_DRAWS)
        return visible(cube, limits).swapaxes(0, 1)
    em = visible_em(cube)
    sigma = 0 if cube.uncertainty is None else (standard_deviation(cube) << cube.unit).to_value(EM_UNIT)
    return em - sigma, em + sigma


def _brightest(cube, grid):
    """Return the position of the pixel with the highest EM, which is shown first."""
    total = np.nan_to_num(visible_em(cube)).sum(axis=0)
    row_, column_ = np.unravel_index(np.argmax(total), total.shape)
    return {
        "x": [grid["left"] + (column_ + 0.5) * grid["dx"]],
        "y": [grid["bottom"] + (row_ + 0.5) * grid["dy"]],
    }


def _image_panel(cube, shared):
    """Return the controls, the figure of the Sun, the data source of its marker and what draws the image."""
    nx, ny, left, bottom = (shared[name] for name in ("nx", "ny", "left", "bottom"))
    width, height = nx * shared["dx"], ny * shared["dy"]
    rotated = not np.allclose(shared["rotation"], np.eye(2), atol=1e-3)
    side = _SIDE / max(abs(width), abs(height))
    names = (
        ("From Sun center along rows", "From Sun center along columns")
        if rotated
        else ("Helioprojective x", "Helioprojective y")
    )
    fig = figure(
        name="sky",
        x_range=Range1d(left, left + width),
        y_range=Range1d(bottom, bottom + height),
        x_axis_label=f"{names[0]} (arcsec)",
        y_axis_label=f"{names[1]} (arcsec)",
        frame_width=max(200, round(side * abs(width))),
        frame_height=max(200, round(side * abs(height))),
        tools="pan,wheel_zoom,box_zoom,reset,save",
        active_scroll="wheel_zoom",
    )
    looks = _looks(cube)
    first = looks["em"]
    mapper = LinearColorMapper(first["palette"], low=first["low"], high=first["high"], nan_color=MASKED_COLOR)
    source = ColumnDataSource({"image": [np.zeros((ny, nx), dtype=np.float32)]}, name="image")
    place = {"x": left, "y": bottom, "dw": width, "dh": height}
    fig.image("image", source=source, color_mapper=mapper, **place)
    if cube.sky_header["ctype1"].startswith("HPLN"):
        angle, radius = np.linspace(0, 2 * np.pi, 361), cube.em_weighted_log_t().rsun_obs.to_value("arcsec")
        fig.line(radius * np.cos(angle), radius * np.sin(angle), color="white", alpha=0.7)
    marker = ColumnDataSource({"x": [], "y": []})
    fig.scatter("x", "y", source=marker, marker="square", size=10, fill_color=None, line_color="black", line_width=4)
    fig.scatter("x", "y", source=marker, marker="square", size=10, fill_color=None, line_color="white", line_width=2)
    bar = ColorBar(color_mapper=mapper, title=first["title"], height=10, padding=5)
    fig.add_layout(bar, "above")

    select = Select(title="Image", value="em", options=[(key, look["name"]) for key, look in looks.items()], width=220)
    log_t, step = cube.log_t, cube.bins.step
    # A slider needs a range, even in a cube of one bin.
    end = max(log_t[-1], log_t[0] + step)
    middle = log_t[np.argmax(np.nan_to_num(visible_em(cube)).sum(axis=(1, 2)))]
    slider = Slider(title="EM in the bin at log T", start=log_t[0], end=end, step=step, value=middle, width=300)
    models = {"select": select, "slider": slider, "image": source, "mapper": mapper, "bar": bar, "looks": looks}
    show = CustomJS(args=shared | models, code=_SHOW_IMAGE)
    select.js_on_change("value", show)
    slider.js_on_change("value", CustomJS(args={"select": select}, code="select.value = 'em'"), show)
    return [row(select, slider)], fig, marker, show


def _looks(cube):
    """Return the name, color bar title, limits and palette of each image that can be selected."""
    em, log_t = em_norm(visible_em(cube)), log_t_norm()
    looks = {
        "em": ("EM per bin", "log₁₀ EM per bin (cm⁻⁵)", np.log10([em.vmin, em.vmax]), "viridis"),
        "log_t": ("EM-weighted log T", "EM-weighted log₁₀ (T / K)", [log_t.vmin, log_t.vmax], "plasma"),
        "chi2": ("χ²", "log₁₀ χ² (mean over channels)", [-1.5, 1.5], "cividis"),
    }
    for channel, observed in zip(CHANNELS, visible(cube, cube.intensity.value), strict=True):
        top = np.log10(intensity_norm(observed).vmax)
        title = f"log₁₀ of {channel} Å observed (DN s⁻¹ pix⁻¹)"
        looks[str(channel)] = (f"{channel} Å observed", title, [top - 2.5, top], f"sdoaia{channel}")
    return {
        key: {
            "name": name,
            "title": title,
            "low": float(limits[0]),
            "high": float(limits[1]),
            "palette": [to_hex(color) for color in mpl.colormaps[colors](np.arange(256))],
        }
        for key, (name, title, limits, colors) in looks.items()
    }


def _pixel_panels(cube):
    """Return the panels of one pixel, and the models and constants that their callback needs."""
    edges, response = cube.bins.edges, cube.response
    nothing = np.full(len(cube.bins), np.nan)
    places = {"left": edges[:-1], "right": edges[1:]}
    curve = ColumnDataSource(places | {"em": nothing, "low": nothing, "high": nothing}, name="curve")
    em = figure(
        x_range=Range1d(edges[0], edges[-1]),
        y_range=Range1d(1e22, 1e28),
        y_axis_type="log",
        x_axis_label="log₁₀ (T / K)",
        y_axis_label="EM per bin (cm⁻⁵)",
        frame_width=400,
        frame_height=300,
        tools="",
        toolbar_location=None,
    )
    words = f"{100 * COVERAGE:.0f} % interval" if cube.has_posterior else "standard deviation"
    shade = {"color": "#cccccc", "line_color": None, "legend_label": words}
    em.quad("left", "right", top="high", bottom="low", source=curve, **shade)
    temperature = np.log10(response.temperature.value)
    near = (temperature > edges[0] - 0.1) & (temperature < edges[-1] + 0.1)
    curves = response.curves.value[:, near]
    names = [f"{channel} Å" for channel in CHANNELS]
    places = {"xs": [temperature[near]] * len(CHANNELS), "ys": [np.full(near.sum(), np.nan)] * len(CHANNELS)}
    loci = ColumnDataSource(places | {"color": CHANNEL_COLORS, "dash": _DASHES, "channel": names}, name="loci")
    em.multi_line("xs", "ys", source=loci, color="color", line_dash="dash", line_width=1.5, legend_field="channel")
    em.segment("left", "em", "right", "em", source=curve, color="black", line_width=3, legend_label="EM")
    em.add_layout(em.legend[0], "right")
    em.legend.title = "EM and EM loci"
    fit = ColumnDataSource({"channel": names, "color": CHANNEL_COLORS, "residual": [0.0] * len(CHANNELS)})
    residual = figure(
        x_range=names,
        y_range=Range1d(-4, 4),
        y_axis_label="(observed − synthetic) / σ",
        frame_width=400,
        frame_height=140,
        tools="",
        toolbar_location=None,
    )
    residual.add_layout(BoxAnnotation(bottom=-1, top=1, fill_color="#cccccc", fill_alpha=0.5, level="underlay"))
    residual.vbar("channel", top="residual", width=0.6, color="color", source=fit)
    readout, table = Div(name="readout", width=520, height=70), Div(name="table", width=520)
    models = {"curve": curve, "loci": loci, "fit": fit, "readout": readout, "table": table}
    models |= {"em_range": em.y_range, "residual_range": residual.y_range}
    facts = {"matrix": response.matrix.value.tolist(), "curves": curves.tolist(), "flags": _flag_words()}
    return [readout, em, residual, table], models | facts


def _flag_words():
    return {str(int(flag)): _FLAG_WORDS.get(flag, flag.name.replace("_", " ").lower()) for flag in Quality}
