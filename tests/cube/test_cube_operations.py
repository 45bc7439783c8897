"""Operations on cubes are compared with the same operations on maps, such as rebinning, reprojection and crops."""

from dataclasses import replace

import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np
import pytest
import sunpy.map
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import NDData, StdDevUncertainty
from helpers import changed, spoiled, true_cube
from ndcube import NDCube
from sunpy.map.header_helper import make_fitswcs_header
from sunpy.util.exceptions import SunpyUserWarning

from sunpy_deepem import CHANNELS, ChannelStack, DEMCube, LogTBins, Quality, TemperatureResponse
from sunpy_deepem.forward import chi_squared
from sunpy_deepem.quality import MASKED
from sunpy_deepem.sample import sample_maps

N = 24
#: Their pixel (5, 7) has no data at 171 Å, and (20, 3) is saturated.
MISSING, SATURATED = (5, 7), (20, 3)


@pytest.fixture(scope="module")
def maps():
    return [spoiled(smap, {MISSING: np.nan, SATURATED: 16000}) for smap in sample_maps((N, N))]


@pytest.fixture(scope="module")
def cube(maps):
    return true_cube(maps, N)


def with_saturation(cube, fraction):
    """Return a cube with other fractions of saturated pixels."""
    return cube.with_planes(replace(cube.planes, saturation=fraction))


