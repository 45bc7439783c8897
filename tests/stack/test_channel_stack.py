"""Stacks of six maps: selection, calibration, binning and alignment."""

import threading
from importlib import resources
from types import MappingProxyType

import astropy.units as u
import numpy as np
import pytest
import sunpy.map
from aiapy.calibrate import degradation, estimate_error
from astropy.coordinates import SkyCoord
from astropy.nddata import StdDevUncertainty
from astropy.time import Time
from helpers import EXPOSURES, aia_map, blob, centroid, changed, six, world_grid
from sunpy.util.exceptions import SunpyUserWarning

from sunpy_deepem import CHANNELS, ChannelStack, Quality
from sunpy_deepem.calibrate import photometry
from sunpy_deepem.calibrate.tables import packaged_table
from sunpy_deepem.sample import sample_maps
from sunpy_deepem.units import INTENSITY_UNIT
from sunpy_deepem.utils.compat import get_correction_table, get_error_table

N = 32
OBSTIME = Time("2014-01-01")


@pytest.fixture(scope="module")
def sample():
    return sample_maps((N, N))


@pytest.fixture(scope="module")
def files(sample, tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps")
    for smap in sample:
        smap.save(folder / f"aia_{smap.wavelength.value:.0f}.fits")
    return folder


def packaged(name, reader):
    with resources.as_file(resources.files("sunpy_deepem.data") / name) as path:
        return reader(path)


def factor(channel, obstime=OBSTIME):
    table = packaged("aia_v10_degradation.ecsv", get_correction_table)
    return degradation(channel * u.angstrom, obstime, correction_table=table).to_value("")[0]


def noise(counts, channel, n_sample):
    errors = packaged("aia_v3_errors.ecsv", get_error_table)
    estimate = estimate_error(
        np.ravel(counts) * u.DN / u.pix, channel * u.angstrom, n_sample=n_sample, error_table=errors
    )
    return estimate.value.reshape(np.shape(counts))


def random_counts(shape=(16, 16), seed=1, mean=500):
    return np.random.default_rng(seed).gamma(4, mean / 4, size=shape).astype(np.float32)


def replaced(maps, channel, new):
    """Replace the map of ``channel`` by the function ``new`` of it."""
    return [new(smap) if round(smap.wavelength.value) == channel else smap for smap in maps]


def assert_same(one, other):
    np.testing.assert_array_equal(one.intensity, other.intensity)
    np.testing.assert_array_equal(one.uncertainty, other.uncertainty)
    np.testing.assert_array_equal(one.quality, other.quality)


class TestMaps:
    def test_result(self, sample):
        stack = ChannelStack.from_maps(sample)
        assert stack.intensity.shape == stack.uncertainty.shape == (6, N, N)
        assert stack.intensity.unit == stack.uncertainty.unit == INTENSITY_UNIT
        assert stack.quality.shape == stack.mask.shape == (N, N)
        assert [one["channel"] for one in stack.inputs] == list(CHANNELS)
        assert "2014-01-01" in repr(stack)

    @pytest.mark.parametrize("order", [(5, 4, 3, 2, 1, 0), (3, 0, 5, 1, 4, 2)])
    def test_order(self, sample, order):
        assert_same(ChannelStack.from_maps([sample[i] for i in order]), ChannelStack.from_maps(sample))

    @pytest.mark.parametrize("kind", [list, tuple, iter, lambda maps: (smap for smap in maps)])
    def test_containers(self, sample, kind):
        assert_same(ChannelStack.from_maps(kind(list(sample))), ChannelStack.from_maps(sample))

    @pytest.mark.parametrize(
        "source",
        [
            lambda folder: folder,
            str,
            lambda folder: list(folder.iterdir()),
            lambda folder: [str(path) for path in folder.iterdir()],
            lambda folder: (path for path in folder.iterdir()),
            lambda folder: sunpy.map.Map(list(folder.iterdir()), sequence=True),
        ],
        ids=["folder", "folder as str", "paths", "paths as str", "generator", "sequence"],
    )
    def test_files(self, sample, files, source):
        assert_same(ChannelStack.from_maps(source(files)), ChannelStack.from_maps(sample))

    def test_folder_with_other_files(self, sample, files, tmp_path):
        for path in files.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        (tmp_path / "notes.txt").write_text("a note")
        (tmp_path / "._aia_94.fits").write_bytes(b"a file of macOS")
        assert_same(ChannelStack.from_maps(tmp_path), ChannelStack.from_maps(sample))

    def test_missing_channels(self, sample):
        with pytest.raises(ValueError, match=r"found 4 maps, missing: 94 Å, 335 Å\."):
            ChannelStack.from_maps(sample[1:5])

    def test_no_maps(self):
        with pytest.raises(ValueError, match="found 0 maps, missing: 94 Å"):
            ChannelStack.from_maps([])

    def test_repeated_channels(self, sample):
        with pytest.raises(ValueError, match=r"more than once: 171 Å \(2 maps\)"):
            ChannelStack.from_maps([*sample, sample[2]])

    def test_other_channels(self, sample):
        foreign = aia_map(304, sample[0].data)
        with pytest.raises(ValueError, match=r"foreign: AIA.* 304 Angstrom; missing: 94 Å"):
            ChannelStack.from_maps([foreign, *sample[1:]])

    def test_other_instruments(self, sample):
        hmi = changed(sample[0], instrume="HMI_FRONT2", telescop="SDO/HMI", content="MAGNETOGRAM", bunit="Gauss")
        with pytest.raises(ValueError, match=r"foreign: HMI.*missing: 94 Å"):
            ChannelStack.from_maps([hmi, *sample[1:]])

    def test_single_map(self, sample):
        with pytest.raises(TypeError, match=r"six maps, found a single AIA 3 171"):
            ChannelStack.from_maps(sample[2])

    @pytest.mark.parametrize(("maps", "found"), [(None, "NoneType"), (6, "int"), (np.ones((6, 4, 4)), "ndarray")])
    def test_other_types(self, maps, found):
        with pytest.raises(TypeError, match=f"found {found}"):
            ChannelStack.from_maps(maps)

    def test_other_items(self, sample):
        with pytest.raises(TypeError, match="must contain sunpy maps or paths of files, found dict"):
            ChannelStack.from_maps([*sample[:5], {"data": 1}])

    def test_missing_files(self, files, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"nowhere\.fits"):
            ChannelStack.from_maps([*files.iterdir(), tmp_path / "nowhere.fits"])
        with pytest.raises(FileNotFoundError, match="nowhere"):
            ChannelStack.from_maps(tmp_path / "nowhere")

    def test_empty_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="contains no FITS file"):
            ChannelStack.from_maps(tmp_path)

    def test_single_file(self, files):
        with pytest.raises(FileNotFoundError, match=r"aia_94\.fits, which is not a folder"):
            ChannelStack.from_maps(files / "aia_94.fits")

    @pytest.mark.parametrize("content", [b"", b"not FITS at all", b"SIMPLE  =                    T"])
    def test_unreadable_files(self, files, tmp_path, content):
        (tmp_path / "broken.fits").write_bytes(content)
        with pytest.raises(ValueError, match=r"broken\.fits cannot be read as a map"):
            ChannelStack.from_maps([*files.iterdir(), tmp_path / "broken.fits"])


