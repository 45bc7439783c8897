"""Fe XVIII, EM loci, and what follows from the EM of a cube, by hand."""

import astropy.units as u
import numpy as np
import pytest
from astropy.constants import k_B
from astropy.coordinates import SkyCoord
from astropy.time import Time
from helpers import aia_map, true_cube
from regions import CirclePixelRegion, CircleSkyRegion, LinePixelRegion, PixCoord, PointSkyRegion

from sunpy_deepem import CHANNELS, ChannelStack, DEMCube, LogTBins, TemperatureResponse, invert
from sunpy_deepem.analysis import em_loci, fe_xviii, fe_xviii_map
from sunpy_deepem.calibrate.photometry import degradation_factor
from sunpy_deepem.forward import synthetic_intensity
from sunpy_deepem.sample import sample_maps
from sunpy_deepem.units import INTENSITY_UNIT

PRODUCTS = ("total_em", "em_weighted_log_t", "peak_log_t", "thermal_width")


def test_fe_xviii_by_hand():
    intensity = np.array([7.0, 1, 900, 1, 240, 1]) * INTENSITY_UNIT
    assert fe_xviii(intensity) == (7 - 2 - 2) * INTENSITY_UNIT
    line, sigma = fe_xviii(intensity, np.array([3.0, 9, 0, 9, 480, 9]) * INTENSITY_UNIT)
    assert line == 3 * INTENSITY_UNIT
    assert sigma == 5 * INTENSITY_UNIT


def test_fe_xviii_of_maps():
    assert fe_xviii(np.ones((6, 3, 4)) * INTENSITY_UNIT).shape == (3, 4)


def test_fe_xviii_as_a_map_shows_the_hot_core(cube):
    smap = fe_xviii_map(cube)
    line, sigma = fe_xviii(cube.intensity, cube.intensity_uncertainty)
    np.testing.assert_allclose(smap.data, line.value)
    np.testing.assert_allclose(smap.uncertainty.array, sigma.value)
    assert smap.unit == u.DN / u.s
    assert smap.observer_coordinate.radius.to_value("AU") == pytest.approx(0.983, abs=0.001)
    hottest = np.unravel_index(np.argmax(smap.data), smap.data.shape)
    assert cube.em_weighted_log_t().data[hottest] > 6.6
    with pytest.raises(TypeError, match="source must be a ChannelStack or a DEMCube"):
        fe_xviii_map(smap)


def test_loci_of_isothermal_plasma_cross_at_its_temperature(response):
    at = 50
    intensity = 1e27 * u.cm**-5 * response.curves[:, at]
    loci = em_loci(intensity, response)
    np.testing.assert_allclose(loci[:, at].value, 1e27)
    # Everywhere else some channel allows less than another.
    spread = np.log10((loci.max(axis=0) / loci.min(axis=0)).value)
    assert np.argmin(spread) == at


def test_loci_bound_the_em(response):
    em = np.random.default_rng(0).uniform(0, 1e27, 18)
    loci = em_loci((response.matrix.value @ em) * INTENSITY_UNIT, response)
    lowest = loci.min(axis=0).value
    at_bins = np.interp(response.bins.centers, np.log10(response.temperature.value), lowest)
    assert (em < 1.5 * at_bins).all()


def test_negative_intensity_has_no_locus(response):
    loci = em_loci(np.array([-1.0, 1, 1, 1, 1, 1]) * INTENSITY_UNIT, response)
    assert np.isnan(loci[0]).all()
    assert (loci[1:] > 0).all()


def test_wrong_input(response):
    with pytest.raises(ValueError, match="six channels"):
        fe_xviii(np.ones(5) * INTENSITY_UNIT)
    with pytest.raises(ValueError, match=r"one pixel .* found \(6, 2\)"):
        em_loci(np.ones((6, 2)) * INTENSITY_UNIT, response)
    with pytest.raises(u.UnitsError):
        fe_xviii(np.ones(6) * u.DN)


def test_a_subset_of_channels_in_the_forward_model(cube):
    maps = cube.synthesize(channels=(193, 171))
    assert [smap.wavelength.value for smap in maps] == [193, 171]
    np.testing.assert_array_equal(maps[1].data, cube.synthesize()[2].data)
    for channel in (304, 1600):
        with pytest.raises(ValueError, match="304 Å is optically thick"):
            cube.synthesize(channels=(channel,))