def blocks(image, fy, fx):
    """The mean of blocks of pixels."""
    *more, ny, nx = image.shape
    return image.reshape(*more, ny // fy, fy, nx // fx, fx).mean(axis=(-3, -1))


def assert_consistent(cube):
    """Derived properties follow the data of the new cube."""
    expected = chi_squared(cube.data << cube.unit, cube.intensity, cube.intensity_uncertainty, cube.response)
    np.testing.assert_allclose(cube.chi2, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal((cube.quality & Quality.HIGH_CHI2) != 0, cube.chi2 > 3)
    masked = (cube.quality & MASKED) != 0
    np.testing.assert_array_equal(cube.mask, np.broadcast_to(masked, cube.data.shape))
    np.testing.assert_array_equal(np.isnan(cube.data), cube.mask)
    assert cube.meta["chi2"].shape == cube.data.shape[1:] == tuple(cube.meta.data_shape[1:])
    assert len(cube.bins) == cube.data.shape[0]


def assert_same(one, other, rtol=0.0):
    assert one.unit == other.unit
    assert one.bins == other.bins
    for a, b in [
        (one.data, other.data),
        (one.uncertainty.array, other.uncertainty.array),
        (one.mask, other.mask),
        (one.chi2, other.chi2),
        (one.quality, other.quality),
        (one.saturation, other.saturation),
        (one.intensity.value, other.intensity.value),
        (one.intensity_uncertainty.value, other.intensity_uncertainty.value),
    ]:
        np.testing.assert_allclose(a, b, rtol=rtol)


def without_zeros(cube):
    """The same with some EM in every bin."""
    return DEMCube(cube.data + 1e25, wcs=cube.wcs, uncertainty=cube.uncertainty, mask=cube.mask, meta=cube.meta)


class TestRebin:
    @pytest.mark.parametrize(("fy", "fx"), [(2, 2), (3, 1), (1, 4), (24, 24)])
    def test_the_sky_as_the_maps(self, cube, fy, fx):
        part = cube.rebin((1, fy, fx))
        assert isinstance(part, DEMCube)
        assert_consistent(part)
        for ours, theirs in zip(part.synthesize(), cube.synthesize(), strict=True):
            expected = blocks(theirs.data, fy, fx)
            np.testing.assert_allclose(ours.data, expected, rtol=1e-12)
        for ours, theirs in zip(part.observed_maps(), cube.observed_maps(), strict=True):
            masked = np.where(theirs.mask, np.nan, theirs.data)
            np.testing.assert_allclose(ours.data, blocks(masked, fy, fx), rtol=1e-6)
            assert u.allclose(ours.scale.axis1, fx * theirs.scale.axis1)
            assert u.allclose(ours.scale.axis2, fy * theirs.scale.axis2)

    def test_maps_know_where_they_are(self, cube):
        ours, theirs = cube.rebin((1, 4, 2)).synthesize()[0], cube.synthesize()[0].resample([12, 6] * u.pix)
        for pixel in ((0, 0), (11, 5), (3.2, 1.5)):
            here, there = (smap.pixel_to_world(*pixel * u.pix) for smap in (ours, theirs))
            assert here.separation(there) < 1e-6 * u.arcsec

    def test_oblong_pixels_of_a_rotated_cube(self, cube):
        cos, sin = np.cos(0.3), np.sin(0.3)
        header = cube.sky_header | {"pc1_1": cos, "pc1_2": -sin, "pc2_1": sin, "pc2_2": cos}
        turned = cube.reproject_to(sunpy.map.Map(np.zeros((N, N)), header).wcs)
        part = turned.rebin((1, 4, 2))
        # The corner of a pixel is one of the corners of those it was made of.
        corner = part.wcs.wcs_pix2world([[-0.5, -0.5, 0], [1.5, 2.5, 0]], 0)
        np.testing.assert_allclose(corner, turned.wcs.wcs_pix2world([[-0.5, -0.5, 0], [3.5, 11.5, 0]], 0), atol=1e-9)

    def test_what_was_observed_is_that_of_binned_maps(self):
        rng = np.random.default_rng(2)
        errors = [StdDevUncertainty(rng.uniform(1, 9, (N, N))) for _ in CHANNELS]
        maps = [
            sunpy.map.Map(smap.data, smap.meta, uncertainty=error)
            for smap, error in zip(sample_maps((N, N)), errors, strict=True)
        ]
        part, stack = true_cube(maps, N).rebin((1, 2, 3)), ChannelStack.from_maps(maps, shape=(N // 2, N // 3))
        np.testing.assert_allclose(part.intensity, stack.intensity, rtol=1e-5)
        np.testing.assert_allclose(part.intensity_uncertainty, stack.uncertainty, rtol=1e-5)
        of_signal = Quality.LOW_SIGNAL | Quality.NEGATIVE
        np.testing.assert_array_equal(part.quality & of_signal, stack.quality & of_signal)

    def test_noise_averages_out_and_systematic_error_does_not(self, cube):
        part = cube.rebin((1, 3, 3))
        before, after = cube.intensity_uncertainty.value, part.intensity_uncertainty.value
        g, mean = cube.intensity.value.astype(float), part.intensity.value
        noise = blocks(before.astype(float) ** 2 - (0.1 * g) ** 2, 3, 3) / 9
        good = ~part.sky_mask
        np.testing.assert_allclose(after[:, good], np.sqrt(noise + (0.1 * mean) ** 2)[:, good], rtol=1e-5)

    def test_the_standard_deviation_of_em_is_averaged(self, cube):
        part = cube.rebin((1, 3, 3))
        good = ~part.sky_mask
        np.testing.assert_allclose(
            part.uncertainty.array[:, good], blocks(cube.uncertainty.array, 3, 3)[:, good], rtol=1e-12
        )
        assert cube.rebin((1, 3, 3), propagate_uncertainties=False).uncertainty is None

    def test_saturated_fractions_are_averaged(self):
        fraction = np.zeros((N, N), np.float32)
        fraction[4, 6], fraction[5, 8] = 1, 0.5
        part = with_saturation(true_cube(n=N), fraction).rebin((1, 2, 3))
        np.testing.assert_allclose(part.saturation, blocks(fraction, 2, 3))
        assert part.saturation[2, 2] == pytest.approx(1.5 / 6)

    def test_bins_of_log_t_are_summed(self, cube):
        part = cube.rebin((3, 1, 1))
        assert_consistent(part)
        assert part.bins == LogTBins(first=5.6, step=0.3, n=6)
        np.testing.assert_array_equal(part.bins.edges, cube.bins.edges[::3])
        np.testing.assert_allclose(part.data[2], cube.data[6:9].sum(axis=0))
        variance = np.where(part.mask[2], np.nan, (cube.uncertainty.array[6:9] ** 2).sum(axis=0))
        np.testing.assert_allclose(part.uncertainty.array[2] ** 2, variance)
        np.testing.assert_array_equal(part.intensity, np.where(part.sky_mask, np.nan, cube.intensity))
        np.testing.assert_array_equal(part.quality | 24, cube.quality | 24)
        np.testing.assert_allclose(part.total_em().data, cube.total_em().data)
        # Limits between edges of the old bins are inside new bins, which count in part.
        np.testing.assert_allclose(part.total_em(6.05, 6.2).data, part.data[2] / 2)

    def test_what_is_uniform_in_wider_bins_gives_the_same_maps(self, cube):
        em = np.repeat(cube.data[::3], 3, axis=0)
        flat = DEMCube(em, wcs=cube.wcs, mask=cube.mask, meta=cube.meta)
        for ours, theirs in zip(flat.rebin((3, 1, 1)).synthesize(), flat.synthesize(), strict=True):
            np.testing.assert_allclose(ours.data, theirs.data, rtol=1e-4)

    def test_the_response_is_folded_onto_wider_bins(self, cube):
        part = cube.rebin((2, 1, 1))
        assert part.response == TemperatureResponse.default(bins=LogTBins(first=5.55, step=0.2, n=9))

    def test_both_at_once(self, cube):
        part = cube.rebin((2, 3, 3))
        assert_consistent(part)
        assert_same(part, cube.rebin((1, 3, 3)).rebin((2, 1, 1)), rtol=1e-6)
        np.testing.assert_allclose(part.data, cube.rebin((2, 1, 1)).rebin((1, 3, 3)).data)

    def test_what_a_masked_pixel_goes_into(self, cube):
        part = cube.rebin((1, 2, 2))
        assert np.argwhere(part.sky_mask).tolist() == [[2, 3], [10, 1]]
        assert Quality.MISSING in Quality(int(part.quality[2, 3]))
        assert Quality.SATURATED in Quality(int(part.quality[10, 1]))
        assert part.saturation[10, 1] == cube.saturation[20:22, 2:4].mean()

    def test_the_mean_of_what_is_not_masked(self, cube):
        part = cube.rebin((1, 2, 2), handle_mask=np.all)
        assert_consistent(part)
        assert not part.mask.any()
        np.testing.assert_allclose(part.data[:, 2, 3], np.nanmean(cube.data[:, 4:6, 6:8], axis=(1, 2)))
        for row, smap in enumerate(part.observed_maps()):
            three = [cube.intensity.value[row, y, x] for y, x in ((20, 2), (21, 2), (21, 3))]
            assert smap.data[10, 1] == pytest.approx(np.mean(three), rel=1e-6)

    def test_a_mask_that_the_user_sets(self, cube):
        part = cube[:]
        part.mask = part.chi2 > np.nanmedian(part.chi2)
        assert part.mask.shape == part.data.shape
        everything, some = cube.rebin((1, -1, -1), handle_mask=np.all), part.rebin((1, -1, -1), handle_mask=np.all)
        kept = ~part.sky_mask & ~cube.sky_mask
        np.testing.assert_allclose(some.data[:, 0, 0], cube.data[:, kept].mean(axis=1))
        assert not np.allclose(some.data, everything.data)
        assert part.synthesize()[0].mask.sum() == part.sky_mask.sum()
        part.mask = None
        assert not part.sky_mask.any()
        part.synthesize()

    @pytest.mark.parametrize(
        "bin_shape", [(5, 1, 1), (1, 7, 1), (2, 2), (1, 0, 1), (1, -2, 1), (1, 2, 48), 2, (1, 1, 1, 1)]
    )
    def test_bin_shapes_that_do_not_fit(self, cube, bin_shape):
        with pytest.raises(ValueError, match=r"^bin_shape must hold .* \(18, 24, 24\), found"):
            cube.rebin(bin_shape)

    def test_bin_shapes_that_do(self, cube):
        assert cube.rebin((1, 1, 1)) is cube
        assert cube.rebin([1, 2, 2] * u.pix).shape == cube.rebin((1, 2.0, 2)).shape == (18, 12, 12)
        assert cube.rebin((-1, -1, 1)).shape == (1, 1, 24)

    def test_operations(self, cube):
        assert_same(cube.rebin((1, 2, 2), np.mean), cube.rebin((1, 2, 2)))
        assert_same(cube.rebin((2, 1, 1), operation=np.sum), cube.rebin((2, 1, 1)))
        for bin_shape, operation in (((1, 2, 2), np.sum), ((2, 1, 1), np.mean), ((2, 2, 2), np.sum)):
            with pytest.raises(ValueError, match=r"operation must be numpy\.mean over the sky"):
                cube.rebin(bin_shape, operation)

    def test_a_cube_cut_in_log_t_has_no_chi2(self, cube):
        with pytest.warns(
            SunpyUserWarning, match="no chi2, which are NaN, as the cube lacks a part of the log T range"
        ) as warned:
            part = cube[4:10].rebin((1, 2, 2))
        assert [one.filename for one in warned] == [__file__]
        assert np.isnan(part.chi2).all()
        whole = cube.rebin((1, 2, 2))[4:10]
        np.testing.assert_array_equal(part.data, whole.data)
        np.testing.assert_array_equal(part.intensity, whole.intensity)
        assert part.sky_header == whole.sky_header

    def test_history(self, cube):
        assert "history" not in cube.meta["provenance"]
        history = cube.rebin((1, 2, 2)).rebin((2, 1, 1)).meta["provenance"]["history"]
        assert history == ["rebinned by (1, 2, 2)", "rebinned by (2, 1, 1)"]

    def test_only_of_three_axes(self, cube):
        with pytest.raises(ValueError, match="rebin needs the axes log T, y, x"):
            cube[4].rebin((2, 2))


class TestReproject:
    @pytest.fixture(scope="class")
    @classmethod
    def target(cls, cube):
        """A rotated map of part of the Sun, with smaller pixels."""
        header = dict(cube.sky_header)
        header |= {"crval1": 100.0, "crval2": -50.0, "crpix1": 15.0, "crpix2": 10.0, "cdelt1": 60.0, "cdelt2": 60.0}
        header |= {"pc1_1": np.cos(0.2), "pc1_2": -np.sin(0.2), "pc2_1": np.sin(0.2), "pc2_2": np.cos(0.2)}
        return sunpy.map.Map(np.zeros((20, 30)), header)

    def test_as_the_maps(self, cube, target):
        part = cube.reproject_to(target.wcs)
        assert isinstance(part, DEMCube)
        assert part.shape == (18, 20, 30)
        assert_consistent(part)
        for ours, theirs in zip(part.synthesize(), cube.synthesize(), strict=True):
            theirs = theirs.reproject_to(target.wcs)
            # A map without a value in one pixel has none in four.
            known = np.isfinite(theirs.data)
            assert 500 < known.sum() < 600
            np.testing.assert_allclose(ours.data[known], theirs.data[known], rtol=1e-4)
            pixels = [[0, 0], [29, 19], [3, 4]]
            np.testing.assert_allclose(
                ours.wcs.wcs_pix2world(pixels, 0), theirs.wcs.wcs_pix2world(pixels, 0), rtol=0, atol=1e-9
            )

    def test_back_to_itself(self, cube):
        part = cube.reproject_to(cube.wcs, shape_out=(N, N))
        np.testing.assert_allclose(part.data, cube.data, rtol=1e-6, atol=1e17)
        np.testing.assert_allclose(part.chi2, cube.chi2, rtol=1e-4)
        np.testing.assert_array_equal(part.quality, cube.quality)

    @pytest.mark.parametrize("kind", ["header", "dict", "of a cube", "shape_out"])
    def test_targets(self, cube, target, kind):
        expected = cube.reproject_to(target.wcs)
        header = dict(target.fits_header) | {"NAXIS": 2, "NAXIS1": 30, "NAXIS2": 20}
        if kind == "of a cube":
            part = cube.reproject_to(expected.wcs, shape_out=(18, 20, 30))
        elif kind == "shape_out":
            part = cube.reproject_to(target.wcs, shape_out=(10, 12))
            expected = expected[:, :10, :12]
        else:
            part = cube.reproject_to(fits.Header(header) if kind == "header" else header)
        np.testing.assert_allclose(part.data, expected.data, rtol=1e-6)

    @pytest.mark.parametrize("algorithm", ["adaptive", "exact"])
    def test_coarser_pixels(self, algorithm):
        cube = true_cube(n=N)
        coarse = cube.rebin((1, 3, 3))
        part = cube.reproject_to(coarse.wcs, algorithm=algorithm, shape_out=(8, 8))
        ours, theirs = part.total_em(), cube.total_em().reproject_to(part.total_em().wcs, algorithm=algorithm)
        known = np.isfinite(ours.data) & np.isfinite(theirs.data)
        assert known.sum() > 15  # The kernel of adaptive must not reach beyond the edge
        np.testing.assert_allclose(ours.data[known], theirs.data[known], rtol=5e-3)

    def test_a_pixel_of_which_less_than_half_is_known_is_missing(self):
        cube = true_cube(n=N)
        lost = np.ones((N, N), dtype=bool)
        # Of the first coarse pixel one of nine is left, in its middle; of the next, six.
        lost[1, 1] = lost[:2, 3:6] = lost[3:] = lost[:3, 6:] = False
        cube.mask = lost
        part = cube.reproject_to(cube.rebin((1, 3, 3)).wcs, algorithm="exact", shape_out=(8, 8))
        assert np.argwhere(part.sky_mask).tolist() == [[0, 0]]
        assert part.quality[0, 0] & Quality.MISSING
        np.testing.assert_allclose(part.data[:, 0, 1], cube.data[:, :2, 3:6].mean(axis=(1, 2)), rtol=1e-4)

    def test_outside_is_missing(self, cube, target):
        part, footprint = cube.reproject_to(
            changed(target, crval1=1200.0, crval2=0.0).wcs, shape_out=(20, 30), return_footprint=True
        )
        outside = footprint[0] == 0
        assert 0.1 < outside.mean() < 0.9
        assert part.sky_mask[outside].all()
        assert ((part.quality[outside] & Quality.MISSING) != 0).all()
        assert_consistent(part)

    def test_another_observer(self, cube):
        # As seen from 20 degrees to the west the centre of the disc is elsewhere.
        header = cube.sky_header | {"hgln_obs": 20.0}
        part = cube.reproject_to(sunpy.map.Map(np.zeros((N, N)), header).wcs)
        assert 0.2 < part.sky_mask.mean() < 0.9
        assert part.synthesize()[0].observer_coordinate.lon.to_value("deg") == pytest.approx(20)

    def test_onto_a_map_of_the_whole_sun(self, cube):
        observer = cube.synthesize()[0].observer_coordinate
        header = make_fitswcs_header(
            (18, 36),
            SkyCoord(0, 0, unit="deg", frame="heliographic_stonyhurst", obstime=observer.obstime),
            scale=[10, 10] * u.deg / u.pix,
            projection_code="CAR",
        )
        part = cube.reproject_to(header | {"rsun_ref": cube.sky_header["rsun_ref"]})
        seen = ~part.sky_mask
        assert 0.4 < seen.mean() < 0.6
        smap = part.total_em()
        assert smap.coordinate_frame.name == "heliographic_stonyhurst"
        expected = cube.total_em().reproject_to(smap.wcs).data
        known = np.isfinite(expected) & seen
        np.testing.assert_allclose(smap.data[known], expected[known], rtol=1e-6)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"target_wcs": LogTBins()}, "two axes of the sky, found LogTBins"),
            ({"algorithm": "nearest"}, "'interpolation', 'adaptive', 'exact', found 'nearest'"),
            ({"shape_out": None}, "shape_out must be given"),
        ],
    )
    def test_what_makes_no_sense(self, cube, change, message):
        options = {"target_wcs": cube.wcs, "algorithm": "interpolation", "shape_out": (N, N)} | change
        with pytest.raises(ValueError, match=message):
            cube.reproject_to(**options)

    def test_another_log_t_axis(self, cube):
        with pytest.raises(ValueError, match="target_wcs must have the cube's own log T axis"):
            cube.reproject_to(cube[2:].wcs, shape_out=(N, N))

    def test_reference_pixel_of_the_log_t_axis(self, cube):
        wcs = cube.wcs.deepcopy()
        wcs.wcs.crpix[2] += 4
        wcs.wcs.crval[2] += 4 * cube.bins.step
        assert_same(cube.reproject_to(wcs, shape_out=(N, N)), cube.reproject_to(cube.wcs, shape_out=(N, N)))


