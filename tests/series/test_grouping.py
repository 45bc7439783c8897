"""Tests of the grouping of maps into sets."""

import gzip

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.time import Time
from helpers import aia_map

from sunpy_deepem import CHANNELS, invert_series
from sunpy_deepem.series import group_maps

START = Time("2014-01-01T00:00:00")


def at(seconds):
    return (START + seconds * u.s).isot


def frames(seconds, channels=CHANNELS, **cards):
    """Return one small map of each channel, all of the same time."""
    return [aia_map(channel, np.full((4, 4), 50.0), **({"date-obs": at(seconds)} | cards)) for channel in channels]


def grouped(*maps, **options):
    return group_maps([smap for each in maps for smap in each], **options)


def seconds_of(sets):
    return [round((each.time - START).to_value(u.s), 2) for each in sets]


class TestGrouping:
    def test_channel_order(self):
        sets = grouped(reversed(frames(120)), frames(0))
        assert seconds_of(sets.complete) == [0, 120]
        for each in sets.complete:
            assert [round(smap.wavelength.value) for smap in each.sources] == list(CHANNELS)
            assert {smap.date for smap in each.sources} == {each.time}
        assert (sets.failed, sets.ignored) == ((), ())

    def test_nearest_to_193(self):
        others = [channel for channel in CHANNELS if channel != 193]
        sets = grouped(frames(0, [193]), frames(3, others), frames(-5, [94]), frames(9, [335]))
        (only,) = sets.complete
        assert [round((smap.date - START).to_value(u.s)) for smap in only.sources] == [3, 3, 3, 0, 3, 3]
        assert [(round(smap.wavelength.value), why) for smap, why in sets.ignored] == [
            (94, "another exposure is nearer to the one in 193 Å"),
            (335, "another exposure is nearer to the one in 193 Å"),
        ]

    def test_map_belongs_to_one_set(self):
        """The set without 94 Å does not take the map of a neighbor."""
        sets = grouped(frames(0), frames(12, [c for c in CHANNELS if c != 94]), frames(24))
        assert seconds_of(sets.complete) == [0, 24]
        assert seconds_of(sets.failed) == [12]
        assert sets.failed[0].reason == "missing: 94 Å"

    @pytest.mark.parametrize("lost", CHANNELS)
    def test_missing_channel(self, lost):
        sets = grouped(frames(0), frames(300, [channel for channel in CHANNELS if channel != lost]))
        assert seconds_of(sets.complete) == [0]
        assert [each.reason for each in sets.failed] == [f"missing: {lost} Å"]
        assert seconds_of(sets.failed) == [300]
        assert len(sets.failed[0].sources) == 5

    def test_times_without_193(self):
        sets = grouped(frames(0), frames(300, [94, 171]), frames(600, [94]))
        assert seconds_of(sets.failed) == [300, 600]
        assert sets.failed[1].reason == "missing: 131 Å, 171 Å, 193 Å, 211 Å, 335 Å"

    def test_ambiguous_exposure(self):
        """A file was downloaded twice, or as level 1 and 1.5."""
        sets = grouped(frames(0), frames(120), frames(120.2, [171]), frames(240), frames(240, [193]))
        assert seconds_of(sets.complete) == [0]
        assert seconds_of(sets.failed) == [120, 240]
        assert sets.failed[0].reason.startswith("ambiguous, more than one map of the same exposure: 171 Å (")
        assert "2014-01-01T00:02:00.200" in sets.failed[0].reason
        assert "193 Å (" in sets.failed[1].reason

    def test_ambiguous_files_are_named(self, tmp_path):
        maps = frames(0)
        for name, smap in [*((f"{index}.fits", smap) for index, smap in enumerate(maps)), ("again.fits", maps[2])]:
            smap.save(tmp_path / name)
        assert group_maps(tmp_path).failed[0].reason.endswith("same exposure: 171 Å (2.fits, again.fits)")

    def test_max_time_span(self):
        late = [channel for channel in CHANNELS if channel not in (94, 193)]
        maps = frames(-40, [94]), frames(0, [193]), frames(30, late)
        assert grouped(*maps).failed[0].reason == "its maps span 70.0 s, more than max_time_span=60 s"
        assert len(grouped(*maps, max_time_span=2 * u.min).complete) == 1
        assert len(grouped(frames(-30, [94]), frames(0, [193]), frames(30, late)).complete) == 1
        assert not grouped(frames(-30, [94]), frames(0, [193]), frames(30.5, late)).complete
        assert grouped(*maps, max_time_span=0.5 * u.min).failed[-1].reason == "missing: 94 Å"
        with pytest.raises(u.UnitsError):
            grouped(*maps, max_time_span=60 * u.arcsec)

    def test_other_wavelengths_and_instruments_are_ignored(self):
        others = [aia_map(304, np.ones((4, 4))), aia_map(1600, np.ones((4, 4)))]
        foreign = aia_map(171, np.ones((4, 4)), instrume="SECCHI", telescop="STEREO")
        sets = grouped(frames(0), others, [foreign])
        assert len(sets.complete) == 1
        assert [why for _, why in sets.ignored] == ["not of the channels used"] * 2 + ["not an AIA map"]
        assert repr(sets) == "<ChannelSets 1 complete, 0 failed, 3 ignored>"

    def test_no_map_is_lost(self):
        """Each map is in exactly one complete set, failed set or the ignored maps."""
        rng = np.random.default_rng(0)
        maps = [smap for at in rng.uniform(0, 400, 60) for smap in frames(at, [int(rng.choice(CHANNELS))])]
        sets = group_maps(maps)
        found = [smap for each in (*sets.complete, *sets.failed) for smap in each.sources]
        found += [smap for smap, _ in sets.ignored]
        assert sorted(map(id, found)) == sorted(map(id, maps))
        assert sets.complete
        assert sets.failed