class TestTimes:
    def test_span(self, sample):
        late = changed(sample[5], **{"date-obs": "2014-01-01T00:01:10", "t_obs": "2014-01-01T00:01:11"})
        with pytest.raises(ValueError, match=r"maps span 69\.9 s, more than max_time_span=60 s: 94 Å 2014-01-01T00"):
            ChannelStack.from_maps([*sample[:5], late])
        assert (
            ChannelStack.from_maps([*sample[:5], late], max_time_span=2 * u.min).inputs[5]["date"].endswith("01:10.000")
        )

    def test_unit_of_span(self, sample):
        with pytest.raises(TypeError, match="max_time_span"):
            ChannelStack.from_maps(sample, max_time_span=60)


class TestExposure:
    def test_counts(self):
        counts = random_counts()
        stack = ChannelStack.from_maps(six(counts), degradation=None)
        for image, channel in zip(stack.intensity.value, CHANNELS, strict=True):
            np.testing.assert_allclose(image, counts / EXPOSURES[channel], rtol=1e-6)

    @pytest.mark.parametrize("unit", ["DN / s", "ct / s", "DN / (s pix)", "1 / s"])
    def test_rates(self, unit):
        counts = random_counts((6, 16, 16))
        rates = counts / np.array(list(EXPOSURES.values()), dtype=np.float32)[:, np.newaxis, np.newaxis]
        from_counts, from_rates = ChannelStack.from_maps(six(counts)), ChannelStack.from_maps(six(rates, bunit=unit))
        np.testing.assert_allclose(from_rates.intensity, from_counts.intensity, rtol=1e-6)
        # Noise is estimated from counts.
        np.testing.assert_allclose(from_rates.uncertainty, from_counts.uncertainty, rtol=1e-5)

    def test_rates_of_sunpy(self, sample):
        rates = [smap / smap.exposure_time for smap in sample]
        np.testing.assert_allclose(
            ChannelStack.from_maps(rates).intensity, ChannelStack.from_maps(sample).intensity, rtol=1e-6
        )

    @pytest.mark.parametrize("unit", ["DN", "ct", "DN / pix", "", None])
    def test_units_of_counts(self, unit):
        counts = random_counts()
        assert_same(ChannelStack.from_maps(six(counts, bunit=unit)), ChannelStack.from_maps(six(counts)))

    @pytest.mark.parametrize("unit", ["erg / (cm2 s)", "photon", "DN s", "K"])
    def test_unknown_units(self, sample, unit):
        with pytest.raises(ValueError, match=r"AIA 2 193.* map is in .*; expected DN, or DN / s"):
            ChannelStack.from_maps(replaced(sample, 193, lambda smap: changed(smap, bunit=unit)))

    @pytest.mark.parametrize("exposure", [0.0, -1.0, None])
    def test_invalid_exposure_time(self, sample, exposure):
        with pytest.raises(ValueError, match=r"AIA 2 193.* map has exposure time .*Set EXPTIME"):
            ChannelStack.from_maps(replaced(sample, 193, lambda smap: changed(smap, exptime=exposure)))

    def test_longer_exposure(self):
        counts = random_counts()
        once, twice = (
            six(counts),
            [changed(smap, data=2 * counts, exptime=2 * smap.meta["exptime"]) for smap in six(counts)],
        )
        once, twice = ChannelStack.from_maps(once, systematic=0), ChannelStack.from_maps(twice, systematic=0)
        np.testing.assert_allclose(twice.intensity, once.intensity, rtol=1e-6)
        assert (twice.uncertainty < once.uncertainty).all()

    def test_integers(self):
        counts = random_counts().astype(np.int16)
        assert_same(ChannelStack.from_maps(six(counts)), ChannelStack.from_maps(six(counts.astype(float))))


