"""The cube: its axes, its slices, and what follows from it."""

import pickle

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from helpers import aia_map, cube_from_arrays, spoiled, true_cube
from ndcube import NDCube
from sunpy.coordinates import frames
from sunpy.map.sources import AIAMap

from sunpy_deepem import CHANNELS, DEMCube, LogTBins, Quality, TemperatureResponse
from sunpy_deepem.forward import synthetic_intensity
from sunpy_deepem.sample import sample_maps
from sunpy_deepem.units import INTENSITY_UNIT

N = 24
RESPONSE = TemperatureResponse.default()
COMPANIONS = (
    "chi2",
    "quality",
    "saturation",
    *(f"{name}_{channel}" for name in ("intensity", "sigma") for channel in CHANNELS),
)


@pytest.fixture(scope="module")
def cube():
    """The true EM, with a missing and a saturated pixel."""
    return true_cube([spoiled(smap, {(5, 7): np.nan, (20, 3): 16000}) for smap in sample_maps((N, N))], N)


@pytest.fixture(scope="module")
def header():
    return {key: value for key, value in aia_map(94, np.zeros((1, 4))).meta.items() if key[:4] != "naxi"}


def made(em, header, *, intensity=None, sigma=0.1, **options):
    """Make a cube of EM, shape (18, nx), by default with its synthetic intensities."""
    em = np.asarray(em, dtype=float)[:, np.newaxis]
    seen = synthetic_intensity(em * u.cm**-5, RESPONSE)
    intensity = seen if intensity is None else intensity
    inputs = [{"channel": channel, "date": "2014-01-01T00:00:00.000", "exposure_time": 2.0} for channel in CHANNELS]
    options = {"intensity": intensity, "uncertainty": sigma * (seen + 1 * INTENSITY_UNIT)} | options
    return cube_from_arrays(em, None, RESPONSE, header, inputs, **options)


def isothermal(*bins, total=1e27):
    em = np.zeros((18, len(bins)))
    em[bins, range(len(bins))] = total
    return em


class TestContent:
    def test_what_it_holds(self, cube):
        assert isinstance(cube, NDCube)
        assert cube.data.shape == cube.uncertainty.array.shape == cube.mask.shape == (18, N, N)
        assert cube.unit == u.cm**-5
        assert cube.chi2.shape == cube.quality.shape == (N, N)
        assert cube.intensity.shape == cube.intensity_uncertainty.shape == (6, N, N)
        assert cube.intensity.unit == cube.intensity_uncertainty.unit == INTENSITY_UNIT
        assert cube.response == RESPONSE
        assert [one["channel"] for one in cube.inputs] == list(CHANNELS)
        assert cube.bins == LogTBins()
        assert cube.meta["provenance"]["method"] == "truth"

    def test_masked_pixels_are_nan_in_every_bin(self, cube):
        expected = np.zeros((N, N), dtype=bool)
        expected[5, 7] = expected[20, 3] = True
        np.testing.assert_array_equal(cube.mask, np.broadcast_to(expected, cube.data.shape))
        np.testing.assert_array_equal(np.isnan(cube.data), cube.mask)

    def test_the_arrays_given_are_left_alone(self, header):
        em = isothermal(3, 8)
        quality = np.array([[Quality.SATURATED, 0]])
        made(em, header, quality=quality)
        np.testing.assert_array_equal(em, isothermal(3, 8))
        np.testing.assert_array_equal(quality, [[Quality.SATURATED, 0]])

    def test_nothing_is_lost_in_squares(self, cube):
        assert np.isfinite(np.nansum(cube.data**2))


class TestAxes:
    def test_log_t(self, cube):
        (log_t,) = cube.axis_world_coords(0)
        np.testing.assert_allclose(log_t.to_value(""), np.arange(55, 73) / 10, rtol=0, atol=1e-9)
        np.testing.assert_allclose(cube.log_t, np.arange(55, 73) / 10)

    def test_there_and_back(self, cube):
        log_t, sky = cube.wcs.pixel_to_world_values(3.2, 20.1, 7.0)[2], cube.wcs.pixel_to_world(3.2, 20.1, 7.0)[0]
        assert log_t == pytest.approx(6.2)
        assert isinstance(sky.frame, frames.Helioprojective)
        np.testing.assert_allclose(cube.wcs.world_to_pixel(sky, log_t * u.one), [3.2, 20.1, 7.0], atol=1e-6)

    def test_the_sky_is_that_of_the_maps(self, cube):
        smap = sample_maps((N, N))[0]
        sky = cube.wcs.pixel_to_world(4, 9, 0)[0]
        there = smap.pixel_to_world(4 * u.pix, 9 * u.pix)
        assert sky.Tx.to_value("arcsec") == pytest.approx(there.Tx.to_value("arcsec"), abs=1e-6)
        assert sky.Ty.to_value("arcsec") == pytest.approx(there.Ty.to_value("arcsec"), abs=1e-6)
        assert u.allclose(sky.observer.radius, there.observer.radius)
        assert sky.obstime.isot[:19] == there.obstime.isot[:19]


