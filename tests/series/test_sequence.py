"""Many observations: which maps belong together, series that go on where they stopped, sequences of cubes."""

import functools
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.time import Time
from helpers import aia_map, changed
from ndcube import NDCubeSequence
from sunpy.util.exceptions import SunpyUserWarning

from sunpy_deepem import CHANNELS, DeepEM, DEMCube, TemperatureResponse, invert
from sunpy_deepem.sample import sample_maps
from sunpy_deepem.series import jobs
from sunpy_deepem.series.sequence import (
    ChannelSets,
    DEMCubeSequence,
    SeriesReport,
    SetResult,
    group_maps,
    invert_series,
)

START = Time("2014-01-01T00:00:00")


def at(seconds):
    return (START + seconds * u.s).isot


def frames(seconds, channels=CHANNELS, **cards):
    """Maps of a few pixels, one of each channel, which begin together."""
    return [aia_map(channel, np.full((4, 4), 50.0), **({"date-obs": at(seconds)} | cards)) for channel in channels]


def grouped(*maps, **options):
    return group_maps([smap for each in maps for smap in each], **options)


def seconds_of(sets):
    return [round((each.time - START).to_value(u.s), 2) for each in sets]


@pytest.fixture(scope="module")
def sun():
    return list(sample_maps((32, 32)))


@pytest.fixture(scope="module")
def dim_to_bright(sun):
    """The maps of three times, two minutes apart, of a Sun that becomes brighter by a half each time."""
    return [
        changed(smap, data=smap.data * 1.5**step, **{"date-obs": (smap.date + 2 * step * u.min).isot})
        for step in range(3)
        for smap in sun
    ]


@pytest.fixture(scope="module")
def sequence(dim_to_bright):
    return invert_series(dim_to_bright)


@pytest.fixture
def folder(tmp_path, dim_to_bright):
    """A folder with the FITS files of three times."""
    folder = tmp_path / "maps"
    folder.mkdir()
    for index, smap in enumerate(dim_to_bright):
        smap.save(folder / f"aia_{index // 6}_{smap.wavelength.value:04.0f}.fits")
    return folder


class TestGrouping:
    def test_one_of_each_channel_in_channel_order(self):
        sets = grouped(reversed(frames(120)), frames(0))
        assert seconds_of(sets.complete) == [0, 120]
        for each in sets.complete:
            assert [round(smap.wavelength.value) for smap in each.sources] == list(CHANNELS)
            assert {smap.date for smap in each.sources} == {each.time}
        assert (sets.failed, sets.ignored) == ((), ())

    def test_the_nearest_to_193_is_taken(self):
        others = [channel for channel in CHANNELS if channel != 193]
        sets = grouped(frames(0, [193]), frames(3, others), frames(-5, [94]), frames(9, [335]))
        (only,) = sets.complete
        assert [round((smap.date - START).to_value(u.s)) for smap in only.sources] == [3, 3, 3, 0, 3, 3]
        assert [(round(smap.wavelength.value), why) for smap, why in sets.ignored] == [
            (94, "another exposure is nearer to the one in 193 Å"),
            (335, "another exposure is nearer to the one in 193 Å"),
        ]

    def test_no_map_is_in_two_sets(self):
        """Every 12 s, of which one lacks 94 Å: a neighbour's, 12 s away, is not taken instead."""
        sets = grouped(frames(0), frames(12, [c for c in CHANNELS if c != 94]), frames(24))
        assert seconds_of(sets.complete) == [0, 24]
        assert seconds_of(sets.failed) == [12]
        assert sets.failed[0].reason == "missing: 94 Å"

    @pytest.mark.parametrize("lost", CHANNELS)
    def test_a_missing_channel_is_told(self, lost):
        sets = grouped(frames(0), frames(300, [channel for channel in CHANNELS if channel != lost]))
        assert seconds_of(sets.complete) == [0]
        assert [each.reason for each in sets.failed] == [f"missing: {lost} Å"]
        assert seconds_of(sets.failed) == [300]
        assert len(sets.failed[0].sources) == 5

    def test_several_times_without_193_are_several_sets(self):
        sets = grouped(frames(0), frames(300, [94, 171]), frames(600, [94]))
        assert seconds_of(sets.failed) == [300, 600]
        assert sets.failed[1].reason == "missing: 131 Å, 171 Å, 193 Å, 211 Å, 335 Å"

    def test_two_maps_of_the_same_exposure_are_ambiguous(self):
        """As a file that was downloaded twice, or as level 1 and 1.5."""
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
        assert grouped(*maps, max_time_span=0.5 * u.min).failed[-1].reason == "missing: 94 Å"
        with pytest.raises(u.UnitsError):
            grouped(*maps, max_time_span=60 * u.arcsec)

    def test_other_wavelengths_and_instruments_are_ignored(self):
        others = [aia_map(304, np.ones((4, 4))), aia_map(1600, np.ones((4, 4)))]
        foreign = aia_map(171, np.ones((4, 4)), instrume="SECCHI", telescop="STEREO")
        sets = grouped(frames(0), others, [foreign])
        assert len(sets.complete) == 1
        assert [why for _, why in sets.ignored] == ["not of the six channels"] * 2 + ["no AIA map"]
        assert repr(sets) == "<ChannelSets 1 complete, 0 failed, 3 ignored>"

    def test_every_map_is_accounted_for(self):
        """Whatever the times: in one set, in a failed one or ignored, and once."""
        rng = np.random.default_rng(0)
        maps = [smap for at in rng.uniform(0, 400, 60) for smap in frames(at, [int(rng.choice(CHANNELS))])]
        sets = group_maps(maps)
        told = [smap for each in (*sets.complete, *sets.failed) for smap in each.sources]
        told += [smap for smap, _ in sets.ignored]
        assert sorted(map(id, told)) == sorted(map(id, maps))
        assert sets.complete
        assert sets.failed