class TestNoise:
    @pytest.mark.parametrize(("scale", "n_sample"), [(0.6, 1), (2.4, 16), (4.8, 64)])
    def test_native_pixels(self, scale, n_sample):
        counts = random_counts()
        stack = ChannelStack.from_maps(six(counts, scale=scale), systematic=0, degradation=None)
        assert stack.meta["native_pixels"] == pytest.approx(n_sample)
        for sigma, channel in zip(stack.uncertainty.value, CHANNELS, strict=True):
            np.testing.assert_allclose(sigma, noise(counts, channel, n_sample) / EXPOSURES[channel], rtol=1e-5)

    def test_binned_with_systematic_error_and_degradation(self):
        counts = random_counts()
        stack = ChannelStack.from_maps(six(counts), systematic=0.2, shape=8)
        binned = counts.reshape(8, 2, 8, 2).mean(axis=(1, 3))
        for g, sigma, channel in zip(stack.intensity.value, stack.uncertainty.value, CHANNELS, strict=True):
            divisor = EXPOSURES[channel] * factor(channel)
            np.testing.assert_allclose(g, binned / divisor, rtol=1e-5)
            expected = np.hypot(noise(binned, channel, 64) / divisor, 0.2 * binned / divisor)
            np.testing.assert_allclose(sigma, expected, rtol=1e-5)

    def test_finer_than_native(self):
        assert ChannelStack.from_maps(six(random_counts(), scale=0.3)).meta["native_pixels"] == 1

    @pytest.mark.parametrize("systematic", [-0.1, 1.0, np.nan, "ten", None])
    def test_invalid_systematic(self, sample, systematic):
        with pytest.raises(ValueError, match="systematic must be a fraction"):
            ChannelStack.from_maps(sample, systematic=systematic)

    def test_own_uncertainty(self):
        counts, sigma = random_counts(), random_counts(seed=2, mean=20)
        maps = six(counts, uncertainty=StdDevUncertainty(sigma))
        stack = ChannelStack.from_maps(maps, systematic=0, degradation=None)
        np.testing.assert_allclose(stack.uncertainty[0].value, sigma / EXPOSURES[94], rtol=1e-6)
        assert all(one["own_uncertainty"] for one in stack.inputs)

    def test_unit_of_own_uncertainty(self):
        counts, sigma = random_counts(), random_counts(seed=2, mean=20)
        maps = six(counts / 2, uncertainty=StdDevUncertainty(sigma / 2), bunit="DN / s", exptime=2)
        stack = ChannelStack.from_maps(maps, systematic=0, degradation=None)
        np.testing.assert_allclose(stack.uncertainty.value[0], sigma / 2, rtol=1e-6)

    @pytest.mark.parametrize("shape", [8, 4])
    def test_binned_own_uncertainty(self, shape):
        maps = six(random_counts(), uncertainty=StdDevUncertainty(np.full((16, 16), 12.0)))
        stack = ChannelStack.from_maps(maps, shape=shape, systematic=0, degradation=None)
        np.testing.assert_allclose(stack.uncertainty.value[2], 12 / (16 / shape) / EXPOSURES[171], rtol=1e-6)

    def test_pixel_without_sigma(self):
        sigma = np.full((16, 16), 12.0)
        sigma[3, 4], sigma[5, 6] = np.nan, 0
        maps = six(random_counts(), uncertainty=StdDevUncertainty(sigma))
        stack = ChannelStack.from_maps(maps, systematic=0)
        assert np.argwhere(stack.mask).tolist() == [[3, 4], [5, 6]]
        assert (stack.uncertainty[:, ~stack.mask] > 0).all()