class TestSlicing:
    @pytest.mark.parametrize(
        "item",
        [
            np.s_[3:9],
            np.s_[-4:],
            np.s_[:-4],
            np.s_[:, 2:8, 5:20],
            np.s_[2:5, -10:-2, -5:],
            np.s_[..., 4:9],
            np.s_[2:9, ...],
            np.s_[1:4, ..., 2:7],
            np.s_[4:5, 5:6, 7:8],
            np.s_[:],
            np.s_[..., :],
            np.s_[:, :100],
            np.s_[np.int64(2) : np.int64(5)],
        ],
    )
    def test_what_keeps_its_axes_is_a_whole_cube(self, cube, item):
        part, sky = cube[item], np.zeros(cube.data.shape)[item].shape[1:]
        assert isinstance(part, DEMCube)
        np.testing.assert_array_equal(part.data, cube.data[item])
        np.testing.assert_array_equal(part.uncertainty.array, cube.uncertainty.array[item])
        np.testing.assert_array_equal(part.mask, cube.mask[item])
        for name in COMPANIONS:
            expected = np.broadcast_to(cube.meta[name], cube.data.shape)[item][0]
            np.testing.assert_array_equal(part.meta[name], expected)
        assert part.chi2.shape == part.quality.shape == part.intensity.shape[1:] == sky
        np.testing.assert_allclose(
            part.log_t, np.broadcast_to(cube.log_t[:, None, None], cube.data.shape)[item][:, 0, 0]
        )
        assert part.inputs == cube.inputs
        part.synthesize()

    def test_a_pixel_is_where_it_was(self, cube):
        part = cube[4:, 6:, -9:]
        here, there = part.wcs.pixel_to_world(1, 2, 3), cube.wcs.pixel_to_world(N - 9 + 1, 6 + 2, 4 + 3)
        assert here[0].separation(there[0]) < 1e-6 * u.arcsec
        assert here[1] == pytest.approx(there[1])

    @pytest.mark.parametrize(
        ("item", "shape"),
        [
            (np.s_[4,], (N, N)),
            (np.s_[-1,], (N, N)),
            (np.s_[np.int64(4),], (N, N)),
            (np.s_[:, 5], (18, N)),
            (np.s_[..., -2], (18, N)),
            (np.s_[:, 5, 7], (18,)),
            (np.s_[2:4, -3, 1:6], (2, 5)),
            (np.s_[3, 5, 2:], (N - 2,)),
        ],
    )
    def test_whole_numbers_drop_axes(self, cube, item, shape):
        part = cube[item]
        assert part.data.shape == part.uncertainty.array.shape == part.mask.shape == shape
        np.testing.assert_array_equal(part.data, cube.data[item])
        np.testing.assert_array_equal(part.mask, cube.mask[item])
        sky = item if item[0] is Ellipsis else item[1:]
        for name in COMPANIONS:
            np.testing.assert_array_equal(part.meta[name], cube.meta[name][sky])

    @pytest.mark.parametrize("item", [np.s_[30], np.s_[::2], None, np.s_[[1, 2]], "x"])
    def test_an_index_that_fails_leaves_the_cube_whole(self, cube, item):
        with pytest.raises(IndexError):
            cube[item]
        assert cube.chi2.shape == (N, N)

    def test_one_temperature_keeps_the_companions(self, cube):
        part = cube[4]
        np.testing.assert_array_equal(part.chi2, cube.chi2)
        np.testing.assert_array_equal(part.quality, cube.quality)

    def test_one_pixel_keeps_its_own_companions(self, cube):
        part = cube[:, 11, 13]
        assert part.chi2 == cube.chi2[11, 13]
        assert part.quality == cube.quality[11, 13]
        np.testing.assert_array_equal(part.intensity, cube.intensity[:, 11, 13])

    def test_slices_of_slices(self, cube):
        once, twice = cube[3:10, 4:20, 2:], cube[1:][2:9][:, 4:][..., 2:][:, :16]
        np.testing.assert_array_equal(once.data, twice.data)
        np.testing.assert_array_equal(once.chi2, twice.chi2)
        assert once.bins == twice.bins
        assert once.sky_header == twice.sky_header

    @pytest.mark.parametrize("item", [np.s_[::2], np.s_[::-1], np.s_[:, ::3], np.s_[..., 10:2:-1]])
    def test_steps_are_not_for_cubes(self, cube, item):
        with pytest.raises(IndexError, match="step 1"):
            cube[item]

    @pytest.mark.parametrize("item", [np.s_[5:5], np.s_[:, 9:3], np.s_[..., 100:]])
    def test_nothing_is_no_cube(self, cube, item):
        with pytest.raises(IndexError, match="not be empty"):
            cube[item]

    @pytest.mark.parametrize("item", [np.s_[20], np.s_[:, -30], np.s_[1, 2, 3, 4]])
    def test_out_of_range(self, cube, item):
        with pytest.raises((ValueError, IndexError)):
            cube[item]

    def test_crop_by_the_sky_and_temperature(self, cube):
        frame = cube.wcs.pixel_to_world(0, 0, 0)[0].frame
        corners = [SkyCoord(x * u.arcsec, y * u.arcsec, frame=frame) for x, y in ((-500, -300), (400, 600))]
        part = cube.crop([corners[0], 5.9 * u.one], [corners[1], 6.3 * u.one])
        np.testing.assert_allclose(part.log_t, [5.9, 6.0, 6.1, 6.2, 6.3])
        x, y = (
            part.wcs.pixel_to_world(*pixel, 0)[0]
            for pixel in ((0, 0), (part.data.shape[2] - 1, part.data.shape[1] - 1))
        )
        scale = 2457.6 / N
        assert abs(x.Tx.to_value("arcsec") + 500) < scale
        assert abs(y.Ty.to_value("arcsec") - 600) < scale
        assert part.chi2.shape == part.data.shape[1:]

    def test_a_cut_out_of_the_sky_gives_the_cut_out_maps(self, cube):
        whole, part = cube.synthesize(), cube[:, 3:15, -12:].synthesize()
        for there, here in zip(whole, part, strict=True):
            np.testing.assert_allclose(here.data, there.data[3:15, -12:], rtol=1e-12)
            expected = there.submap([N - 12, 3] * u.pix, top_right=[N - 1, 14] * u.pix)
            np.testing.assert_allclose(
                here.wcs.wcs_pix2world([[0, 0], [11, 11]], 0),
                expected.wcs.wcs_pix2world([[0, 0], [11, 11]], 0),
                atol=1e-9,
            )

    def test_parts_of_the_temperatures_add_up(self, cube):
        parts = [cube[part].synthesize() for part in (np.s_[:6], np.s_[6:11], np.s_[11:])]
        for index, smap in enumerate(cube.synthesize()):
            np.testing.assert_allclose(sum(part[index].data for part in parts), smap.data, rtol=1e-6)

    def test_what_needs_three_axes_says_so(self, cube):
        for what in ("bins", "log_t", "sky_header"):
            with pytest.raises(
                ValueError, match=r"needs the axes log T, y, x, found shape \(24, 24\). Slice with i:i\+1"
            ):
                getattr(cube[4], what)
        for what in ("synthesize", "observed_maps", "em_weighted_log_t"):
            with pytest.raises(ValueError, match="needs the axes log T, y, x"):
                getattr(cube[:, 4], what)()