def test_responses_are_written_and_read(response, tmp_path):
    from sunpy_deepem import TemperatureResponse

    path = tmp_path / "response.ecsv"
    for written in (response, response.with_channels((335, 94))):
        written.write(path, overwrite=True)
        again = TemperatureResponse.read(path)
        assert again == written
        assert again.channels == written.channels
        assert again.meta == written.meta
    with pytest.raises(FileExistsError):
        response.write(path)
    path.write_text("not ecsv")
    with pytest.raises(ValueError, match="cannot be read as ECSV"):
        TemperatureResponse.read(path)
    with pytest.raises(FileNotFoundError):
        TemperatureResponse.read(tmp_path / "none.ecsv")


def made(em, em_std=None, **options):
    """A cube of some EM, shape (18, n), along a row of pixels, that was observed as it would be seen."""
    response = TemperatureResponse.default()
    em = np.asarray(em, dtype=float)[:, np.newaxis]
    seen = synthetic_intensity(em * u.cm**-5, response)
    header = {key: value for key, value in aia_map(94, em[0]).meta.items() if key[:4] != "naxi"}
    inputs = [{"channel": channel, "date": "2014-01-01T00:00:00.000", "exposure_time": 2.0} for channel in CHANNELS]
    options = {"intensity": seen, "uncertainty": 0.1 * seen + 1 * INTENSITY_UNIT} | options
    em_std = None if em_std is None else np.asarray(em_std, dtype=float)[:, np.newaxis]
    return DEMCube.from_arrays(em, em_std, response, header, inputs, **options)


def uniform(low, high, total=1e27):
    """EM that is uniform per dex between two limits, which are edges of bins."""
    inside = (LogTBins().centers > low) & (LogTBins().centers < high)
    return np.where(inside, total / inside.sum(), 0)[:, np.newaxis]


@pytest.fixture(scope="module")
def truth():
    return true_cube(n=32)


