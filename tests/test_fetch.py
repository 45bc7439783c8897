"""Tests of `fetch` against an archive on the loopback interface."""

import gc
import signal
import subprocess
import sys
import time
from pathlib import Path

import astropy.units as u
import pytest
import sunpy.map
from click.testing import CliRunner
from file_server import PATTERN, aia_file, open_archive
from sunpy.net.dataretriever.sources.aia_synopsis import AIASynopsisClient
from sunpy.util.exceptions import SunpyUserWarning

from sunpy_deepem import CHANNELS, DEMCube, invert
from sunpy_deepem.cli import main
from sunpy_deepem.fetch import fetch
from sunpy_deepem.series import group_maps
from sunpy_deepem.utils.files import temporary_folder

NAMES = [f"AIA20140101_0000_{channel:04d}.fits" for channel in CHANNELS]
SLOT = "2014-01-01T00:00"


@pytest.fixture
def archive(monkeypatch):
    """An archive with six files of two times, and no pauses between attempts."""
    with open_archive() as archive:
        archive.add(SLOT)
        archive.add("2014-01-01T00:02")
        monkeypatch.setattr(AIASynopsisClient, "pattern", archive.url + PATTERN)
        monkeypatch.setattr("sunpy_deepem.fetch._PAUSE", 0.0)
        yield archive


@pytest.fixture
def get(tmp_path):
    """`fetch` into an empty folder, without a progress bar."""

    def get(start=SLOT, end=None, **options):
        return fetch(start, end, **{"folder": tmp_path, "progress": False} | options)

    return get


def names(paths):
    return [path.name for path in paths]


def on_disk(folder):
    return sorted(path.name for path in folder.iterdir())


class TestSixFiles:
    def test_one_of_each_channel_in_order(self, archive, get, tmp_path):
        files = get()
        assert names(files) == NAMES
        assert on_disk(tmp_path) == NAMES
        assert [round(sunpy.map.Map(path).wavelength.value) for path in files] == list(CHANNELS)

    def test_files_can_be_inverted(self, archive, get):
        assert invert(get(), shape=16).shape == (18, 16, 16)

    @pytest.mark.parametrize(
        ("requested", "found"),
        [("00:00:59", "0000"), ("00:01:01", "0002"), ("00:03:30", "0002"), ("00:04:00", "0002")],
    )
    def test_nearest_time_within_the_cadence(self, archive, get, requested, found):
        assert names(get(f"2014-01-01T{requested}")) == [name.replace("_0000_", f"_{found}_") for name in NAMES]

    def test_incomplete_sets_are_passed_over(self, archive, get):
        del archive.files[archive.path(SLOT, 171)]
        assert names(get()) == [name.replace("_0000_", "_0002_") for name in NAMES]

    def test_time_before_midnight(self, archive, get):
        assert names(get("2013-12-31T23:59:30")) == NAMES

    def test_default_folder_is_that_of_sunpy(self, archive, tmp_path):
        before = sunpy.config.get("downloads", "download_dir")
        sunpy.config.set("downloads", "download_dir", str(tmp_path))
        try:
            assert fetch(SLOT, progress=False)[0].parent == tmp_path / "aia"
        finally:
            sunpy.config.set("downloads", "download_dir", before)

    def test_progress_bar(self, archive, get, capfd, tmp_path):
        get(progress=True)
        assert "Files Downloaded: 100%" in capfd.readouterr().err
        get("2014-01-01T00:02", progress=False)
        printed = capfd.readouterr()
        assert printed.out == ""
        assert f"INFO: Downloading 6 of 6 files to {tmp_path}. [sunpy_deepem.fetch]\n" in printed.err
        # Python may also report the event loop of the first download, which parfive leaves to the garbage collector.
        assert "Files Downloaded" not in printed.err


class TestSecondRun:
    def test_needs_no_network(self, archive, get):
        first = get()
        archive.close()
        assert get() == first

    def test_downloads_only_what_is_missing(self, archive, get, tmp_path):
        get()
        (tmp_path / NAMES[2]).unlink()
        archive.requests.clear()
        assert names(get()) == NAMES
        assert archive.downloads() == [NAMES[2]]

    @pytest.mark.parametrize("damage", [b"", b"<html>Service Unavailable</html>", "half"])
    def test_damaged_files_are_replaced(self, archive, get, tmp_path, damage):
        path = get()[1]
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if damage == "half" else damage)
        archive.requests.clear()
        get()
        assert path.read_bytes() == whole
        assert archive.downloads() == [path.name]

    def test_other_files_in_the_folder(self, archive, get, tmp_path):
        other = ["AIA20140101_0000_0304.fits", "AIA20149999_0000_0171.fits", "AIA_a_b.fits", "notes.txt"]
        for name in other:
            (tmp_path / name).write_text("mine")
        assert names(get()) == NAMES
        assert on_disk(tmp_path) == sorted([*NAMES, *other])