class TestSelect:
    @pytest.fixture(scope="class")
    @classmethod
    def sets(cls):
        """Seven sets, the third without 94 Å, and a map of another wavelength."""
        others = [channel for channel in CHANNELS if channel != 94]
        times = (frames(12 * step, others if step == 2 else CHANNELS) for step in range(7))
        return grouped(*times, [aia_map(304, np.ones((4, 4)))])

    @pytest.mark.parametrize("n", [1, 2, 3, 7, 10])
    def test_parts_hold_each_set_once(self, sets, n):
        parts = [sets.select(part=(k + 1, n)) for k in range(n)]
        found = [each for part in parts for each in (*part.complete, *part.failed)]
        assert sorted(map(id, found)) == sorted(map(id, (*sets.complete, *sets.failed)))
        assert [len(part.ignored) for part in parts] == [1] + [0] * (n - 1)
        sizes = [len(part.complete) + len(part.failed) for part in parts]
        assert max(sizes) - min(sizes) <= 1

    def test_parts_are_the_same_for_any_order_of_maps(self, sets):
        maps = [smap for each in (*sets.complete, *sets.failed) for smap in each.sources]
        again = group_maps(maps[::-1])
        assert seconds_of(again.select(part=(2, 3)).complete) == seconds_of(sets.select(part=(2, 3)).complete)

    def test_part_in_order_of_time(self, sets):
        assert seconds_of(sets.select(part=(3, 4)).complete) == [72]
        assert seconds_of(sets.select(part=(3, 4)).failed) == [24]

    def test_since(self, sets):
        later = sets.select(since=START + 24 * u.s)
        assert seconds_of(later.complete) == [36, 48, 60, 72]
        assert seconds_of(later.failed) == [24]
        assert sets.select(since="2015-01-01").complete == ()

    def test_part_of_the_later_sets(self, sets):
        both = sets.select(since=at(30), part=(2, 2))
        assert seconds_of(both.complete) == [48, 72]
        assert seconds_of(sets.select(since=at(30)).select(part=(2, 2)).complete) == [48, 72]

    def test_files_without_a_time_are_kept(self, tmp_path, maps_folder):
        (maps_folder / "broken.fits").write_bytes(b"no FITS")
        assert len(group_maps(maps_folder).select(since="2015-01-01").failed) == 1

    @pytest.mark.parametrize("part", [(0, 2), (3, 2), (1.5, 2), (1, 2, 3), "1/2", 3, (None, 2)])
    def test_invalid_part(self, sets, part):
        with pytest.raises(ValueError, match="part must be"):
            sets.select(part=part)

    @pytest.mark.parametrize("since", ["yesterday", 2014, object()])
    def test_invalid_date(self, sets, since):
        with pytest.raises(ValueError, match="since must be a time such as '2014-01-01T00:00', found"):
            sets.select(since=since)