class TestDegradation:
    @pytest.mark.parametrize("obstime", ["2010-09-01", "2014-01-01", "2020-06-01"])
    def test_same_as_aiapy(self, obstime):
        maps = six(random_counts(), **{"date-obs": obstime})
        corrected, raw = ChannelStack.from_maps(maps), ChannelStack.from_maps(maps, degradation=None)
        for index, channel in enumerate(CHANNELS):
            expected = factor(channel, Time(obstime))
            np.testing.assert_allclose(corrected.intensity[index], raw.intensity[index] / expected, rtol=1e-6)
            np.testing.assert_allclose(corrected.uncertainty[index], raw.uncertainty[index] / expected, rtol=1e-5)
            assert corrected.inputs[index]["degradation"] == pytest.approx(expected)
            assert raw.inputs[index]["degradation"] == 1
        assert (corrected.meta["degradation"], raw.meta["degradation"]) == ("data", None)

    @pytest.mark.parametrize("epoch", [Time("2012-05-01"), "2012-05-01"])
    def test_epoch(self, epoch):
        stack = ChannelStack.from_maps(six(random_counts()), epoch=epoch)
        for one in stack.inputs:
            expected = factor(one["channel"]) / factor(one["channel"], Time(epoch))
            assert one["degradation"] == pytest.approx(expected)
        assert stack.meta["epoch"].startswith("2012-05-01")

    def test_epoch_of_the_observation(self):
        stack = ChannelStack.from_maps(six(random_counts()), epoch=OBSTIME)
        assert [one["degradation"] for one in stack.inputs] == pytest.approx([1] * 6)

    def test_given_table(self, sample):
        table = packaged("aia_v10_degradation.ecsv", get_correction_table)
        stack = ChannelStack.from_maps(sample, correction_table=table)
        assert_same(stack, ChannelStack.from_maps(sample))
        assert stack.meta["correction_table"] == "table given by the user"

    def test_before_launch(self):
        with pytest.raises(ValueError, match="2009-01-01"):
            ChannelStack.from_maps(six(random_counts(), **{"date-obs": "2009-01-01"}))


class TestBinning:
    @pytest.mark.parametrize("size", [2, 4, 8])
    def test_whole_factors(self, size):
        counts = random_counts()
        n = 16 // size
        stack = ChannelStack.from_maps(six(counts), shape=n, degradation=None)
        blocks = counts.reshape(n, size, n, size).mean(axis=(1, 3))
        np.testing.assert_allclose(stack.intensity.value[0], blocks / EXPOSURES[94], rtol=1e-6)

    @pytest.mark.parametrize("shape", [5, 7, 11, 15, (3, 13), (16, 5)])
    def test_other_factors(self, shape):
        counts = random_counts()
        stack = ChannelStack.from_maps(six(counts), shape=shape, degradation=None)
        assert stack.intensity.shape[1:] == (shape if isinstance(shape, tuple) else (shape, shape))
        np.testing.assert_allclose(stack.intensity.value[0].mean(dtype=float) * EXPOSURES[94], counts.mean(), rtol=1e-6)

    def test_area_weighted_mean(self):
        counts = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], dtype=float)
        stack = ChannelStack.from_maps(six(counts, exptime=1), shape=2, degradation=None)
        corner = (1 + 2 / 2 + 4 / 2 + 5 / 4) / 2.25
        np.testing.assert_allclose(stack.intensity.value[0], [[corner, corner + 4 / 3], [corner + 4, corner + 16 / 3]])

    def test_default_shape(self):
        assert ChannelStack.from_maps(six(np.full((1024, 1024), 100, np.float32))).quality.shape == (512, 512)

    @pytest.mark.parametrize("shape", [None, 16, 512, np.int64(4096), (16, 16)])
    def test_no_upsampling(self, shape):
        counts = random_counts()
        stack = ChannelStack.from_maps(six(counts), shape=shape, degradation=None)
        np.testing.assert_allclose(stack.intensity.value[0], counts / EXPOSURES[94], rtol=1e-6)

    @pytest.mark.parametrize("shape", [(32, 16), (16, 17)])
    def test_larger_shape(self, shape):
        with pytest.raises(ValueError, match=r"is larger than the maps' \(16, 16\); maps are never upsampled"):
            ChannelStack.from_maps(six(random_counts()), shape=shape)

    @pytest.mark.parametrize("shape", [0, -4, 2.5, (8,), (8, 8, 8), (0, 8), "half", True, (4.5, 4)])
    def test_invalid_shapes(self, shape):
        with pytest.raises(ValueError, match="shape must be None, a positive whole number or"):
            ChannelStack.from_maps(six(random_counts()), shape=shape)

    @pytest.mark.parametrize(("native", "shape"), [((24, 16), (12, 8)), ((10, 40), (3, 12)), ((1, 30), (1, 12))])
    def test_longer_side(self, native, shape):
        assert ChannelStack.from_maps(six(random_counts(native)), shape=12).quality.shape == shape

    @pytest.mark.parametrize("shape", [32, 21, (16, 32), (13, 27)])
    @pytest.mark.parametrize("cards", [{}, {"crota2": 30.0}, {"crpix1": 3.2, "crpix2": 80.0, "crval1": 400.0}])
    def test_positions(self, shape, cards):
        empty = aia_map(94, np.zeros((64, 64)), scale=9.6, **cards)
        x, y = world_grid(empty)
        center = x[20, 40], y[20, 40]
        counts = 1000 * blob(x, y, center, 60)
        stack = ChannelStack.from_maps(six(counts, scale=9.6, **cards), shape=shape, degradation=None)
        binned = sunpy.map.Map(stack.intensity.value[0], stack.header)
        np.testing.assert_allclose(centroid(binned.data, *world_grid(binned)), centroid(counts, x, y), atol=0.3)

    def test_corners(self):
        maps = six(random_counts((20, 30)), crota2=20.0, crval1=-300.0)
        stack = ChannelStack.from_maps(maps, shape=(7, 11))
        before = maps[0].wcs.wcs_pix2world([[-0.5, -0.5], [29.5, -0.5], [29.5, 19.5]], 0)
        after = stack.wcs.wcs_pix2world([[-0.5, -0.5], [10.5, -0.5], [10.5, 6.5]], 0)
        np.testing.assert_allclose(after, before, rtol=0, atol=1e-3 / 3600)