class TestProductsByHand:
    def test_bands(self):
        cube = made(uniform(5.95, 6.45), uniform(5.95, 6.45))
        maps = cube.band_maps()
        # 5.6–6.0 holds half of one of five bins, 6.0–6.3 half, two and a half, 6.3–6.6 half and one.
        np.testing.assert_allclose([smap.data[0, 0] for smap in maps], [1e26, 6e26, 3e26, 0], atol=1e15)
        expected = 2e26 * np.sqrt([1 / 4, 1 / 4 + 1 + 1 + 1 / 4, 1 / 4 + 1, 0])
        np.testing.assert_allclose([smap.uncertainty.array[0, 0] for smap in maps], expected, atol=1e15)
        np.testing.assert_allclose(cube.total_em(6.11, 6.12).data, 2e25)
        assert [smap.meta["content"] for smap in cube.band_maps([(6, 6.5), (5.5, 6)])] == [
            "EM, log T 6 to 6.5",
            "EM, log T 5.5 to 6",
        ]

    @pytest.mark.parametrize(("low", "high"), [(5.95, 6.05), (5.95, 6.45), (5.45, 7.25)])
    def test_of_uniform_em(self, low, high):
        cube = made(uniform(low, high))
        assert cube.em_weighted_log_t().data[0, 0] == pytest.approx((low + high) / 2)
        assert cube.thermal_width().data[0, 0] == pytest.approx((high - low) / np.sqrt(12))
        assert cube.rebin((2, 1, 1)).thermal_width().data[0, 0] == pytest.approx(
            np.hypot((high - low) / np.sqrt(12), 0), abs=0.06
        )
        for name in PRODUCTS:
            assert getattr(cube, name)().uncertainty is None

    def test_of_two_temperatures(self):
        em = uniform(5.95, 6.05) + 3 * uniform(6.45, 6.55)
        cube = made(em)
        assert cube.em_weighted_log_t().data[0, 0] == pytest.approx(6.375)
        assert cube.thermal_width().data[0, 0] ** 2 == pytest.approx(0.25 * 0.75 * 0.5**2 + 0.1**2 / 12)
        assert cube.peak_log_t().data[0, 0] == 6.5

    def test_no_em_has_no_temperature(self):
        cube = made(np.zeros((18, 1)), np.ones((18, 1)))
        for name in PRODUCTS[1:]:
            smap = getattr(cube, name)()
            assert np.isnan(smap.data).all()
        assert (cube.total_em().data == 0).all()

    def test_the_range_of_the_peak(self):
        em, std = np.full((18, 4), 1e25), np.full((18, 4), 1e24)
        em[8] = 1e26
        em[9] = [1e25, 9e25, 9e25, 9e25]
        std[9, 2], std[4, 3] = 2e25, 1e26
        cube = made(em, std)
        np.testing.assert_array_equal(cube.peak_log_t().data[0], 6.3)
        # One bin alone; a neighbour 10 σ lower; a neighbour within the errors; and a bin that may be anything.
        np.testing.assert_allclose(cube.peak_log_t().uncertainty.array[0], [0.05, 0.05, 0.1, 0.25])

    def test_density(self):
        cube = made(uniform(5.95, 6.45, total=8.3e26), 0.2 * uniform(5.95, 6.45, total=8.3e26))
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
        cube = made(uniform(6.25, 6.35), 0.2 * uniform(6.25, 6.35))
        depth, density = 50 * u.Mm, cube.electron_density(50 * u.Mm)
        temperature = (10**6.35 - 10**6.25) / np.log(10) / 0.1 * u.K
        energy = cube.thermal_energy(depth)
        expected = 3 * k_B * density.quantity[0, 0] * temperature * depth
        assert energy.quantity[0, 0].to_value("erg / cm2") == pytest.approx(expected.to_value("erg / cm2"))
        # Isothermal plasma of known temperature: as the root of EM.
        np.testing.assert_allclose(energy.uncertainty.array / energy.data, 0.1)
        assert cube.thermal_energy(depth, low=6.3).data[0, 0] < energy.data[0, 0]
        width, height = (u.Quantity(energy.scale) * u.pix).to_value("rad") * energy.dsun.to("cm")
        pixel = cube.thermal_energy(depth, per_pixel=True)
        assert pixel.unit == u.erg
        np.testing.assert_allclose(pixel.quantity, (energy.quantity * width * height).to("erg"))
        np.testing.assert_allclose(pixel.uncertainty.array / pixel.data, 0.1)

    def test_merging_bins_keeps_the_energy(self, truth):
        # Of EM that is uniform in the wider bins.
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
    def test_what_makes_no_sense(self, truth, name, options, message):
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
def test_errors_are_those_of_many_draws(product):
    rng = np.random.default_rng(3)
    em = rng.uniform(1e26, 1e27, 18)
    std = 0.01 * rng.uniform(1e26, 1e27, 18)
    told = product(made(em[:, np.newaxis], std[:, np.newaxis])).uncertainty.array[0, 0]
    found = product(made(rng.normal(em, std, (4000, 18)).T)).data[0]
    assert told == pytest.approx(found.std(), rel=0.05)


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_are_maps_of_the_cube(truth, name):
    truth = truth[:]
    truth.mask = truth.chi2 > 1
    smap, synthetic = getattr(truth, name)(), truth.synthesize()[0]
    np.testing.assert_array_equal(smap.mask, truth.chi2 > 1)
    assert smap.uncertainty.array.shape == smap.data.shape == (32, 32)
    assert smap.unit == (u.cm**-5 if name == "total_em" else u.one)
    pixels = [[0, 0], [31, 31]]
    np.testing.assert_allclose(smap.wcs.wcs_pix2world(pixels, 0), synthetic.wcs.wcs_pix2world(pixels, 0))


def test_residuals(truth):
    maps = truth.residual_maps()
    np.testing.assert_allclose(sum(smap.data**2 for smap in maps) / 6, truth.chi2, rtol=1e-4)
    observed, synthetic = truth.observed_maps(), truth.synthesize()
    for row, smap in enumerate(maps):
        assert smap.unit == u.one
        assert smap.wavelength == observed[row].wavelength
        residual = (observed[row].data - synthetic[row].data) / truth.intensity_uncertainty[row].value
        np.testing.assert_allclose(smap.data, residual, rtol=1e-4, atol=1e-6)
        assert (smap.uncertainty.array == 1).all()


