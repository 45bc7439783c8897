"""Grids of a stack: reprojection, registration and cutouts."""

from types import MappingProxyType

import astropy.units as u
import numpy as np
import pytest
import sunpy.map
from astropy.coordinates import SkyCoord
from astropy.nddata import StdDevUncertainty
from helpers import (
    EXPOSURES,
    aia_map,
    blob,
    centroid,
    changed,
    random_counts,
    replaced,
    six,
    world_grid,
)
from sunpy.util.exceptions import SunpyUserWarning

from sunpy_deepem import CHANNELS, ChannelStack, Quality
from sunpy_deepem.sample import sample_maps

N = 32


@pytest.fixture(scope="module")
def sample():
    return sample_maps((N, N))


# Maps whose headers differ give a warning, see test_agreement.py.
@pytest.mark.filterwarnings("ignore:The fields of some maps differ")
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

    @pytest.mark.parametrize("shift", [0.5, -0.5])
    def test_pixels_half_outside_are_left_out(self, shift):
        stack = ChannelStack.from_maps(self.maps(crpix1=24.5 + shift, crpix2=24.5 + shift))
        assert stack.intensity.shape == (6, 47, 47)

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


@pytest.mark.filterwarnings("ignore:The fields of some maps differ")
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
            flagged = np.argwhere((spoiled.quality & ~clean.quality & flag) != 0)
            assert np.abs(flagged - [y, x]).max() <= 2

    def test_no_ringing_around_missing_pixels(self):
        clean, spoiled = self.maps(), self.maps()
        for smap in spoiled:
            smap.data[20, 70] = np.nan
        clean, spoiled = ChannelStack.from_maps(clean), ChannelStack.from_maps(spoiled)
        valid = spoiled.usable
        np.testing.assert_allclose(spoiled.intensity[valid], clean.intensity[valid], rtol=1e-3)

    def test_own_uncertainty(self):
        maps = [
            sunpy.map.Map(m.data, m.meta, uncertainty=StdDevUncertainty(np.full(m.data.shape, 7.0)))
            for m in self.maps()
        ]
        stack = ChannelStack.from_maps(maps, degradation=None, systematic=0)
        sigma = stack.uncertainty.value[1][stack.usable[1]] * EXPOSURES[131]
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
        cutouts = [aia_map(channel, random_counts(), lvl_num=1) for channel in CHANNELS[:2]]
        with pytest.warns(SunpyUserWarning, match="The maps of 94, 131 Å are level 1 and not full-disk") as warned:
            stack = ChannelStack.from_maps([*cutouts, *six(random_counts())[2:]])
        assert len(warned) == 1
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