class TestChi2:
    def test_by_hand(self, cube):
        y, x = 12, 9
        model = RESPONSE.matrix.value @ cube.data[:, y, x]
        residual = (model - cube.intensity.value[:, y, x]) / cube.intensity_uncertainty.value[:, y, x]
        assert cube.chi2[y, x] == pytest.approx(np.mean(residual**2), rel=1e-4)

    def test_of_a_perfect_fit(self, header):
        np.testing.assert_allclose(made(isothermal(4, 8, 12, 16), header).chi2, 0, atol=1e-10)

    def test_one_channel_off_by_three_sigma(self, header):
        em = isothermal(8)
        seen = synthetic_intensity(em[:, np.newaxis] * u.cm**-5, RESPONSE)
        sigma = 0.1 * (seen + 1 * INTENSITY_UNIT)
        off = seen.copy()
        off[3] += 3 * sigma[3]
        assert made(em, header, intensity=off).chi2[0, 0] == pytest.approx(9 / 6)

    def test_the_truth_fits_within_the_noise(self, cube):
        assert np.nanmedian(cube.chi2) < 1


class TestQuality:
    def flagged(self, cube):
        return [Quality(int(value)) for value in cube.quality[0]]

    def test_edge(self, header):
        em = isothermal(0, 1, 2, 15, 16, 17)
        flags = self.flagged(made(em, header))
        assert [Quality.EDGE in flag for flag in flags] == [True, True, False, False, True, True]

    def test_edge_is_a_quarter(self, header):
        em = isothermal(8, 8, 8, total=0.76e27)
        em[0, 0], em[0, 1:], em[17, 2] = 0.24e27, 0.13e27, 0.13e27
        em[1, 1] = 0.13e27
        assert [Quality.EDGE in flag for flag in self.flagged(made(em, header))] == [False, True, False]

    def test_no_emission_has_no_edge(self, header):
        assert self.flagged(made(np.zeros((18, 1)), header)) == [Quality(0)]

    def test_high_chi2(self, header):
        em = isothermal(8, 8)
        seen = synthetic_intensity(em[:, np.newaxis] * u.cm**-5, RESPONSE)
        off = seen * [1, 1.5]
        flags = self.flagged(made(em, header, intensity=off, sigma=0.1))
        assert [Quality.HIGH_CHI2 in flag for flag in flags] == [False, True]

    def test_flags_of_the_stack_are_kept(self, header):
        saturated, missing = Quality.SATURATED | Quality.PARTIAL, Quality.MISSING | Quality.FEW_CHANNELS
        quality = np.array([[Quality.NEGATIVE, Quality.LOW_SIGNAL, saturated, missing, 0]])
        cube = made(isothermal(8, 8, 8, 8, 8), header, quality=quality)
        np.testing.assert_array_equal(cube.quality, quality)
        assert cube.mask[0, 0].tolist() == [False, False, False, True, False]

    def test_what_is_not_a_number_is_missing(self, header):
        em = isothermal(8, 8, 8, 8)
        em[3, 1] = np.nan
        intensity = synthetic_intensity(isothermal(8, 8, 8, 8)[:, np.newaxis] * u.cm**-5, RESPONSE)
        intensity[:, 0, 2] = intensity[5, 0, 3] = np.nan
        cube = made(em, header, intensity=intensity, uncertainty=np.ones((6, 1, 4)) * INTENSITY_UNIT)
        assert [Quality.UNSOLVED in flag for flag in self.flagged(cube)] == [False, True, False, False]
        assert [Quality.MISSING in flag for flag in self.flagged(cube)] == [False, False, True, False]
        assert cube.mask[:, 0].all(axis=0).tolist() == [False, True, True, False]

    def test_in_a_cube_of_maps(self, cube):
        assert cube.quality[5, 7] == Quality.MISSING | Quality.FEW_CHANNELS
        assert cube.quality[20, 3] & Quality.SATURATED
        assert not cube.quality[20, 3] & Quality.MISSING


