"""Noise of counts, and the packaged tables."""

from importlib import resources
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from aiapy.calibrate import estimate_error
from astropy.table import Table

from sunpy_deepem import CHANNELS
from sunpy_deepem.calibrate.photometry import common_fraction, counts_uncertainty, native_pixels
from sunpy_deepem.utils.compat import get_error_table


class TestNativePixels:
    @pytest.mark.parametrize(
        ("scale", "n"), [((0.6, 0.6), 1), ((2.4, 2.4), 16), ((4.8, 4.8), 64), ((-1.2, 0.6), 2), ((0.3, 0.3), 1)]
    )
    def test_area_ratio(self, scale, n):
        assert native_pixels(scale * u.arcsec / u.pix) == pytest.approx(n)

    def test_other_units(self):
        assert native_pixels([4.8 / 3600, 4.8 / 3600] * u.deg / u.pix) == pytest.approx(64)


class TestNoise:
    def estimate(self, counts, channel, n_sample=1):
        with resources.as_file(resources.files("sunpy_deepem.data") / "aia_v3_errors.ecsv") as path:
            table = get_error_table(path)
        counts = np.ravel(counts) * u.DN / u.pix
        return estimate_error(counts, channel * u.angstrom, n_sample=n_sample, error_table=table).value

    @pytest.mark.parametrize("channel", CHANNELS)
    @pytest.mark.parametrize("n_sample", [1, 16, 64])
    def test_same_as_aiapy(self, channel, n_sample):
        counts = np.array([0, 1, 30, 1000, 15000.0])
        np.testing.assert_allclose(
            counts_uncertainty(counts, channel, n_sample), self.estimate(counts, channel, n_sample)
        )

    @pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 0)])
    def test_shapes(self, shape):
        assert counts_uncertainty(np.full(shape, 50.0), 171).shape == shape

    def test_negative_counts(self):
        np.testing.assert_array_equal(counts_uncertainty([-1e3, -0.1, 0], 94), self.estimate([0, 0, 0], 94))

    def test_nan(self):
        assert np.isnan(counts_uncertainty([[np.nan, 1]], 94)).tolist() == [[True, False]]

    def test_errors_common_to_all_pixels(self):
        """Those of the atomic data are 50 % in 94 and 131 Å and 25 % in other channels."""
        for channel in CHANNELS:
            assert common_fraction(channel) == 0
            expected = 0.5 if channel in (94, 131) else 0.25
            assert common_fraction(channel, chianti_error=True) == pytest.approx(expected, rel=1e-3)
            for name in ("eve", "preflight"):
                only, both = (common_fraction(channel, calibration_error=name, chianti_error=c) for c in (False, True))
                assert only > 0.01
                assert both == pytest.approx(np.hypot(only, expected), rel=1e-3)

    def test_input_is_unchanged(self):
        counts = np.array([-5.0, np.nan, 5.0])
        counts_uncertainty(counts, 94)
        np.testing.assert_array_equal(counts, [-5.0, np.nan, 5.0])


@pytest.mark.parametrize(
    "name", ["aia_v10_degradation.ecsv", "aia_v3_errors.ecsv", "aia_v10_temperature_response.ecsv"]
)
def test_packaged_tables_name_their_source(name):
    with resources.as_file(resources.files("sunpy_deepem.data") / name) as path:
        meta = Table.read(path).meta
    assert {"source", "version", "date", "made_by", "description"} <= set(meta)
    assert (Path(__file__).parents[2] / meta["made_by"]).is_file()