class TestCurve:
    def test_of_everything(self, truth):
        curve = truth.curve()
        assert curve.n_pixels == 32 * 32
        assert curve.bins == truth.bins
        np.testing.assert_allclose(curve.em.to_value("cm-5"), truth.data.mean(axis=(1, 2)))
        np.testing.assert_allclose(curve.intensity.value, truth.intensity.value.mean(axis=(1, 2), dtype=float))
        np.testing.assert_allclose(curve.synthetic, synthetic_intensity(curve.em, truth.response))
        one = truth.rebin((1, -1, -1))
        np.testing.assert_allclose(curve.uncertainty.value, one.uncertainty.array[:, 0, 0])
        np.testing.assert_allclose(curve.intensity_uncertainty, one.intensity_uncertainty[:, 0, 0], rtol=1e-5)

    def test_its_interval_does_not_shrink_with_more_of_the_same(self):
        em = np.tile(uniform(5.95, 6.45), 100)
        few, many = (made(em[:, :n], 0.3 * em[:, :n]).curve() for n in (1, 100))
        np.testing.assert_allclose(many.uncertainty, few.uncertainty)
        # The noise of what was observed averages out.
        np.testing.assert_allclose(many.intensity_uncertainty, few.intensity_uncertainty / 10)

    def test_the_systematic_error_does_not_average_out(self):
        em = np.tile(uniform(5.95, 6.45), 100)
        seen = synthetic_intensity(em[:, np.newaxis] * u.cm**-5, TemperatureResponse.default())
        options = {"uncertainty": 0.1 * seen, "meta": {"systematic": 0.1}}
        curve = made(em, **options).curve()
        np.testing.assert_allclose(curve.intensity_uncertainty, 0.1 * curve.intensity)
        assert curve.uncertainty is None

    def test_of_one_coordinate(self, truth):
        smap = truth.total_em()
        for y, x in ((0, 0), (12, 17), (31, 31)):
            curve = truth.curve(smap.pixel_to_world((x + 0.4) * u.pix, (y - 0.4) * u.pix))
            assert curve.n_pixels == 1
            np.testing.assert_allclose(curve.em.value, truth.data[:, y, x])
            np.testing.assert_allclose(curve.uncertainty.value, truth.uncertainty.array[:, y, x])
            np.testing.assert_allclose(curve.intensity_uncertainty, truth.intensity_uncertainty[:, y, x], rtol=1e-6)

    def test_of_regions(self, truth):
        y, x = np.indices((32, 32))
        inside = np.hypot(x - 20, y - 9) < 4.3
        smap = truth.total_em()
        center = smap.pixel_to_world(20 * u.pix, 9 * u.pix)
        pixel = CirclePixelRegion(PixCoord(20, 9), radius=4.3)
        sky = CircleSkyRegion(center, radius=4.3 * smap.scale.axis1 * u.pix)
        for where in (inside, pixel, sky):
            curve = truth.curve(where)
            assert curve.n_pixels == inside.sum()
            np.testing.assert_allclose(curve.em.value, truth.data[:, inside].mean(axis=1))
        assert truth.curve(PointSkyRegion(center)).em[3].value == pytest.approx(truth.data[3, 9, 20])

    def test_masked_pixels_do_not_count(self, truth):
        part = truth[:]
        part.mask = np.indices((32, 32))[0] < 16
        assert part.curve().n_pixels == 512
        np.testing.assert_allclose(part.curve().em.value, truth.data[:, 16:].mean(axis=(1, 2)))

    def test_of_a_cube_whose_arrays_are_dask_s(self, maps):
        dem = invert(maps)
        lazy = invert(maps, chunks=64)
        where = dem.total_em().data > 5e27
        assert 0 < where.sum() < where.size
        np.testing.assert_allclose(lazy.curve(where).em, dem.curve(where).em)

    def test_loci_bound_it(self, truth):
        curve = truth.curve()
        loci = curve.loci(truth.response)
        np.testing.assert_array_equal(loci, em_loci(curve.intensity, truth.response))
        lowest = np.interp(curve.bins.centers, np.log10(truth.response.temperature.value), loci.min(axis=0).value)
        assert (curve.em.value < 1.5 * lowest).all()

    def test_where_there_is_nothing(self, truth):
        part = truth[:]
        part.mask = np.indices((32, 32))[0] < 16
        frame = truth.total_em().coordinate_frame
        far = SkyCoord(3000 * u.arcsec, 0 * u.arcsec, frame=frame)
        for where, message in (
            (np.indices((32, 32))[0] < 5, r"where holds 160 pixels of the cube, all without data"),
            (CirclePixelRegion(PixCoord(500, 500), radius=3), "where holds 0 pixels"),
            (far, r"where lies at pixel x = .*, outside the cube's 32 × 32 pixels"),
            (np.zeros((3, 3), dtype=bool), r"shape of the cube's sky, \(32, 32\), found \(3, 3\)"),
            (SkyCoord([0, 1] * u.arcsec, [0, 1] * u.arcsec, frame=frame), "one coordinate, found 2"),
        ):
            with pytest.raises(ValueError, match=message):
                part.curve(where)
        with pytest.raises(TypeError, match=r"where must be a SkyCoord, .* found tuple"):
            part.curve((3, 4))
        with pytest.raises(TypeError, match="region that has an area, or a point, found LinePixelRegion"):
            part.curve(LinePixelRegion(PixCoord(2, 2), PixCoord(5, 5)))
        with pytest.raises(ValueError, match="curve needs the axes"):
            part[3].curve()