class TestMaps:
    def test_observed_maps_are_what_was_inverted(self, cube):
        maps = cube.observed_maps()
        assert all(isinstance(smap, AIAMap) for smap in maps)
        for smap, g, synthetic in zip(maps, cube.intensity.value, cube.synthesize(), strict=True):
            np.testing.assert_array_equal(smap.data, g)
            np.testing.assert_array_equal(smap.mask, cube.mask[0])
            assert smap.unit == u.DN / u.s
            assert smap.wavelength == synthetic.wavelength
            assert smap.wcs.wcs.compare(synthetic.wcs.wcs, tolerance=1e-12)
            assert "content" not in smap.meta

    def test_em_weighted_log_t(self, header):
        em = isothermal(5, 10, 5, 0)
        em[10, 2] = 3e27
        em[:, 3] = 0
        weighted = made(em, header).em_weighted_log_t().data[0]
        np.testing.assert_allclose(weighted, [6.0, 6.5, (6.0 + 3 * 6.5) / 4, np.nan])


class TestErrors:
    @pytest.mark.parametrize("name", ["em_std", "intensity", "uncertainty", "em", "quality"])
    def test_shapes_must_fit(self, header, name):
        shape = {"em": (17, 1, 3), "em_std": (18, 1, 4), "quality": (1, 4)}.get(name, (6, 1, 4))
        arrays = {"em": np.ones((18, 1, 3)), "em_std": None, "quality": None}
        arrays |= {key: np.ones((6, 1, 3)) * INTENSITY_UNIT for key in ("intensity", "uncertainty")}
        arrays[name] = np.ones(shape, dtype=int) * (INTENSITY_UNIT if shape[0] == 6 else 1)
        em, em_std = arrays.pop("em"), arrays.pop("em_std")
        with pytest.raises(ValueError, match=rf"^{name} must have shape .*found"):
            cube_from_arrays(em, em_std, RESPONSE, header, [{}] * 6, **arrays)

    def test_a_spectrum_is_no_cube(self, header):
        g = np.ones(6) * INTENSITY_UNIT
        with pytest.raises(ValueError, match=r"em must have shape \(bins, ny, nx\), found \(18,\)"):
            cube_from_arrays(np.ones(18), None, RESPONSE, header, [{}] * 6, intensity=g, uncertainty=g)