class TestBadPixels:
    def spoiled(self, **pixels):
        """Maps with bad pixels in 171 Å."""
        counts = random_counts()
        bad = counts.copy()
        for value, where in pixels.items():
            bad[where] = {"nan": np.nan, "inf": np.inf, "full": 16383, "nearly": 14999, "negative": -3}[value]
        return replaced(six(counts), 171, lambda smap: changed(smap, data=bad))

    @pytest.mark.parametrize("value", ["nan", "inf"])
    def test_not_finite(self, value):
        stack = ChannelStack.from_maps(self.spoiled(**{value: (3, 5)}))
        assert np.argwhere(stack.quality & Quality.MISSING).tolist() == [[3, 5]]
        assert np.argwhere(stack.mask).tolist() == [[3, 5]]
        assert np.isnan(stack.intensity[2, 3, 5])
        assert np.isfinite(stack.intensity[0, 3, 5])

    def test_mask_of_a_map(self):
        mask = np.zeros((16, 16), dtype=bool)
        mask[7, 2] = True
        stack = ChannelStack.from_maps([aia_map(94, random_counts(), mask=mask), *six(random_counts())[1:]])
        assert np.argwhere(stack.quality & Quality.MISSING).tolist() == [[7, 2]]

    def test_saturated(self):
        stack = ChannelStack.from_maps(self.spoiled(full=(3, 5), nearly=(8, 8)))
        assert np.argwhere(stack.quality & Quality.SATURATED).tolist() == [[3, 5]]
        assert np.argwhere(stack.mask).tolist() == [[3, 5]]

    def test_saturated_rates(self):
        rates = self.spoiled(full=(3, 5))
        rates = [changed(smap, data=smap.data / smap.meta["exptime"], bunit="DN / s") for smap in rates]
        assert np.argwhere(ChannelStack.from_maps(rates).quality & Quality.SATURATED).tolist() == [[3, 5]]

    def test_saturated_binned_pixel(self):
        stack = ChannelStack.from_maps(self.spoiled(full=(3, 5)), shape=4)
        assert np.argwhere(stack.quality & Quality.SATURATED).tolist() == [[0, 1]]
        assert np.argwhere(stack.mask).tolist() == [[0, 1]]

    def test_partly_missing_binned_pixel(self):
        maps = self.spoiled(nan=(slice(0, 2), 0))
        counts = maps[2].data[:4, :4]
        stack = ChannelStack.from_maps(maps, shape=4, degradation=None)
        assert not stack.mask.any()
        assert stack.intensity.value[2, 0, 0] == pytest.approx(np.nanmean(counts) / EXPOSURES[171], rel=1e-6)

    def test_mostly_missing_binned_pixel(self):
        stack = ChannelStack.from_maps(self.spoiled(nan=(slice(0, 4), slice(0, 3))), shape=4)
        assert np.argwhere(stack.quality & Quality.MISSING).tolist() == [[0, 0]]
        assert stack.mask[0, 0]

    def test_negative_values(self):
        stack = ChannelStack.from_maps(self.spoiled(negative=(3, 5)), systematic=0, degradation=None)
        assert np.argwhere(stack.quality & Quality.NEGATIVE).tolist() == [[3, 5]]
        assert not stack.mask.any()
        assert stack.intensity.value[2, 3, 5] == pytest.approx(-3 / EXPOSURES[171])
        assert stack.uncertainty.value[2, 3, 5] == pytest.approx(noise(0.0, 171, 16) / EXPOSURES[171], rel=1e-5)

    def test_low_signal(self):
        counts = np.zeros((6, 2, 2))
        counts[:2, 0, 0], counts[:3, 1, 1] = 100, 100
        stack = ChannelStack.from_maps(six(counts))
        np.testing.assert_array_equal((stack.quality & Quality.LOW_SIGNAL) != 0, [[True, True], [True, False]])


