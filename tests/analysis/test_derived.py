"""Tests of the quantities derived from EM against hand calculations."""

import astropy.units as u
import numpy as np
import pytest
from astropy.constants import k_B
from helpers import cube_of, true_cube, uniform_em

from sunpy_deepem import DEMCube

PRODUCTS = ("total_em", "em_weighted_log_t", "peak_log_t", "thermal_width")


@pytest.fixture(scope="module")
def truth():
    return true_cube(n=32)


class TestHandCalculations:
    def test_bands(self):
        cube = cube_of(uniform_em(5.95, 6.45), uniform_em(5.95, 6.45))
        maps = cube.band_maps()
        # 5.6–6.0 holds half of one of the five bins, 6.0–6.3 half, two and a half, 6.3–6.6 half and one.
        np.testing.assert_allclose([smap.data[0, 0] for smap in maps], [1e26, 6e26, 3e26, 0], atol=1e15)
        expected = 2e26 * np.sqrt([1 / 4, 1 / 4 + 1 + 1 + 1 / 4, 1 / 4 + 1, 0])
        np.testing.assert_allclose([smap.uncertainty.array[0, 0] for smap in maps], expected, atol=1e15)
        np.testing.assert_allclose(cube.total_em(6.11, 6.12).data, 2e25)
        assert [smap.meta["content"] for smap in cube.band_maps([(6, 6.5), (5.5, 6)])] == [
            "EM, log T 6 to 6.5",
            "EM, log T 5.5 to 6",
        ]

    @pytest.mark.parametrize(("low", "high"), [(5.95, 6.05), (5.95, 6.45), (5.45, 7.25)])
    def test_uniform(self, low, high):
        cube = cube_of(uniform_em(low, high))
        assert cube.em_weighted_log_t().data[0, 0] == pytest.approx((low + high) / 2)
        assert cube.thermal_width().data[0, 0] == pytest.approx((high - low) / np.sqrt(12))
        assert cube.rebin((2, 1, 1)).thermal_width().data[0, 0] == pytest.approx(
            np.hypot((high - low) / np.sqrt(12), 0), abs=0.06
        )
        for name in PRODUCTS:
            assert getattr(cube, name)().uncertainty is None

    def test_two_temperatures(self):
        em = uniform_em(5.95, 6.05) + 3 * uniform_em(6.45, 6.55)
        cube = cube_of(em)
        assert cube.em_weighted_log_t().data[0, 0] == pytest.approx(6.375)
        assert cube.thermal_width().data[0, 0] ** 2 == pytest.approx(0.25 * 0.75 * 0.5**2 + 0.1**2 / 12)
        assert cube.peak_log_t().data[0, 0] == 6.5

    def test_zero_em_has_no_temperature(self):
        cube = cube_of(np.zeros((18, 1)), np.ones((18, 1)))
        for name in PRODUCTS[1:]:
            smap = getattr(cube, name)()
            assert np.isnan(smap.data).all()
        assert (cube.total_em().data == 0).all()

    def test_uncertainty_of_peak(self):
        em, std = np.full((18, 4), 1e25), np.full((18, 4), 1e24)
        em[8] = 1e26
        em[9] = [1e25, 9e25, 9e25, 9e25]
        std[9, 2], std[4, 3] = 2e25, 1e26
        cube = cube_of(em, std)
        np.testing.assert_array_equal(cube.peak_log_t().data[0], 6.3)
        # A single bin; a neighbor 10 σ lower; a neighbor within the errors; an unconstrained bin.
        np.testing.assert_allclose(cube.peak_log_t().uncertainty.array[0], [0.05, 0.05, 0.1, 0.25])

    def test_density(self):
        cube = cube_of(uniform_em(5.95, 6.45, total=8.3e26), 0.2 * uniform_em(5.95, 6.45, total=8.3e26))
        density = cube.electron_density(100 * u.Mm)
        assert density.unit == u.cm**-3
        assert density.data[0, 0] == pytest.approx(np.sqrt(8.3e26 / 0.83 / 1e10))
        total = cube.total_em()
        relative = total.uncertainty.array / total.data
        np.testing.assert_allclose(density.uncertainty.array / density.data, relative / 2)
        assert cube.electron_density(100 * u.Mm, hydrogen_ratio=1).data[0, 0] == pytest.approx(np.sqrt(8.3e26 / 1e10))
        assert cube.electron_density(100 * u.Mm, filling_factor=0.25).data[0, 0] == pytest.approx(
            2 * density.data[0, 0]
        )
        part = cube.electron_density(100 * u.Mm, low=6.05, high=6.15)
        assert part.data[0, 0] == pytest.approx(density.data[0, 0] / np.sqrt(5))
        depths = cube.electron_density([[50]] * u.Mm)
        assert depths.data[0, 0] == pytest.approx(np.sqrt(2) * density.data[0, 0])

    def test_thermal_energy(self):
        cube = cube_of(uniform_em(6.25, 6.35), 0.2 * uniform_em(6.25, 6.35))
        depth, density = 50 * u.Mm, cube.electron_density(50 * u.Mm)
        temperature = (10**6.35 - 10**6.25) / np.log(10) / 0.1 * u.K
        energy = cube.thermal_energy(depth)
        expected = 3 * k_B * density.quantity[0, 0] * temperature * depth
        assert energy.quantity[0, 0].to_value("erg / cm2") == pytest.approx(expected.to_value("erg / cm2"))
        # At a known temperature the energy scales with the root of EM.
        np.testing.assert_allclose(energy.uncertainty.array / energy.data, 0.1)
        assert cube.thermal_energy(depth, low=6.3).data[0, 0] < energy.data[0, 0]
        width, height = (u.Quantity(energy.scale) * u.pix).to_value("rad") * energy.dsun.to("cm")
        pixel = cube.thermal_energy(depth, per_pixel=True)
        assert pixel.unit == u.erg
        np.testing.assert_allclose(pixel.quantity, (energy.quantity * width * height).to("erg"))
        np.testing.assert_allclose(pixel.uncertainty.array / pixel.data, 0.1)

    def test_merged_bins_keep_energy(self, truth):
        # The EM is uniform inside the merged bins.
        em = np.repeat(truth.data[::3], 3, axis=0)
        flat = DEMCube(em, wcs=truth.wcs, meta=truth.meta)
        here, there = (cube.thermal_energy(50 * u.Mm, low=5.8, high=6.7).data for cube in (flat, flat.rebin((3, 1, 1))))
        np.testing.assert_allclose(here, there)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"depth": -1 * u.Mm}, "depth must be a positive length, found -1 Mm"),
            ({"filling_factor": 1.2}, "filling_factor must be above 0 and at most 1, found 1.2"),
            ({"filling_factor": 0}, "filling_factor"),
            ({"hydrogen_ratio": -1}, "hydrogen_ratio"),
            ({"low": 3}, "within the cube's bins"),
        ],
    )
    @pytest.mark.parametrize("name", ["electron_density", "thermal_energy"])
    def test_invalid_argument(self, truth, name, options, message):
        with pytest.raises(ValueError, match=message):
            getattr(truth, name)(**{"depth": 50 * u.Mm} | options)
        with pytest.raises(u.UnitsError):
            getattr(truth, name)(5 * u.s)