class TestProducts:
    def test_dem_and_em_are_the_same_thing(self, cube):
        dem = cube.dem
        assert dem.unit == u.cm**-5 / u.K
        np.testing.assert_allclose(cube.bins.dem_to_em(dem).value, cube.data, rtol=1e-15)
        # By hand: the bin at log T 6.0 is 10^6.05 - 10^5.95 K wide.
        np.testing.assert_allclose(dem.value[5], cube.data[5] / (10**6.05 - 10**5.95))
        np.testing.assert_allclose(cube.em_per_dex.value, cube.data / 0.1)
        np.testing.assert_allclose(cube.em_per_dex * cube.bins.step, cube.data << cube.unit, rtol=1e-15)

    def test_a_dem_of_other_bins(self):
        with pytest.raises(ValueError, match="em must have the 18 bins"):
            LogTBins().em_to_dem(np.ones((17, 2)) * u.cm**-5)
        with pytest.raises(u.UnitsError):
            LogTBins().em_to_dem(np.ones((18, 2)) * u.cm**-3)

    def test_one_bin_as_a_map(self, cube):
        smap = cube.bin_map(6.04)
        np.testing.assert_array_equal(smap.data, cube.data[5])
        assert smap.unit == u.cm**-5
        np.testing.assert_array_equal(smap.data, cube[5:6].bin_map(6.0).data)
        # An edge belongs to the upper bin.
        assert [cube.bin_map(log_t).meta["content"][-12:] for log_t in (5.45, 6.05)] == ["5.45 to 5.55", "6.05 to 6.15"]
        for log_t in (5.4, 7.26):
            with pytest.raises(ValueError, match=r"within the cube's bins, from 5.45 to 7.25"):
                cube.bin_map(log_t)

    def test_bands_add_up(self, cube):
        bands = [(None, 6.05), (6.05, 6.35), (6.35, 6.65), (6.65, None)]
        parts = [cube.total_em(*band) for band in bands]
        np.testing.assert_allclose(sum(part.data for part in parts), cube.total_em().data)
        np.testing.assert_allclose(cube.total_em().data, cube.data.sum(axis=0))

    @pytest.mark.parametrize(
        ("low", "high", "message"),
        [
            (5.4, None, "within the cube's bins, from 5.45 to 7.25, found 5.4 and 7.25"),
            (None, 7.3, "within the cube's bins"),
            (6.35, 6.05, "low must be below high"),
            (6.2, 6.2, "low must be below high"),
            (np.nan, None, "low must be below high"),
        ],
    )
    def test_bands_that_make_no_sense(self, cube, low, high, message):
        with pytest.raises(ValueError, match=message):
            cube.total_em(low, high)

    def test_a_map_knows_where_it_is(self, cube):
        smap, observed = cube.total_em(), cube.synthesize()[0]
        assert u.allclose(smap.observer_coordinate.radius, observed.observer_coordinate.radius, rtol=1e-9)
        assert u.allclose(smap.scale.axis1, observed.scale.axis1)


def test_a_cube_comes_out_of_a_pickle():
    """As it does from another process."""
    cube = true_cube(n=8)
    again = pickle.loads(pickle.dumps(cube))
    np.testing.assert_array_equal(again.data, cube.data)
    np.testing.assert_array_equal(again[:, 2:4, 5:].chi2, cube.chi2[2:4, 5:])
    assert again.meta["provenance"] == cube.meta["provenance"]
    plain = pickle.loads(pickle.dumps(DEMCube(cube.data, wcs=cube.wcs, meta={"who": "me"})))
    assert plain.meta == {"who": "me"}


@pytest.mark.parametrize("name", ["_slice_wcs", "_mask", "_meta"])
def test_private_names_of_ndcube_exist(cube, name):
    """`DEMCube` overrides or stores these, so that a version of ndcube without them must be noticed."""
    assert hasattr(NDCube(cube.data, wcs=cube.wcs, meta=cube.meta), name)