class TestAlignment:
    @staticmethod
    def counts(smap):
        """Smooth counts at the pixels of a map."""
        x, y = world_grid(smap)
        return 1000 * (blob(x, y, (60, -40), 40) + 0.5 * blob(x, y, (-90, 70), 50)) + 20

    def scene(self, **cards):
        """Smooth counts and the pointing given by ``cards``."""
        pointing = {"scale": 9.6} | cards
        return self.counts(aia_map(94, np.zeros((48, 48)), **pointing)), pointing

    def maps(self, **cards):
        """Six maps of one scene, with another pointing in 193 Å."""
        counts, pointing = self.scene()
        moved, elsewhere = self.scene(**cards)
        return [
            aia_map(channel, *(moved,) if channel == 193 else (counts,), **(elsewhere if channel == 193 else pointing))
            for channel in CHANNELS
        ]

    @pytest.mark.parametrize(
        "cards",
        [{"crpix1": 25.0}, {"crval2": 14.0}, {"crota2": 5.0}, {"scale": 9.0}],
        ids=["half a pixel", "pointing", "roll", "plate scale"],
    )
    def test_reprojection(self, cards):
        maps = self.maps(**cards)
        stack = ChannelStack.from_maps(maps, degradation=None)
        assert [one["reprojected"] for one in stack.inputs] == [False, False, False, True, False, False]
        inner = np.s_[4:-4, 4:-4]
        apart = np.abs(maps[3].data - maps[2].data)[inner].max()
        expected = self.counts(sunpy.map.Map(stack.intensity.value[3], stack.header))
        aligned = np.abs(stack.intensity.value[3] * EXPOSURES[193] - expected)[inner].max()
        assert aligned < 15
        assert apart > 30

    @pytest.mark.parametrize("cards", [{"crpix1": 27.5}, {"crpix1": 20.5, "crpix2": 25.5}])
    def test_shift_by_whole_pixels(self, cards):
        stack = ChannelStack.from_maps(self.maps(**cards), degradation=None)
        assert not any(one["reprojected"] for one in stack.inputs)
        expected = self.counts(sunpy.map.Map(stack.intensity.value[3], stack.header))
        np.testing.assert_allclose(stack.intensity.value[3] * EXPOSURES[193], expected, rtol=1e-5)

    def test_small_shift(self):
        maps = self.maps(crpix1=24.55)
        stack = ChannelStack.from_maps(maps, degradation=None)
        assert not any(one["reprojected"] for one in stack.inputs)
        np.testing.assert_allclose(stack.intensity.value[3] * EXPOSURES[193], maps[3].data, rtol=1e-6)

    def test_orbit(self):
        maps = replaced(self.maps(), 193, lambda smap: changed(smap, hgln_obs=0.01, dsun_obs=1.4712e11))
        assert not any(one["reprojected"] for one in ChannelStack.from_maps(maps).inputs)

    def test_reprojection_off_the_limb(self):
        maps = self.maps(crpix1=25.0, crval1=2000.0, crval2=2000.0)
        maps = [changed(smap, crval1=2000.0, crval2=2000.0, hgln_obs=0.001 * i) for i, smap in enumerate(maps)]
        stack = ChannelStack.from_maps(maps)
        assert stack.inputs[3]["reprojected"]
        assert np.isfinite(stack.intensity[3, :, 1:-1]).all()

    def test_common_field(self):
        stack = ChannelStack.from_maps(self.maps(crpix1=34.5, crpix2=20.2))
        assert stack.intensity.shape == (6, 44, 38)
        assert not stack.mask.any()
        counts = stack.intensity.value[0] * EXPOSURES[94] * stack.inputs[0]["degradation"]
        np.testing.assert_allclose(counts, self.counts(sunpy.map.Map(counts, stack.header)), rtol=1e-5)

    def test_full_disk_is_kept_whole(self):
        maps = six(random_counts((32, 32)), scale=76.8)
        stack = ChannelStack.from_maps(replaced(maps, 193, lambda smap: changed(smap, crpix1=18.5)))
        missing = (stack.quality & Quality.MISSING) != 0
        assert missing[:, 30:].all()
        assert missing.mean() == pytest.approx(2 / 32)

    def test_disjoint_cutouts(self):
        with pytest.raises(ValueError, match="no field of view in common"):
            ChannelStack.from_maps(self.maps(crval1=900.0))

    def test_bad_pixels_of_a_shifted_map(self):
        def spoiled(smap):
            data = smap.data.copy()
            data[20, 11], data[30, 31] = np.nan, 16000
            return changed(smap, data=data)

        stack = ChannelStack.from_maps(replaced(self.maps(crpix1=25.0), 193, spoiled))
        assert stack.quality[20, 10] & Quality.MISSING
        assert stack.quality[30, 30] & Quality.SATURATED
        assert stack.mask[:, :-2].sum() <= 2 * 9

    def test_reprojected_sigma(self):
        sigma = np.add.outer(np.arange(48.0), np.zeros(48)) + 5

        def known(smap):
            return sunpy.map.Map(smap.data, smap.meta, uncertainty=StdDevUncertainty(sigma))

        maps = replaced(self.maps(crpix2=25.0), 193, known)
        stack = ChannelStack.from_maps(maps, degradation=None, systematic=0)
        expected = (sigma[1:] + sigma[:-1]) / 2
        np.testing.assert_allclose(stack.uncertainty.value[3, :47] * EXPOSURES[193], expected, rtol=2e-2)

    def test_coarsest_grid(self):
        fine, pointing = self.scene(scale=4.8)
        coarse, _ = self.scene()
        maps = six(coarse[12:36, 12:36], scale=9.6)
        maps[4] = aia_map(211, fine, **pointing, uncertainty=StdDevUncertainty(np.full(fine.shape, 8.0)))
        stack = ChannelStack.from_maps(maps, degradation=None, systematic=0)
        assert stack.intensity.shape == (6, 24, 24)
        expected = fine.reshape(24, 2, 24, 2).mean(axis=(1, 3))
        inner = np.s_[1:-1, 1:-1]
        np.testing.assert_allclose((stack.intensity.value[4] * EXPOSURES[211])[inner], expected[inner], rtol=1e-3)
        # Mean of four pixels.
        np.testing.assert_allclose((stack.uncertainty.value[4] * EXPOSURES[211])[inner], 4, rtol=1e-3)

    def test_headers_in_degrees(self):
        maps = self.maps()
        degrees = {"cunit1": "deg", "cunit2": "deg", "cdelt1": 9.6 / 3600, "cdelt2": 9.6 / 3600}
        in_degrees = ChannelStack.from_maps([changed(smap, **degrees) for smap in maps])
        in_arcsec = ChannelStack.from_maps(maps)
        np.testing.assert_allclose(in_degrees.uncertainty, in_arcsec.uncertainty, rtol=1e-6)
        assert in_degrees.meta["native_pixels"] == pytest.approx(256)
        mixed = ChannelStack.from_maps(replaced(maps, 335, lambda smap: changed(smap, **degrees)))
        assert not any(one["reprojected"] for one in mixed.inputs)