class TestFaults:
    def faulty(self, archive, *faults):
        archive.faults[archive.path(SLOT, 193)] += faults

    @pytest.mark.parametrize(
        "fault",
        [
            404,
            500,
            503,
            "cut",
            pytest.param(aia_file(193, "2014-01-01T00:00:01.12")[:40000], id="truncated file"),
            pytest.param(b"<html>Down for maintenance</html>", id="web page"),
            pytest.param(b"", id="empty file"),
            pytest.param(aia_file(171, "2014-01-01T00:30:01.12"), id="file of another channel and time"),
            pytest.param(aia_file(193, "2014-01-01T00:30:01.12"), id="file of another time"),
            pytest.param(aia_file(193, "2014-01-01T00:00:01.12", level=1), id="file of another level"),
        ],
    )
    def test_a_fault_is_retried(self, archive, get, tmp_path, fault):
        self.faulty(archive, fault)
        files = get()
        assert names(files) == NAMES == on_disk(tmp_path)
        assert files[3].read_bytes() == archive.files[archive.path(SLOT, 193)]
        assert sorted(archive.downloads()) == sorted([*NAMES, NAMES[3]])

    def test_a_stalled_connection_is_given_up(self, archive, get):
        self.faulty(archive, "stall")
        begin = time.monotonic()
        assert names(get(timeout=0.5 * u.s)) == NAMES
        assert 0.5 <= time.monotonic() - begin < 10

    @pytest.mark.parametrize(
        ("fault", "why"),
        [
            (404, "404"),
            (500, "500"),
            (b"<html>Down</html>", "cannot be read as a map"),
            (aia_file(193, "2014-01-01T00:30:01.12"), "it holds 193 Å of 2014-01-01T00:30:01, level 1.5"),
        ],
    )
    def test_a_lasting_fault(self, archive, get, tmp_path, fault, why):
        self.faulty(archive, *[fault] * 3)
        with pytest.raises(ConnectionError, match="1 of 6 files did not arrive in 3 attempts") as error:
            get(attempts=3)
        for words in (NAMES[3], archive.path(SLOT, 193), why, "run again"):
            assert words in str(error.value)
        assert on_disk(tmp_path) == [name for name in NAMES if name != NAMES[3]]
        archive.requests.clear()
        assert names(get()) == NAMES
        assert archive.downloads() == [NAMES[3]]

    LISTING = "/data/aia/synoptic/2014/01/01/H0000/"

    @pytest.mark.parametrize("fault", [403, 500, "stall"])
    def test_search_is_retried(self, archive, get, fault):
        archive.faults[self.LISTING].append(fault)
        assert names(get(timeout=0.5 * u.s)) == NAMES

    @pytest.mark.parametrize("fault", [403, 500])
    def test_failure_of_the_server_is_no_gap(self, archive, get, fault):
        archive.faults[self.LISTING] += [fault] * 6
        with pytest.raises(ConnectionError, match=rf"failed 3 times .*{fault}"):
            get(attempts=3)

    def test_search_fails(self, archive, get):
        archive.close()
        with pytest.raises(
            ConnectionError, match=r"Searching JSOC's synoptic archive failed 2 times .*Connection refused"
        ):
            get(attempts=2)

    def test_pauses_grow(self, archive, get, monkeypatch):
        pauses = []
        monkeypatch.setattr("sunpy_deepem.fetch._PAUSE", 2.0)
        monkeypatch.setattr("time.sleep", pauses.append)
        self.faulty(archive, 500, 500, 500)
        get()
        assert [pause for pause in pauses if pause >= 1] == [2.0, 4.0, 8.0]