class TestCrop:
    def test_as_a_submap(self, cube):
        frame = cube.wcs.pixel_to_world(0, 0, 0)[0].frame
        corners = [SkyCoord(x * u.arcsec, y * u.arcsec, frame=frame) for x, y in ((-480, -330), (420, 610))]
        part = cube.crop([corners[0], None], [corners[1], None])
        assert_consistent(part)
        for ours, theirs in zip(part.synthesize(), cube.synthesize(), strict=True):
            theirs = theirs.submap(corners[0], top_right=corners[1])
            np.testing.assert_allclose(ours.data, theirs.data, rtol=1e-12)
            assert (
                ours.pixel_to_world(0 * u.pix, 0 * u.pix).separation(theirs.pixel_to_world(0 * u.pix, 0 * u.pix))
                < 1e-6 * u.arcsec
            )

    def test_by_log_t_alone(self, cube):
        part = cube.crop([None, 5.9 * u.one], [None, 6.3 * u.one])
        np.testing.assert_allclose(part.log_t, [5.9, 6.0, 6.1, 6.2, 6.3])
        np.testing.assert_array_equal(part.chi2, cube.chi2)
        one = cube.crop([None, 6.2 * u.one], keepdims=True)
        np.testing.assert_array_equal(one.data, cube.data[7:8])
        one.synthesize()

    def test_by_values(self, cube):
        part = cube.crop_by_values(
            [-400 * u.arcsec, -300 * u.arcsec, 5.9 * u.one], [4, 3, 6.3], units=["arcsec"] * 2 + [""]
        )
        assert part.bins == LogTBins(5.9, 0.1, 5)
        part.synthesize()