class TestLevel1:
    """Maps that are rolled, off-center and at their own plate scale."""

    N, SCALE = 96, 28.8
    PLACES = MappingProxyType({"bright point": (-480, 336), "hot pixel": (600, -500), "full well": (100, 700)})

    def raw(self, channel, roll, x, y, *, spoil=False, **cards):
        pointing = {"scale": self.SCALE * 0.998, "lvl_num": 1, "crota2": roll} | cards
        half = (self.N + 1) / 2
        pointing |= {"crpix1": half + x / self.SCALE, "crpix2": half + y / self.SCALE}
        world = world_grid(aia_map(channel, np.zeros((self.N, self.N)), **pointing))
        counts = 100 + 900 * blob(*world, self.PLACES["bright point"], 80)
        if spoil:
            for name, value in (("hot pixel", np.nan), ("full well", 16383)):
                distance = np.hypot(*(axis - place for axis, place in zip(world, self.PLACES[name], strict=True)))
                counts[np.unravel_index(distance.argmin(), distance.shape)] = value
        return aia_map(channel, counts.astype(np.float32), **pointing)

    def maps(self, **cards):
        return [
            self.raw(channel, roll, 4 * i, -4 * i, **cards)
            for i, (channel, roll) in enumerate(zip(CHANNELS, (0.5, 3, -2, 1, 5, -4), strict=True))
        ]

    def test_registration(self):
        stack = ChannelStack.from_maps(self.maps(), degradation=None)
        assert all(one["registered"] for one in stack.inputs)
        binned = sunpy.map.Map(stack.intensity.value[0], stack.header)
        np.testing.assert_allclose(binned.rotation_matrix, np.eye(2), atol=1e-9)
        np.testing.assert_allclose(u.Quantity(binned.scale).value, self.SCALE, rtol=1e-6)
        middle = (np.array([x.value for x in binned.dimensions]) - 1) / 2
        sun = binned.wcs.world_to_pixel(SkyCoord(0 * u.arcsec, 0 * u.arcsec, frame=binned.coordinate_frame))
        np.testing.assert_allclose(sun, middle, atol=0.51)
        for image, channel in zip(stack.intensity.value, CHANNELS, strict=True):
            where = centroid(np.nan_to_num(image * EXPOSURES[channel] - 100), *world_grid(binned))
            np.testing.assert_allclose(where, self.PLACES["bright point"], atol=0.05 * self.SCALE)
            assert np.nanmax(image * EXPOSURES[channel]) == pytest.approx(1000, rel=0.02)

    def test_bad_pixels(self):
        clean, spoiled = ChannelStack.from_maps(self.maps()), ChannelStack.from_maps(self.maps(spoil=True))
        binned = sunpy.map.Map(spoiled.quality, spoiled.header)
        for name, flag in (("hot pixel", Quality.MISSING), ("full well", Quality.SATURATED)):
            place = SkyCoord(*self.PLACES[name] * u.arcsec, frame=binned.coordinate_frame)
            x, y = np.round(binned.wcs.world_to_pixel(place)).astype(int)
            assert spoiled.quality[y, x] & flag
            flagged = np.argwhere(((spoiled.quality & flag) != 0) & ~clean.mask)
            assert np.abs(flagged - [y, x]).max() <= 2

    def test_no_ringing_around_missing_pixels(self):
        clean, spoiled = self.maps(), self.maps()
        for smap in spoiled:
            smap.data[20, 70] = np.nan
        clean, spoiled = ChannelStack.from_maps(clean), ChannelStack.from_maps(spoiled)
        valid = ~spoiled.mask
        np.testing.assert_allclose(spoiled.intensity[:, valid], clean.intensity[:, valid], rtol=1e-3)

    def test_own_uncertainty(self):
        maps = [
            sunpy.map.Map(m.data, m.meta, uncertainty=StdDevUncertainty(np.full(m.data.shape, 7.0)))
            for m in self.maps()
        ]
        stack = ChannelStack.from_maps(maps, degradation=None, systematic=0)
        sigma = stack.uncertainty.value[1][~stack.mask] * EXPOSURES[131]
        np.testing.assert_allclose(sigma, 7, rtol=1e-4)

    def test_level_of_the_input(self):
        assert [one["level"] for one in ChannelStack.from_maps(self.maps()).inputs] == [1] * 6

    def test_level_1_5_is_not_registered(self):
        maps = self.maps(lvl_num=1.5)[:1] * 6
        maps = [changed(smap, wavelnth=channel) for smap, channel in zip(maps, CHANNELS, strict=True)]
        stack = ChannelStack.from_maps(maps, degradation=None)
        assert not any(one["registered"] for one in stack.inputs)
        np.testing.assert_allclose(stack.intensity.value[0] * maps[0].meta["exptime"], maps[0].data, rtol=1e-6)

    def test_cutout(self):
        with pytest.warns(SunpyUserWarning, match="94.* level 1 and not full-disk"):
            stack = ChannelStack.from_maps([aia_map(94, random_counts(), lvl_num=1), *six(random_counts())[1:]])
        assert not stack.inputs[0]["registered"]