class TestGaps:
    def test_missing_channels(self, archive, get, tmp_path):
        for channel in (171, 335):
            del archive.files[archive.path(SLOT, channel)]
            del archive.files[archive.path("2014-01-01T00:02", channel)]
        archive.add("2014-01-01T00:08", [171])
        archive.add("2014-01-01T00:20")
        with pytest.raises(FileNotFoundError) as error:
            get()
        assert str(error.value) == (
            "JSOC's synoptic archive lacks channels within 120 s of 2014-01-01T00:00:00; their nearest files: "
            "171 Å (2014-01-01T00:08:00), 335 Å (2014-01-01T00:20:00). The nearest complete set is that of "
            "2014-01-01T00:20:00."
        )
        assert on_disk(tmp_path) == []

    def test_channels_of_different_times(self, archive, get):
        del archive.files[archive.path(SLOT, 171)]
        del archive.files[archive.path("2014-01-01T00:02", 94)]
        with pytest.raises(FileNotFoundError, match="has no six channels of the same 12 s near 2014-01-01T00:00:00"):
            get()

    def test_nothing_there(self, archive, get):
        with pytest.raises(FileNotFoundError, match=r"94 Å \(none within 1 h\).*no complete set within 1 h.*May 2010"):
            get("2009-01-01")


class TestSeries:
    def test_files_in_order(self, archive, get):
        archive.add("2014-01-01T00:04")
        files = get(SLOT, "2014-01-01T00:04")
        assert names(files) == [name.replace("_0000_", f"_000{minute}_") for minute in (0, 2, 4) for name in NAMES]
        assert len(group_maps(files).complete) == 3

    def test_cadence(self, archive, get):
        archive.add("2014-01-01T00:04")
        files = get(SLOT, "2014-01-01T00:05", cadence=4 * u.min)
        assert {name.split("_")[1] for name in names(files)} == {"0000", "0004"}

    def test_one_listing_per_folder(self, archive, get):
        archive.add("2014-01-01T01:00")
        get(SLOT, "2014-01-01T01:00", cadence=1 * u.hour)
        listings = [
            path for path in archive.requests if path.startswith("/data/aia/synoptic/2014") and path.endswith("/")
        ]
        assert len(listings) == len(set(listings)) == 2

    def test_times_with_the_same_nearest_files(self, archive, get):
        assert len(get(SLOT, "2014-01-01T00:00:40", cadence=20 * u.s)) == 6

    # parfive leaves its event loops to the garbage collector, and pytest repeats warnings of other kinds.
    @pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
    def test_gaps_are_skipped_with_a_warning(self, archive, get):
        archive.add("2014-01-01T00:10")
        with pytest.warns(SunpyUserWarning, match="lacks channels within 120 s of 2014-01-01T00:05:00"):
            files = get(SLOT, "2014-01-01T00:10", cadence=5 * u.min)
        assert len(files) == 12

    def test_only_gaps(self, archive, get):
        with pytest.raises(FileNotFoundError, match="2014-01-01T05:00:00"):
            get("2014-01-01T05:00", "2014-01-01T05:10")


class TestCommand:
    @pytest.fixture
    def deepem(self, archive, tmp_path, monkeypatch):
        """The command in an empty folder, which is sunpy's folder for data, too."""
        monkeypatch.chdir(tmp_path)
        before = sunpy.config.get("downloads", "download_dir")
        sunpy.config.set("downloads", "download_dir", str(tmp_path))
        gc.collect()  # parfive leaves event loops, and Python prints a warning where it collects them
        yield lambda *arguments: CliRunner().invoke(main, arguments)
        sunpy.config.set("downloads", "download_dir", before)

    def test_fetch(self, deepem):
        result = deepem("fetch", SLOT, "-o", "maps", "-q")
        assert result.exit_code == 0, result.output
        assert result.stderr == ""
        assert [Path(line).name for line in result.stdout.splitlines()] == NAMES == on_disk(Path("maps"))

    def test_fetch_series(self, deepem):
        result = deepem("fetch", SLOT, "--end", "2014-01-01T00:02", "--cadence", "2 min", "--level", "1.5s", "-q")
        assert len(on_disk(Path("aia"))) == len(result.stdout.splitlines()) == 12

    def test_invert_date(self, deepem, tmp_path):
        result = deepem("invert", "--date", SLOT, "--shape", "16")
        assert result.exit_code == 0, result.output
        assert "Files Downloaded" in result.stderr
        assert on_disk(tmp_path / "aia") == NAMES
        (cube,) = tmp_path.glob("deepem_2014-01-01T0000*.fits")
        assert DEMCube.read(cube).shape == (18, 16, 16)

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["fetch", "yesterday"], "start must be a time"),
            (["fetch", SLOT, "--cadence", "often"], "often"),
            (["fetch", "2009-01-01"], "no complete set within 1 h"),
            (["invert", "--date", "2009-01-01"], "no complete set within 1 h"),
            (["invert", "--date", SLOT, "--sample"], "only one of MAPS, --sample and --date"),
            (["invert", "--date", SLOT, "-o", "none/a.fits"], "none/a.fits lies in a folder that does not exist"),
        ],
    )
    def test_one_line_errors(self, archive, deepem, arguments, words):
        result = deepem(*arguments)
        assert result.exit_code != 0
        assert isinstance(result.exception, SystemExit)
        assert words in result.stderr.splitlines()[-1]
        assert archive.downloads() == []