class TestArithmetic:
    @pytest.mark.parametrize("factor", [2, -0.5, np.float32(3), 2 * u.one, 50 * u.percent, u.Quantity(2, "km/Mm")])
    def test_multiples_keep_everything(self, cube, factor):
        part = cube * factor
        number = u.Quantity(factor).to_value(u.one)
        em = (part.data << part.unit).to_value(u.cm**-5)
        np.testing.assert_allclose(em, cube.data * number)
        np.testing.assert_allclose(
            (part.uncertainty.array << part.unit).to_value(u.cm**-5), cube.uncertainty.array * abs(number)
        )
        np.testing.assert_allclose(part.intensity, cube.intensity * number, rtol=1e-6)
        np.testing.assert_allclose(part.intensity_uncertainty, cube.intensity_uncertainty * abs(number), rtol=1e-6)
        np.testing.assert_array_equal(part.chi2, cube.chi2)
        assert_consistent(part)
        for ours, theirs in zip(part.synthesize(), cube.synthesize(), strict=True):
            np.testing.assert_allclose(ours.data, number * theirs.data, rtol=1e-9)
        assert_same(factor * cube, part)

    def test_other_ways_to_say_it(self, cube):
        assert_same(-cube, cube * -1)
        assert_same(cube / 4, cube * 0.25)
        np.testing.assert_allclose((cube + cube).data, 2 * cube.data)
        np.testing.assert_allclose((cube - cube).data[~cube.mask], 0)

    def test_weights_of_pixels(self, cube):
        weights = np.random.default_rng(0).uniform(1, 2, (N, N))
        part = cube * weights
        assert_consistent(part)
        np.testing.assert_allclose(part.synthesize()[3].data, weights * cube.synthesize()[3].data)
        np.testing.assert_allclose((cube / weights).data, cube.data / weights)
        assert_same(cube * weights[np.newaxis], part)

    def test_sums_and_differences_of_cubes_as_those_of_maps(self, cube):
        other = 3 * cube.rebin((1, 1, 1))[:]
        for part, sign in ((cube + other, 1), (cube - other, -1)):
            assert_consistent(part)
            for ours, one, two in zip(part.synthesize(), cube.synthesize(), other.synthesize(), strict=True):
                np.testing.assert_allclose(ours.data, one.data + sign * two.data, rtol=1e-9)
            np.testing.assert_allclose(part.intensity, cube.intensity + sign * other.intensity)
            np.testing.assert_allclose(
                part.uncertainty.array, np.hypot(cube.uncertainty.array, other.uncertainty.array)
            )
            np.testing.assert_allclose(
                part.intensity_uncertainty, np.hypot(cube.intensity_uncertainty, other.intensity_uncertainty)
            )

    def test_saturated_fraction_is_the_larger_one(self):
        one, other = (with_saturation(true_cube(n=N), np.full((N, N), value)) for value in (0.2, 0.7))
        for part in (one + other, other + one, other - one):
            np.testing.assert_allclose(part.saturation, 0.7)

    def test_flags_and_masks_of_both(self, cube, maps):
        other = true_cube([spoiled(smap, {(9, 9): np.nan}) for smap in maps], N)
        part = cube + other
        assert set(map(tuple, np.argwhere(part.sky_mask))) == {MISSING, SATURATED, (9, 9)}
        assert_consistent(part)

    def test_the_mean_of_cubes(self, cube):
        mean = sum([cube, cube, 4 * cube]) / 3
        np.testing.assert_allclose(mean.data, 2 * cube.data)
        np.testing.assert_allclose(mean.chi2, cube.chi2 * 36 / 18, rtol=1e-4)
        assert mean.meta["provenance"]["history"][-1] == "over 3"

    @pytest.mark.parametrize(
        ("operation", "why"),
        [
            (lambda cube: cube * (3 * u.cm), "the data are no longer an EM"),
            (lambda cube: cube / (1 * u.Mm), "the data are no longer an EM"),
            (lambda cube: cube * np.linspace(0, 1, 18)[:, None, None], "scaled differently at different log T"),
            (lambda cube: cube + 1e26 * u.cm**-5, "no longer that of the observation"),
            (lambda cube: 1e36 * u.m**-5 - cube, "no longer that of the observation"),
            (lambda cube: cube**2, "the data are no longer an EM"),
            (lambda cube: 1 / cube, "the data are no longer an EM"),
            (lambda cube: cube / cube, "the data are no longer an EM"),
            (lambda cube: cube + NDData(cube.data, unit=cube.unit), "no longer that of the observation"),
        ],
    )
    def test_what_no_longer_holds_is_dropped_with_one_warning(self, cube, operation, why):
        cube = without_zeros(cube)
        with pytest.warns(
            SunpyUserWarning, match=f"no chi2 and observed intensities, which are NaN, as .*{why}"
        ) as warned:
            part = operation(cube)
        assert len(warned) == 1
        assert warned[0].filename == __file__
        assert isinstance(part, DEMCube)
        assert np.isnan(part.chi2).all()
        assert np.isnan(part.intensity.value).all()
        kept = Quality.MISSING | Quality.SATURATED | Quality.LOW_SIGNAL
        np.testing.assert_array_equal(part.quality & kept, cube.quality & kept)
        assert not (part.quality & Quality.HIGH_CHI2).any()
        np.testing.assert_array_equal(part.mask, cube.mask)
        assert np.isfinite(part.data[~part.mask]).all()
        assert np.isfinite(part.uncertainty.array[~part.mask]).all()
        assert part.bins == cube.bins

    @pytest.mark.filterwarnings("ignore:The new cube has no chi2")
    @pytest.mark.parametrize(
        "operation",
        [
            lambda cube, other: cube * (2 * u.cm),
            lambda cube, other: cube / (4 * u.s),
            lambda cube, other: cube + 1e31 * u.m**-5,
            lambda cube, other: 2e26 * u.cm**-5 - cube,
            lambda cube, other: cube - other,
            lambda cube, other: cube * other,
            lambda cube, other: cube / other,
            lambda cube, other: 3 / cube,
            lambda cube, other: cube**0.5,
        ],
    )
    def test_values_errors_and_units_are_those_of_ndcube_and_nddata(self, cube, operation):
        part, rng = without_zeros(cube[:, 10:14, 10:14]), np.random.default_rng(1)
        other = part * rng.uniform(0.5, 1.5, (4, 4))
        result = operation(part, other)
        values = operation(part.data << part.unit, other.data << other.unit)
        assert result.unit == values.unit
        np.testing.assert_allclose(result.data, values.value)
        # The errors against many draws of both.
        draws = [
            operation(
                rng.normal(part.data, 1e-3 * part.uncertainty.array) << part.unit,
                rng.normal(other.data, 1e-3 * other.uncertainty.array) << other.unit,
            ).to_value(result.unit)
            for _ in range(800)
        ]
        np.testing.assert_allclose(result.uncertainty.array, 1e3 * np.std(draws, axis=0), rtol=0.15)

    def test_units_are_converted(self, cube):
        part = cube.to("m-5")
        assert part.unit == u.m**-5
        np.testing.assert_allclose(part.data, cube.data * 1e10)
        np.testing.assert_allclose(part.uncertainty.array, cube.uncertainty.array * 1e10)
        np.testing.assert_allclose(part.intensity, cube.intensity, rtol=1e-6)
        assert_consistent(part)
        for name in ("synthesize", "residual_maps"):
            for ours, theirs in zip(getattr(part, name)(), getattr(cube, name)(), strict=True):
                np.testing.assert_allclose(ours.data, theirs.data, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            part.electron_density(1 * u.Mm).data, cube.electron_density(1 * u.Mm).data, rtol=1e-9
        )
        assert_consistent(part + cube)
        assert_consistent(part.rebin((1, 2, 2)))

    def test_slices(self, cube):
        for item in (np.s_[4], np.s_[:, 5], np.s_[:, 11, 12]):
            part = cube[item] * 2
            np.testing.assert_allclose(part.data, cube.data[item] * 2)
            np.testing.assert_array_equal(part.chi2, cube[item].chi2)
            np.testing.assert_allclose(part.intensity, 2 * cube[item].intensity)
        with pytest.warns(SunpyUserWarning, match="no chi2"):
            part = cube[4] + cube[4]
        np.testing.assert_allclose(part.data, 2 * cube.data[4])

    def test_other_responses(self, cube):
        other = cube[:]
        other.meta["response"] = TemperatureResponse.default(chiantifix=False)
        with pytest.warns(SunpyUserWarning, match="no chi2 and observed intensities"):
            part = cube + other
        np.testing.assert_allclose(part.data, 2 * cube.data)

    def test_other_pixels(self, cube):
        with pytest.raises(ValueError, match=r"same shape, found \(18, 24, 24\) and \(18, 24, 23\)"):
            cube + cube[..., 1:]
        with pytest.raises(ValueError, match=r"pixels that are 1 apart\. Use reproject_to"):
            cube[..., :-1] + cube[..., 1:]
        with pytest.raises(ValueError, match="pixels that are 1 apart"):
            cube[1:] + cube[:-1]

    def test_what_cubes_are_not_computed_with(self, cube):
        plain = NDCube(cube.data, wcs=cube.wcs, unit=cube.unit)
        with pytest.raises(TypeError, match="numbers, Quantities and DEMCubes, found NDCube"):
            cube + plain
        for other in ("x", None, cube.synthesize):
            with pytest.raises(TypeError, match="unsupported operand"):
                cube / other
            with pytest.raises(TypeError, match="unsupported operand"):
                other - cube
        with pytest.raises(u.UnitsError):
            cube + 1
        with pytest.raises(u.UnitsError):
            cube + 1 * u.s

    def test_the_original_is_left_alone(self, cube):
        before = cube.data.copy(), cube.chi2.copy(), cube.mask.copy()
        _ = (cube * 2, cube + cube, -cube, cube.rebin((1, 2, 2)))
        for array, now in zip(before, (cube.data, cube.chi2, cube.mask), strict=True):
            np.testing.assert_array_equal(array, now)
        assert "history" not in cube.meta["provenance"]