class TestDegraded:
    """Synthetic maps as AIA would have recorded them on the day."""

    def test_the_factor_is_that_of_the_correction(self, truth):
        for plain, degraded, observation in zip(
            truth.synthesize(), truth.synthesize(degraded=True), truth.inputs, strict=True
        ):
            np.testing.assert_array_equal(degraded.data, plain.data * observation["degradation"])
            assert degraded.meta["degrfact"] == observation["degradation"]
            assert observation["degradation"] == pytest.approx(
                degradation_factor(observation["channel"], Time(observation["date"]))
            )
            assert degraded.unit == u.DN / u.s
            assert degraded.meta["content"] == "synthetic, from DEM, degraded"
            assert degraded.exposure_time == plain.exposure_time
            assert "degrfact" not in plain.meta
        assert not (degraded.data == plain.data).all()

    def test_some_channels(self, truth):
        some, every = truth.synthesize((335, 171), degraded=True), truth.synthesize(degraded=True)
        np.testing.assert_array_equal(some[0].data, every[5].data)
        np.testing.assert_array_equal(some[1].data, every[2].data)

    def test_it_agrees_with_the_level_1_5_data(self, truth):
        for raw, degraded, sigma, corrected in zip(
            sample_maps((32, 32)),
            truth.synthesize(degraded=True),
            truth.intensity_uncertainty.value,
            truth.inputs,
            strict=True,
        ):
            rate = raw.data / raw.exposure_time.to_value("s")
            residual = (degraded.data - rate) / (sigma * corrected["degradation"])
            assert np.mean(residual**2) < 1

    def test_they_can_be_inverted_like_observations(self, maps):
        cube = invert(maps)
        again = invert(cube.synthesize(degraded=True))
        np.testing.assert_allclose(
            again.intensity.value, [smap.data for smap in cube.synthesize()], rtol=1e-5, atol=1e-5
        )

    def test_a_response_of_the_day_is_degraded_already(self, maps):
        cube = invert(maps, degradation="response", refine=1)
        for plain, degraded in zip(cube.synthesize(), cube.synthesize(degraded=True), strict=True):
            np.testing.assert_array_equal(plain.data, degraded.data)
            assert degraded.meta["degrfact"] == 1

    def test_a_response_of_another_epoch(self, truth):
        part = truth[:]
        part.meta["provenance"] = {}
        epoch = Time("2012-06-01")
        part.meta["response"] = TemperatureResponse.default(obstime=epoch)
        for plain, degraded in zip(part.synthesize(), part.synthesize(degraded=True), strict=True):
            channel = round(plain.wavelength.value)
            factor = degradation_factor(channel, plain.date, epoch=epoch)
            assert degraded.meta["degrfact"] == pytest.approx(factor)
            np.testing.assert_allclose(degraded.data, plain.data * factor)

    def test_the_real_sun(self, real_sun):
        cube = invert(real_sun, shape=128)
        disc = np.hypot(*(np.indices((128, 128)) - 63.5)) < 45
        raw = ChannelStack.from_maps(real_sun, shape=128, degradation=None)
        for row, smap in enumerate(cube.synthesize(degraded=True)):
            residual = (smap.data - raw.intensity[row].value) / raw.uncertainty[row].value
            assert np.nanmedian(np.abs(residual[disc])) < 1
