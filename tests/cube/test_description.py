"""Tests of the date and the description of a cube."""

import numpy as np
import pytest
from helpers import true_cube

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


def test_of_slices(truth):
    for part in (truth[3], truth[:, 3], truth[:, 3, 4]):
        assert "date:   2014-01-01T00:00:05" in str(part)


def test_html(truth):
    text = truth._repr_html_()
    assert "<th" in text
    assert "pixels of 154″" in text
    assert "data:image/png;base64," in text
    assert "<img" not in truth[3]._repr_html_()


def test_lazy_cube_is_not_computed(maps):
    pytest.importorskip("dask")
    lazy = invert(maps, chunks=64)
    assert "not computed yet" in str(lazy)
    assert "<img" not in lazy._repr_html_()
    assert hasattr(lazy.chi2, "dask")
