"""The same intensities under several priors."""

import numpy as np
import pytest

from sunpy_deepem import DeepEM
from sunpy_deepem.methods import Importance
from sunpy_deepem.training import DEMPrior


@pytest.fixture(scope="module")
def part(cube):
    return cube[:, 60:64, 40:46]


def test_table(part):
    table = part.prior_sensitivity(bands=[(6.0, 6.3), (6.6, 7.0)], n=100)
    assert list(table["method"]) == ["default", "neutral"]
    assert table["em_6.6_7.0"].unit == "cm-5"
    for name in ("total_em", "em_6.0_6.3", "em_6.6_7.0", "log_t", "width"):
        assert (table[f"{name}_lower"] < table[f"{name}_upper"]).all()
    hot = table["em_6.6_7.0_upper"]
    assert hot[1] > 1.5 * hot[0]
    expected = part.curve(n=100).products([(6.6, 7.0)])["em_6.6_7.0"]
    np.testing.assert_allclose(
        [row.value for row in expected], [table[name][0].value for name in table.colnames if name.startswith("em_6.6")]
    )


def test_other_methods(part):
    exact = Importance(DEMPrior(), draws=20_000)
    curves = part.prior_curves(methods=[DeepEM.load("neutral"), exact], n=20)
    assert list(curves) == ["neutral", repr(exact)]


def test_invalid_methods(part):
    with pytest.raises(TypeError, match="method must have a posterior"):
        part.prior_sensitivity(methods=[3])
    with pytest.raises(FileNotFoundError):
        part.prior_sensitivity(methods=["other.safetensors"])