class TestInterruption:
    RUN = (
        "import sys\n"
        "from sunpy.net.dataretriever.sources.aia_synopsis import AIASynopsisClient\n"
        "AIASynopsisClient.pattern = sys.argv[1]\n"
        "from sunpy_deepem.fetch import fetch\n"
        "fetch('2014-01-01T00:00', folder=sys.argv[2], progress=False)\n"
    )

    @pytest.fixture
    def stopped(self, archive, tmp_path):
        """Stop a process that waits for its last file, and return it."""

        def stopped(sent):
            archive.faults[archive.path(SLOT, 193)].append("stall")
            process = subprocess.Popen(
                [sys.executable, "-c", self.RUN, archive.url + PATTERN, tmp_path], stderr=subprocess.PIPE, text=True
            )
            deadline = time.monotonic() + 60
            while len(list(tmp_path.glob("AIA*.fits"))) < 5:
                assert process.poll() is None, process.stderr.read()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            process.send_signal(sent)
            process.errors = process.communicate(timeout=20)[1]
            return process

        return stopped

    def test_killed_half_way(self, archive, get, stopped, tmp_path):
        assert stopped(signal.SIGKILL).returncode == -signal.SIGKILL
        archive.requests.clear()
        assert names(get()) == NAMES
        assert archive.downloads() == [NAMES[3]]

    def test_ctrl_c(self, archive, get, stopped, tmp_path):
        process = stopped(signal.SIGINT)
        assert process.returncode != 0
        assert process.errors.rstrip().endswith("KeyboardInterrupt")
        assert on_disk(tmp_path) == [name for name in NAMES if name != NAMES[3]]

    def test_signal_handlers_are_restored(self, archive, get):
        # Jobs that a shell starts in the background ignore the signal.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            get()
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        finally:
            signal.signal(signal.SIGINT, before)

    def test_folders_of_killed_downloads_are_removed_by_the_next(self, archive, get, stopped, tmp_path):
        stopped(signal.SIGKILL)
        assert [path.suffix for path in tmp_path.glob(".fetch.*") if path.is_dir()] == [".part"]
        with temporary_folder(tmp_path, "fetch") as of_a_living_one:
            assert list(tmp_path.glob(".fetch.*.part")) == [of_a_living_one]
            get()
            assert of_a_living_one.exists()
        assert on_disk(tmp_path) == NAMES

    def test_folders_of_killed_downloads_are_removed_if_there_is_nothing_to_download(self, archive, get, tmp_path):
        get()
        (tmp_path / f".fetch.{'0' * 32}.part").mkdir()
        (tmp_path / f".fetch.{'0' * 32}.lock").touch()
        get()
        assert on_disk(tmp_path) == NAMES


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"start": "yesterday"}, "start must be a time"),
        ({"end": "2013-12-31"}, "end must not be before start, found 2013-12-31T00:00:00"),
        ({"cadence": 2 * u.min}, "cadence is for a series"),
        ({"end": "2014-01-02", "cadence": 0 * u.s}, "cadence must be a positive time"),
        ({"end": "2014-01-02", "cadence": 12 * u.m}, "cadence must be a positive time"),
        ({"level": "1.5"}, "level must be one of '1.5s', '1', found '1.5'"),
        ({"attempts": 0}, "attempts must be a positive whole number"),
        ({"timeout": 60}, "timeout must be a positive time"),
    ],
)
def test_invalid_arguments(archive, get, arguments, words):
    with pytest.raises(ValueError, match=words):
        get(**arguments)
    assert archive.requests == []


def test_folder_that_cannot_be_created(archive, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match=r"folder: .* cannot be created"):
        fetch(SLOT, folder=tmp_path / "file" / "aia")


@pytest.mark.remote_data
@pytest.mark.parametrize("level", ["1.5s", "1"])
def test_real_archives(tmp_path, level):
    files = fetch("2014-01-01T00:00", level=level, folder=tmp_path, progress=False)
    maps = [sunpy.map.Map(path) for path in files]
    assert [round(smap.wavelength.value) for smap in maps] == list(CHANNELS)
    assert {smap.processing_level for smap in maps} == {float(level.rstrip("s"))}
    assert all(abs((smap.date - maps[0].date).to_value("s")) < 12 for smap in maps)