@pytest.mark.parametrize(
    "product",
    [
        lambda cube: cube.total_em(5.87, 6.41),
        lambda cube: cube.em_weighted_log_t(),
        lambda cube: cube.thermal_width(),
        lambda cube: cube.electron_density(1 * u.Mm, low=5.9),
        lambda cube: cube.thermal_energy(1 * u.Mm, low=5.93, high=6.48),
    ],
    ids=["total", "mean", "width", "density", "energy"],
)
def test_errors_match_random_draws(product):
    rng = np.random.default_rng(3)
    em = rng.uniform(1e26, 1e27, 18)
    std = 0.01 * rng.uniform(1e26, 1e27, 18)
    propagated = product(cube_of(em[:, np.newaxis], std[:, np.newaxis])).uncertainty.array[0, 0]
    found = product(cube_of(rng.normal(em, std, (4000, 18)).T)).data[0]
    assert propagated == pytest.approx(found.std(), rel=0.05)


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_share_the_grid_of_the_cube(truth, name):
    truth = truth[:]
    truth.mask = truth.chi2 > 1
    smap, synthetic = getattr(truth, name)(), truth.synthesize()[0]
    np.testing.assert_array_equal(smap.mask, truth.chi2 > 1)
    assert smap.uncertainty.array.shape == smap.data.shape == (32, 32)
    assert smap.unit == (u.cm**-5 if name == "total_em" else u.one)
    pixels = [[0, 0], [31, 31]]
    np.testing.assert_allclose(smap.wcs.wcs_pix2world(pixels, 0), synthetic.wcs.wcs_pix2world(pixels, 0))
