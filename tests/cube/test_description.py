"""Tests of the date and the description of a cube."""

import astropy.units as u
import numpy as np
import pytest
from helpers import true_cube
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sunpy_deepem import Quality, invert


@pytest.fixture(scope="module")
def truth():
    return true_cube(n=16)


def test_date(truth):
    (date,) = (each["date"] for each in truth.inputs if each["channel"] == 193)
    assert truth.date.isot == date
    assert truth.global_coords["time"] == truth.date
    assert truth[:, 3, 4].global_coords["time"] == truth.date


def test_text(truth):
    part = truth[:]
    part.meta["quality"] = np.where(np.eye(16) > 0, Quality.LOW_SIGNAL, 0).astype(np.uint16)
    lines = dict(line.strip().split(": ", 1) for line in str(part).splitlines()[1:])
    facts = {name: text.strip() for name, text in lines.items()}
    assert facts["date"] == "2014-01-01T00:00:05"
    assert facts["method"] == "truth"
    assert facts["shape"] == "18 × 16 × 16 (log T, y, x)"
    assert facts["log T"] == "5.45 to 7.25 in 18 bins of 0.1 dex"
    assert facts["field"].endswith("x = 0″, y = 0″; pixels of 154″ × 154″")
    assert facts["χ²"].startswith(f"median {np.nanmedian(part.chi2):.2f}, 16 to 84 % of pixels:")
    assert facts["flags"] == "LOW_SIGNAL 6.2 %, masked 0 %"


def test_network_and_history(cube):
    text = str(cube[:, :4, :4] * 2)
    assert "network, weights 'default' (" in text
    assert "; " in text.split("method:")[1].splitlines()[0]


@pytest.mark.parametrize(
    ("item", "shape", "place"),
    [
        (3, "16 × 16 (y, x)", {"log T": "bin around 5.8"}),
        ((slice(None), 3), "18 × 16 (log T, sky)", {}),
        ((slice(None), 8, 7), "18 (log T)", {"position": "x = -77″, y = 77″"}),
        ((2, slice(None), 7), "16 (sky)", {"log T": "bin around 5.7"}),
        (slice(3, 4), "1 × 16 × 16 (log T, y, x)", {"log T": "5.75 to 5.85 in 1 bin of 0.1 dex"}),
    ],
)
def test_of_slices(truth, item, shape, place):
    facts = truth[item].describe()
    assert facts["date"] == "2014-01-01T00:00:05"
    assert facts["shape"] == shape
    assert {name: facts[name] for name in ("log T", "position") if name in facts} == place


def test_history_names_the_date_of_the_cube(truth):
    assert "minus the DEMCube of 2014-01-01T00:00:05" in str(truth - truth)


def test_fractions_of_flags(truth):
    part = truth[:]
    for count, text in ((256, "100 %"), (255, "100 %"), (254, "99 %"), (1, "0.39 %")):
        part.meta["quality"] = np.where(np.arange(256) < count, Quality.NEGATIVE, 0).reshape(16, 16).astype(np.uint16)
        assert part.describe()["flags"] == f"NEGATIVE {text}, masked 0 %"


@pytest.mark.parametrize(
    ("unit", "text"), [(u.m**5, "none"), (u.s, "s m-5"), (u.m**5 * u.dex, "dex"), (u.one, "m-5, EM per bin")]
)
def test_other_units(truth, unit, text):
    other = truth.with_planes(truth.planes, unit=u.m**-5 * unit)
    assert other.describe()["unit"] == text
    assert ("<img" in other._repr_html_()) == ("EM" in text)


def test_html(truth):
    text = truth._repr_html_()
    assert "<th" in text
    assert "pixels of 154″" in text
    assert "data:image/png;base64," in text
    assert "&nbsp;%" in text
    assert " %" not in text
    assert "<img" not in truth[3]._repr_html_()


def test_thumbnail_has_one_title_and_no_crowded_labels(truth, monkeypatch):
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *args, **kwargs: figures.append(figure))
    truth._repr_html_()
    (figure,) = figures
    sky, bar = figure.axes
    assert sky.get_title() == "EM, log T 5.45 to 7.25"
    assert bar.get_ylabel() == "EM ($\\mathrm{cm^{-5}}$)"
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    width, height = canvas.get_width_height()
    for axes in (sky, bar):
        box = axes.get_tightbbox(canvas.get_renderer())
        assert 0 <= box.x0 < box.x1 <= width
        assert 0 <= box.y0 < box.y1 <= height
    assert sky.get_window_extent().width > width / 2


def test_lazy_cube_is_not_computed(maps):
    pytest.importorskip("dask")
    lazy = invert(maps, chunks=64)
    assert "not computed yet" in str(lazy)
    assert "<img" not in lazy._repr_html_()
    assert hasattr(lazy.chi2, "dask")