class TestFiles:
    def test_folder_list_and_pattern_are_the_same(self, folder):
        files = sorted(folder.iterdir())
        for source in (folder, str(folder), files, [*files, folder], folder / "*.fits", [str(folder / "aia_*_0*")]):
            sets = group_maps(source)
            assert [each.sources for each in sets.complete] == [tuple(files[n : n + 6]) for n in (0, 6, 12)]

    def test_folders_in_a_folder(self, tmp_path, folder):
        with pytest.raises(FileNotFoundError, match="recursive=True"):
            group_maps(tmp_path)
        assert len(group_maps(tmp_path, recursive=True).complete) == 3

    def test_hidden_files_are_no_maps(self, folder):
        (folder / ".aia_0_0094.fits").write_bytes(b"")
        (folder / ".trash").mkdir()
        (folder / "aia_0_0094.fits").rename(folder / ".trash" / "aia.fits")
        sets = group_maps(folder, recursive=True)
        assert [each.reason for each in sets.failed] == ["missing: 94 Å"]

    def test_compressed_images_and_gzip(self, folder):
        for path in folder.glob("aia_0_*"):
            data, header = fits.getdata(path, header=True)
            fits.CompImageHDU(data, header).writeto(path.with_suffix(".fits.fz"))
            path.unlink()
        for path in folder.glob("aia_1_*"):
            path.with_suffix(".fits.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
        assert len(group_maps(folder).complete) == 3

    def test_only_headers_are_read(self, folder):
        """So that files of which the data are missing are grouped all the same, and fail when they are inverted."""
        for path in folder.iterdir():
            path.write_bytes(path.read_bytes()[:8640])
        assert len(group_maps(folder).complete) == 3

    def test_headers_that_cannot_be_read(self, folder):
        (folder / "aia_0_0094.fits").write_bytes(b"no FITS")
        with fits.open(folder / "aia_1_0094.fits", mode="update") as hdus:
            del hdus[0].header["DATE-OBS"], hdus[0].header["T_OBS"]
        sets = group_maps(folder)
        assert len(sets.complete) == 1
        without_time = [each for each in sets.failed if each.time is None]
        assert [each.sources[0].name for each in without_time] == ["aia_0_0094.fits", "aia_1_0094.fits"]
        assert all("its header cannot be read" in each.reason for each in without_time)

    def test_cubes_are_no_maps(self, folder):
        invert_series(folder, folder)
        sets = group_maps(folder)
        assert len(sets.complete) == 3
        assert [why for _, why in sets.ignored] == ["no AIA map"] * 3

    def test_the_real_sun(self, real_sun):
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
    def test_no_such_thing(self, source, error, words):
        with pytest.raises(error, match=words):
            group_maps(source)


class TestInvertSeries:
    def test_a_file_for_each_set(self, tmp_path, folder):
        report = invert_series(folder, tmp_path / "a" / "dem")
        names = [f"deepem_2014-01-01T000{minute}05.fits" for minute in (0, 2, 4)]
        assert [path.name for path in report.paths] == names
        assert sorted(path.name for path in (tmp_path / "a" / "dem").iterdir()) == [*names, "report.json"]
        assert (len(report.done), len(report.skipped), len(report.failed)) == (3, 0, 0)
        assert list(report.times.isot) == [f"2014-01-01T00:0{minute}:05.840" for minute in (0, 2, 4)]

    def test_it_is_what_invert_says(self, tmp_path, folder):
        report = invert_series(folder, tmp_path / "dem", shape=16, systematic=0.2)
        for step, path in enumerate(report.paths):
            expected = invert(sorted(folder.glob(f"aia_{step}_*")), shape=16, systematic=0.2)
            cube = DEMCube.read(path)
            np.testing.assert_array_equal(cube.data, expected.data)
            np.testing.assert_array_equal(cube.uncertainty.array, expected.uncertainty.array)
            assert cube.inputs == expected.inputs

    def test_what_was_done_is_skipped(self, tmp_path, folder):
        first = invert_series(folder, tmp_path)
        written = [path.stat().st_mtime_ns for path in first.paths]
        second = invert_series(folder, tmp_path)
        assert (len(second.done), len(second.skipped)) == (0, 3)
        assert [path.stat().st_mtime_ns for path in second.paths] == written
        assert second.paths == first.paths

    def test_the_defaults_are_options_as_well(self, tmp_path, folder):
        invert_series(folder, tmp_path)
        report = invert_series(folder, tmp_path, shape=512, systematic=0.1, weights="default", device="cpu")
        assert len(report.skipped) == 3

    def test_a_network_is_known_by_its_weights(self, tmp_path, folder):
        network = DeepEM.load("default")
        network.save(tmp_path / "mine.safetensors")
        invert_series(folder, tmp_path, weights=network)
        assert len(invert_series(folder, tmp_path, weights=tmp_path / "mine.safetensors").skipped) == 3
        network.module.layers[0].bias.data += 0.1
        assert len(invert_series(folder, tmp_path, weights=network).failed) == 3

    def test_a_damaged_file_is_made_again(self, tmp_path, folder):
        first, second, third = invert_series(folder, tmp_path).paths
        expected = DEMCube.read(second).data
        first.write_bytes(first.read_bytes()[:20_000])
        content = bytearray(second.read_bytes())
        content[len(content) // 2] ^= 0xFF
        second.write_bytes(content)
        report = invert_series(folder, tmp_path)
        assert [result.path for result in report.done] == [first, second]
        assert [result.path for result in report.skipped] == [third]
        np.testing.assert_array_equal(DEMCube.read(second).data, expected)

    def test_other_options_do_not_replace_what_is_there_unasked(self, tmp_path, folder):
        before = [path.read_bytes() for path in invert_series(folder, tmp_path).paths]
        report = invert_series(folder, tmp_path, systematic=0.2, shape=16)
        assert len(report.failed) == 3
        assert "made with other shape, systematic. Pass overwrite=True" in report.failed[0].reason
        assert [path.read_bytes() for path in sorted(tmp_path.glob("deepem_*"))] == before
        assert len(invert_series(folder, tmp_path, systematic=0.2, shape=16, overwrite=True).done) == 3
        assert DEMCube.read(tmp_path / "deepem_2014-01-01T000005.fits").shape == (18, 16, 16)

    @pytest.mark.parametrize("option", ["method", "response", "region"])
    def test_options_that_are_objects_are_told_apart(self, tmp_path, folder, sun, option):
        def flat(intensity, uncertainty, response):
            em = np.ones((18, *intensity.shape[1:])) * intensity.sum(axis=0) / response.matrix.value.sum()
            return em, np.zeros(intensity.shape[1:], dtype=int)

        def flatter(*pixels):
            return flat(*pixels)

        corners = [SkyCoord(at * u.arcsec, at * u.arcsec, frame=sun[3].coordinate_frame) for at in (-300, 0, 300)]
        one, other = {
            "method": (flat, flatter),
            "response": (TemperatureResponse.default(), TemperatureResponse.default(eve=False)),
            "region": (corners[:2], corners[1:]),
        }[option]
        options = {"method": flat, option: one}
        assert len(invert_series(folder, tmp_path, **options).done) == 3
        assert len(invert_series(folder, tmp_path, **options).skipped) == 3
        report = invert_series(folder, tmp_path, **options | {option: other})
        assert f"made with other {option}" in report.failed[0].reason

    def test_other_inputs_neither(self, tmp_path, folder):
        invert_series(folder, tmp_path)
        os.utime(folder / "aia_1_0171.fits", (0, 0))
        report = invert_series(folder, tmp_path)
        assert [len(part) for part in (report.done, report.skipped, report.failed)] == [0, 2, 1]
        assert "made with other inputs" in report.failed[0].reason

    def test_a_bad_set_does_not_stop_the_others(self, tmp_path, folder):
        path = folder / "aia_0_0131.fits"
        path.write_bytes(path.read_bytes()[:8640])
        (folder / "aia_2_0094.fits").unlink()
        (folder / "aia_304.fits").write_bytes((folder / "aia_1_0094.fits").read_bytes())
        fits.setval(folder / "aia_304.fits", "WAVELNTH", value=304)
        report = invert_series(folder, tmp_path / "dem")
        assert [path.name for path in report.paths] == ["deepem_2014-01-01T000205.fits"]
        truncated, incomplete = report.failed
        assert "aia_0_0131.fits" in truncated.reason
        assert incomplete.reason == "missing: 94 Å"
        assert len(incomplete.inputs) == 5
        assert report.ignored == ((str(folder / "aia_304.fits"), "not of the six channels"),)

    def test_the_report_as_json(self, tmp_path, folder):
        (folder / "aia_2_0094.fits").unlink()
        (folder / "broken.fits").write_bytes(b"")
        report = invert_series(folder, tmp_path)
        told = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
        assert told == json.loads(report.to_json())
        assert told["format"] == "sunpy_deepem report 1"
        assert (told["done"], told["skipped"], told["failed"]) == (2, 0, 2)
        assert [each["status"] for each in told["sets"]] == ["done", "done", "failed", "failed"]
        assert told["sets"][0] == {
            "status": "done",
            "time": "2014-01-01T00:00:05.840",
            "inputs": [str(folder / f"aia_0_{channel:04}.fits") for channel in CHANNELS],
            "file": "deepem_2014-01-01T000005.fits",
            "reason": None,
        }
        assert told["sets"][3]["time"] is None
        assert told["ignored"] == []

    def test_the_report_as_text_fits_a_terminal(self, tmp_path, folder):
        for path in folder.glob("aia_*_0094.fits"):
            path.write_bytes(path.read_bytes()[:8640])
        (folder / "broken.fits").write_bytes(b"")
        lines = str(invert_series(folder, tmp_path)).splitlines()
        assert lines[0] == "0 inverted, 0 skipped as done before, 4 failed"
        assert max(map(len, lines[:4])) <= 80
        assert lines[1].startswith("  2014-01-01T00:00:05: ")

    def test_many_failures_are_counted(self):
        report = SeriesReport(tuple(SetResult("failed", START, ("a.fits",), reason="dark") for _ in range(12)))
        assert str(report).splitlines()[-2:] == ["  2014-01-01T00:00:00: dark", "  and 2 more"]
        assert len(json.loads(report.to_json())["sets"]) == 12

    def test_an_interrupted_run_goes_on(self, tmp_path, folder, monkeypatch):
        calls = []

        @functools.wraps(invert)
        def interrupted(*args, **options):
            calls.append(args)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return invert(*args, **options)

        monkeypatch.setattr(jobs, "invert", interrupted)
        with pytest.raises(KeyboardInterrupt):
            invert_series(folder, tmp_path)
        told = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
        assert [each["reason"] for each in told["sets"]] == [None, *["interrupted before it was inverted"] * 2]
        assert len(list(tmp_path.glob("deepem_*"))) == 1
        report = invert_series(folder, tmp_path)
        assert (len(report.skipped), len(report.done)) == (1, 2)
        assert len(calls) == 4

    def test_no_half_files(self, tmp_path, folder, monkeypatch):
        """A disc that is full in the middle of a file leaves none, and is told."""

        def full(cube, path, **options):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(DEMCube, "write", full)
        report = invert_series(folder, tmp_path)
        assert [result.reason for result in report.failed] == ["OSError: [Errno 28] No space left on device"] * 3
        assert sorted(path.name for path in tmp_path.iterdir()) == ["maps", "report.json"]

    def test_what_killed_workers_left_is_cleared(self, tmp_path, folder):
        left = tmp_path / ".deepem_2014-01-01T000005.fits.4711.part"
        other = tmp_path / ".deepem_2013-01-01T000005.fits.4711.part"
        left.write_bytes(b"half")
        other.write_bytes(b"half")
        invert_series(folder, tmp_path)
        assert not left.exists()
        assert other.exists()

    def test_a_folder_that_cannot_be_written_to(self, tmp_path, folder):
        (tmp_path / "file").write_text("no folder")
        for out in (tmp_path / "file", tmp_path / "file" / "out"):
            with pytest.raises(OSError, match="cannot be written to"):
                invert_series(folder, out)
        if Path("/proc/self").is_dir():  # Not even root can write there
            with pytest.raises(OSError, match="the folder /proc cannot be written to"):
                invert_series(folder, "/proc")

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
    def test_a_folder_without_the_right_to_write(self, tmp_path, folder):
        (tmp_path / "out").mkdir(mode=0o555)
        with pytest.raises(PermissionError, match="cannot be written to"):
            invert_series(folder, tmp_path / "out")

    def test_wrong_arguments(self, tmp_path, folder):
        with pytest.raises(ValueError, match=r"out must be a folder, found .*dem.fits"):
            invert_series(folder, tmp_path / "dem.fits")
        with pytest.raises(FileNotFoundError, match=r"none\.safetensors"):
            invert_series(folder, tmp_path, weights="none.safetensors")
        with pytest.raises(ValueError, match="source holds no AIA map of the six channels"):
            invert_series(ChannelSets(()))
        with pytest.raises(ValueError, match="source holds no AIA map"):
            invert_series([aia_map(304, np.ones((4, 4)))], tmp_path)


class TestInMemory:
    def test_a_sequence(self, dim_to_bright):
        sequence = invert_series(dim_to_bright)
        assert isinstance(sequence, DEMCubeSequence)
        assert sequence.shape == (3, 18, 32, 32)
        np.testing.assert_array_equal(sequence[1].data, invert(dim_to_bright[6:12]).data)
        assert len(sequence.meta["report"].done) == 3

    def test_maps_to_files(self, tmp_path, dim_to_bright):
        assert len(invert_series(dim_to_bright, tmp_path).done) == 3
        assert len(invert_series(dim_to_bright, tmp_path).skipped) == 3
        brighter = [changed(smap, data=2 * smap.data) for smap in dim_to_bright]
        assert "made with other inputs" in invert_series(brighter, tmp_path).failed[0].reason

    def test_failed_sets_are_told(self, dim_to_bright):
        with pytest.warns(SunpyUserWarning, match="00:02:0.: missing: 94 Å"):
            sequence = invert_series([smap for index, smap in enumerate(dim_to_bright) if index != 6])
        assert sequence.shape[0] == 2
        assert len(sequence.meta["report"].failed) == 1

    def test_nothing_but_failed_sets(self, dim_to_bright):
        with pytest.raises(ValueError, match=r"No set of source could be inverted\.\n(.*\n)*.*missing: 335 Å"):
            invert_series(dim_to_bright[:5])


class TestSequence:
    def test_times(self, sequence):
        assert list(sequence.times.isot) == [f"2014-01-01T00:0{minute}:05.840" for minute in (0, 2, 4)]
        assert sequence.sequence_axis_coords["time"][1] == sequence.times[1]

    def test_slices_are_sequences(self, sequence):
        part = sequence[1:]
        assert isinstance(part, DEMCubeSequence)
        assert list(part.times) == list(sequence.times[1:])
        assert isinstance(sequence, NDCubeSequence)
        assert isinstance(sequence[0], DEMCube)
        image = sequence[:, 8]
        assert image.shape == (3, 32, 32)
        assert list(image.times) == list(sequence.times)

    def test_light_curve(self, sequence):
        """The Sun becomes brighter by a half each time, the error of which is mostly a share of it."""
        curve = sequence.light_curve()
        assert list(curve.time) == list(sequence.times)
        assert curve["total_em"].unit == u.cm**-5
        total = curve["total_em"].value
        np.testing.assert_allclose(total[1:] / total[:-1], 1.5, rtol=0.05)
        np.testing.assert_allclose(curve["log_t"], curve["log_t"][0], atol=0.02)
        assert (curve["total_em_uncertainty"] > 0).all()
        assert (curve["log_t_uncertainty"] > 0).all()
        assert (curve["n_pixels"] == 32 * 32).all()

    def test_it_is_what_the_cubes_say(self, sequence):
        where = np.zeros((32, 32), dtype=bool)
        where[10, 20] = True
        curve = sequence.light_curve(where)
        for row, cube in zip(curve, sequence, strict=True):
            for name, smap in [("total_em", cube.total_em()), ("log_t", cube.em_weighted_log_t())]:
                assert u.isclose(row[name], smap.quantity[10, 20], rtol=1e-5)
                assert u.isclose(row[f"{name}_uncertainty"], smap.uncertainty.array[10, 20] * smap.unit, rtol=1e-5)
            for name, smap in zip(("em_5.6_6.0", "em_6.0_6.3"), cube.band_maps(), strict=False):
                assert u.isclose(row[name], smap.quantity[10, 20], rtol=1e-5)

    def test_places_and_bands(self, sequence):
        center = SkyCoord(0 * u.arcsec, 0 * u.arcsec, frame=sequence[0].bin_map(6.0).coordinate_frame)
        curve = sequence.light_curve(center, bands=[(6.0, 6.5)])
        assert curve.colnames == [
            "time",
            "total_em",
            "total_em_uncertainty",
            "em_6.0_6.5",
            "em_6.0_6.5_uncertainty",
            "log_t",
            "log_t_uncertainty",
            "n_pixels",
        ]
        assert (curve["n_pixels"] == 1).all()
        with pytest.raises(ValueError, match="high"):
            sequence.light_curve(bands=[(6.5, 6.0)])
        with pytest.raises(TypeError, match="region"):
            sequence.light_curve("the active region")

    def test_cubes_without_uncertainty(self, sequence):
        bare = DEMCubeSequence([DEMCube(cube.data, wcs=cube.wcs, mask=cube.mask, meta=cube.meta) for cube in sequence])
        curve = bare.light_curve()
        assert np.isfinite(curve["total_em"]).all()
        assert np.isnan(curve["total_em_uncertainty"]).all()

    def test_a_folder(self, tmp_path, folder, sequence):
        invert_series(folder, tmp_path)
        (tmp_path / "other.fits").write_bytes((folder / "aia_0_0094.fits").read_bytes())
        read = DEMCubeSequence.read(tmp_path)
        assert read.shape == sequence.shape
        assert list(read.times) == list(sequence.times)
        np.testing.assert_allclose(
            read.light_curve()["total_em"].value, sequence.light_curve()["total_em"].value, rtol=1e-6
        )
        np.testing.assert_array_equal(read[1:][0].data, DEMCube.read(tmp_path / "deepem_2014-01-01T000205.fits").data)
        assert list(read[::2].times) == list(sequence.times[::2])

    def test_a_folder_is_read_when_it_is_needed(self, tmp_path, folder, monkeypatch):
        invert_series(folder, tmp_path)
        read, original = [], DEMCube.read
        monkeypatch.setattr(DEMCube, "read", lambda path: read.append(path.name) or original(path))
        sequence = DEMCubeSequence.read(tmp_path)
        assert len(sequence.times) == 3
        assert read == []
        assert sequence[1].shape == sequence[1].shape
        assert read == ["deepem_2014-01-01T000205.fits"]

    def test_no_such_folder(self, tmp_path):
        for folder in (tmp_path, tmp_path / "none"):
            with pytest.raises(FileNotFoundError, match="no FITS file of a DEM cube"):
                DEMCubeSequence.read(folder)


def test_dask_is_asked_for_by_name(dim_to_bright, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r'pip install "sunpy_deepem\[dask\]"'):
        invert_series(dim_to_bright, scheduler="threads")


def test_nothing_is_imported_before_it_is_needed():
    code = "import sys, sunpy_deepem.series; print([n for n in ('torch', 'distributed') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