@pytest.mark.filterwarnings("ignore:The new cube has no chi2")
@pytest.mark.parametrize(
    "operation",
    [
        lambda cube: cube[:, 2:9, 4:],
        lambda cube: cube[3:9],
        lambda cube: cube.rebin((2, 3, 4)),
        lambda cube: cube.rebin((1, 2, 2), handle_mask=np.all),
        lambda cube: cube.reproject_to(cube.rebin((1, 2, 2)).wcs, shape_out=(12, 12)),
        lambda cube: 2 * cube - cube,
        lambda cube: cube + 1e26 * u.cm**-5,
    ],
    ids=["cutout", "log T", "rebinned", "rebinned without mask", "reprojected", "sum", "without a fit"],
)
def test_files_and_everything_that_follows(cube, operation, tmp_path):
    part = operation(cube)
    part.write(tmp_path / "cube.fits")
    again = DEMCube.read(tmp_path / "cube.fits")
    assert_same(again, part)
    assert again.meta["provenance"] == part.meta["provenance"]
    for ours, theirs in zip(again.synthesize(), part.synthesize(), strict=True):
        np.testing.assert_allclose(ours.data, theirs.data, rtol=1e-12)
    assert [smap.wavelength.value for smap in part.residual_maps()] == list(CHANNELS)
    assert part.curve().em.shape == part.bins.centers.shape
    _ = part.rebin((1, 1, 2))


class TestPlot:
    @pytest.fixture(autouse=True)
    def closed(self):
        yield
        plt.close("all")

    def test_a_slice_at_one_temperature(self, cube):
        axes = cube[4].plot()
        np.testing.assert_array_equal(axes.images[0].get_array().data, cube.data[4])
        axes.figure.canvas.draw()

    def test_all_temperatures(self, cube):
        pytest.importorskip("mpl_animators")
        animator = cube.plot()
        np.testing.assert_array_equal(animator.im.get_array().data, cube.data[0])

    def test_the_curve_of_a_pixel(self, cube):
        axes = cube[:, 11, 12].plot()
        np.testing.assert_allclose(axes.lines[0].get_ydata(), cube.data[:, 11, 12])
        axes.figure.canvas.draw()


def test_standard_deviations_of_other_kinds(cube):
    variance = StdDevUncertainty(cube.uncertainty.array).represent_as(type(cube.uncertainty))
    part = DEMCube(cube.data, wcs=cube.wcs, mask=cube.mask, meta=cube.meta, uncertainty=variance)
    np.testing.assert_allclose((part * 2).uncertainty.array, 2 * cube.uncertainty.array)