class TestFiles:
    def test_kinds_of_source(self, maps_folder):
        files = sorted(maps_folder.iterdir())
        for source in (
            maps_folder,
            str(maps_folder),
            files,
            [*files, maps_folder],
            maps_folder / "*.fits",
            [str(maps_folder / "aia_*_0*")],
        ):
            sets = group_maps(source)
            assert [each.sources for each in sets.complete] == [tuple(files[n : n + 6]) for n in (0, 6, 12)]

    def test_recursive(self, tmp_path, maps_folder):
        with pytest.raises(FileNotFoundError, match="recursive=True"):
            group_maps(tmp_path)
        assert len(group_maps(tmp_path, recursive=True).complete) == 3

    def test_hidden_files(self, maps_folder):
        (maps_folder / ".aia_0_0094.fits").write_bytes(b"")
        (maps_folder / ".trash").mkdir()
        (maps_folder / "aia_0_0094.fits").rename(maps_folder / ".trash" / "aia.fits")
        sets = group_maps(maps_folder, recursive=True)
        assert [each.reason for each in sets.failed] == ["missing: 94 Å"]

    def test_compressed_images_and_gzip(self, maps_folder):
        for path in maps_folder.glob("aia_0_*"):
            data, header = fits.getdata(path, header=True)
            fits.CompImageHDU(data, header).writeto(path.with_suffix(".fits.fz"))
            path.unlink()
        for path in maps_folder.glob("aia_1_*"):
            path.with_suffix(".fits.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
        assert len(group_maps(maps_folder).complete) == 3

    def test_only_headers_are_read(self, maps_folder):
        """Files without data are grouped; they fail when they are inverted."""
        for path in maps_folder.iterdir():
            path.write_bytes(path.read_bytes()[:8640])
        assert len(group_maps(maps_folder).complete) == 3

    def test_unreadable_header(self, maps_folder):
        (maps_folder / "aia_0_0094.fits").write_bytes(b"no FITS")
        with fits.open(maps_folder / "aia_1_0094.fits", mode="update") as hdus:
            del hdus[0].header["DATE-OBS"], hdus[0].header["T_OBS"]
        sets = group_maps(maps_folder)
        assert len(sets.complete) == 1
        without_time = [each for each in sets.failed if each.time is None]
        assert [each.sources[0].name for each in without_time] == ["aia_0_0094.fits", "aia_1_0094.fits"]
        assert all("its header cannot be read" in each.reason for each in without_time)

    def test_cubes_are_ignored(self, maps_folder):
        invert_series(maps_folder, maps_folder)
        sets = group_maps(maps_folder)
        assert len(sets.complete) == 3
        assert [why for _, why in sets.ignored] == ["not an AIA map"] * 3

    def test_real_sun(self, real_sun):
        assert [each.reason for each in group_maps(real_sun).complete] == [None]

    @pytest.mark.parametrize(
        ("source", "error", "words"),
        [
            ("nowhere", FileNotFoundError, "there is no file or folder nowhere"),
            ("nowhere/*.fits", FileNotFoundError, "holds no FITS file"),
            (7, TypeError, "found int"),
            ([7], TypeError, "source must hold sunpy maps or paths, found int"),
        ],
    )
    def test_invalid_source(self, source, error, words):
        with pytest.raises(error, match=words):
            group_maps(source)