class TestCutouts:
    def test_submap(self, sample):
        whole = ChannelStack.from_maps(sample)
        part = ChannelStack.from_maps([smap.submap([8, 4] * u.pix, top_right=[27, 15] * u.pix) for smap in sample])
        assert part.intensity.shape == (6, 12, 20)
        np.testing.assert_allclose(part.intensity, whole.intensity[:, 4:16, 8:28], rtol=1e-6)
        np.testing.assert_allclose(
            part.wcs.wcs_pix2world([[0, 0], [19, 11]], 0), whole.wcs.wcs_pix2world([[8, 4], [27, 15]], 0), atol=1e-9
        )


def test_hash(sample):
    stack = ChannelStack.from_maps(sample)
    assert len({stack, stack, ChannelStack.from_maps(sample)}) == 2


def test_real_sun(real_sun):
    stack = ChannelStack.from_maps(real_sun)
    assert stack.intensity.shape == (6, 512, 512)
    assert stack.meta["native_pixels"] == pytest.approx(64, rel=0.01)
    assert stack.mask.mean() < 0.01
    assert [round(one["degradation"], 3) for one in stack.inputs] == [0.914, 0.752, 0.876, 0.887, 0.825, 0.443]
    disc = np.median(stack.intensity.value[:, 200:300, 200:300], axis=(1, 2))
    assert CHANNELS[disc.argmin()] == 94
    assert CHANNELS[disc.argmax()] in (171, 193)


def test_error_table_is_read_by_one_thread(sample, monkeypatch):
    """aiapy silences warnings while reading, which is not thread-safe."""
    threads = []

    def read(path):
        threads.append(threading.current_thread())
        return get_error_table(path)

    packaged_table.cache_clear()
    monkeypatch.setattr(photometry, "get_error_table", read)
    ChannelStack.from_maps(sample)
    assert threads == [threading.main_thread()]
