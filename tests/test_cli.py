"""Tests of the ``deepem`` command."""

import json
import subprocess
import sys
from pathlib import Path

import astropy.units as u
import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pytest
import sunpy.map
from click.testing import CliRunner
from helpers import changed, later

from sunpy_deepem import DeepEM, DEMCube, DEMCubeSequence, invert, sample
from sunpy_deepem.cli import main
from sunpy_deepem.network import ScaledNetwork
from sunpy_deepem.sample import real_maps, sample_maps
from sunpy_deepem.training.draws import DRAWS_OPTIONS
from sunpy_deepem.training.options import TrainingOptions
from sunpy_deepem.training.posterior import POSTERIOR_OPTIONS


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    plt.close("all")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps")
    for smap in sample_maps((32, 32)):
        smap.save(folder / f"aia_{smap.wavelength.value:03.0f}.fits")
    return folder


@pytest.fixture(scope="module")
def dem(tmp_path_factory, files):
    path = tmp_path_factory.mktemp("cube") / "dem.fits"
    assert run("invert", files, "-o", path, "-q").exit_code == 0
    return path


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def assert_one_line(result, *words):
    """Assert that the command failed with a one-line message."""
    assert result.exit_code != 0
    assert isinstance(result.exception, SystemExit)
    lines = result.stderr.strip().splitlines()
    errors = [line for line in lines if line.startswith("Error: ")]
    assert errors == lines[-1:]
    assert "Traceback" not in result.output
    for word in words:
        assert word in errors[0]


class TestInvert:
    def test_folder(self, folder, files):
        result = run("invert", files)
        assert result.exit_code == 0, result.output
        (name,) = names(folder)
        assert name == "deepem_2014-01-01T000005.fits"  # as in a series, by the exposure in 193 Å
        assert DEMCube.read(name).date.isot.startswith("2014-01-01T00:00:05")
        assert DEMCube.read(name).data.shape == (18, 32, 32)
        assert f"Wrote {name}" in result.stderr

    def test_files_in_any_order(self, folder, files):
        assert run("invert", *sorted(files.iterdir(), reverse=True), "--out", "mine.fits").exit_code == 0
        assert names(folder) == ["mine.fits"]

    def test_real_sample(self, folder):
        result = run("invert", "--sample", "--plot", "--shape", "32")
        assert result.exit_code == 0, result.output
        assert names(folder) == ["deepem_sample.fits", "deepem_sample.png"]
        assert matplotlib.image.imread("deepem_sample.png").shape[0] > 500
        np.testing.assert_array_equal(DEMCube.read("deepem_sample.fits").data, invert(real_maps(), shape=32).data)

    @pytest.mark.parametrize("arguments", [["--sample", "real"], ["--sample=real"]])
    def test_real_sample_by_name(self, folder, arguments):
        assert run("invert", *arguments, "--shape", "16").exit_code == 0
        np.testing.assert_array_equal(DEMCube.read("deepem_sample.fits").data, invert(real_maps(), shape=16).data)

    def test_sample_into_a_new_folder(self, folder):
        assert run("invert", "--sample", "--shape", "16", "-o", "new").exit_code == 0
        assert names(folder / "new") == ["deepem_sample.fits"]

    @pytest.mark.parametrize("arguments", [["--sample", "synthetic"], ["--sample=synthetic"]])
    def test_synthetic_sample(self, folder, monkeypatch, arguments):
        monkeypatch.setattr(sample.sample_maps, "__defaults__", ((32, 32),))
        assert run("invert", *arguments).exit_code == 0
        assert names(folder) == ["deepem_synthetic.fits"]
        np.testing.assert_array_equal(DEMCube.read("deepem_synthetic.fits").data, invert(sample_maps((32, 32))).data)

    def test_options(self, folder, files):
        options = ["--shape", "16", "--systematic", "0.2", "--no-degradation", "--device", "cpu"]
        assert run("invert", files, "-o", "a.fits", *options).exit_code == 0
        cube = DEMCube.read("a.fits")
        assert cube.data.shape == (18, 16, 16)
        assert cube.meta["provenance"]["systematic"] == 0.2
        assert cube.meta["provenance"]["degradation"] is None

    def test_method(self, folder, files):
        assert run("invert", files, "-o", "a.fits", "--shape", "8", "--method", "basis-pursuit").exit_code == 0
        assert DEMCube.read("a.fits").uncertainty is None
        assert_one_line(run("invert", files, "-o", "b.fits", "--method", "abacus"), "method")

    def test_native_resolution(self, folder, files):
        result = run("invert", files, "-o", "a.fits", "--shape", "native", "--plot", "--quantiles", "0.5")
        assert result.exit_code == 0, result.output
        assert len(names(folder)) == 6
        np.testing.assert_allclose(DEMCube.read("a.fits").data, invert(files, shape=None).data, rtol=1e-6)
        assert_one_line(run("invert", files, "-o", "a.fits", "--shape", "native"), "a.fits exists", "--overwrite")

    def test_quiet(self, folder, files):
        result = run("invert", files, "-o", "a.fits", "-q")
        assert (result.exit_code, result.output) == (0, "")

    def test_existing_file(self, folder, files):
        Path("a.fits").write_text("precious")
        assert_one_line(run("invert", files, "-o", "a.fits"), "a.fits exists", "--overwrite")
        assert Path("a.fits").read_text() == "precious"
        assert run("invert", files, "-o", "a.fits", "--overwrite").exit_code == 0
        assert DEMCube.read("a.fits").shape == (18, 32, 32)

    def test_outputs_are_checked_first(self, folder, files):
        Path("a.png").write_text("precious")
        result = run("invert", files, "-o", "a.fits", "--plot")
        assert_one_line(result, "a.png exists")
        assert "Reading" not in result.stderr
        assert names(folder) == ["a.png"]
        assert_one_line(run("invert", files, "-o", "none/a.fits"), "none/a.fits lies in a folder that does not exist")

    def test_default_name_is_checked_first(self, folder, files):
        Path("deepem_2014-01-01T000005.fits").write_text("precious")
        result = run("invert", files)
        assert_one_line(result, "deepem_2014-01-01T000005.fits exists. Pass --overwrite")
        assert "Reading" not in result.stderr

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ([], "Give six FITS files or a folder"),
            (["nowhere"], "nowhere"),
            (["nowhere", "--sample"], "only one of MAPS, --sample and --date"),
            (["--sample", "nowhere"], "'nowhere' is not one of 'real', 'synthetic'"),
            (["{files}", "--shape", "half"], "--shape must be a whole number or 'native'"),
            (["{files}", "--shape", "-3"], "shape must be"),
            (["{files}", "--systematic", "2"], "systematic must be a fraction"),
            (["{files}", "--systematic", "ten"], "systematic"),
            (["{files}", "--weights", "none.safetensors"], "none.safetensors"),
            (["{files}", "--device", "abacus"], "device must be"),
            (["{files}/aia_094.fits", "{files}/aia_131.fits"], "missing: 171 Å"),
            (["{files}", "--colour"], "--colour"),
            (["{files}", "-o", "dem.txt"], "--out must be a folder or end in .fits"),
        ],
    )
    def test_one_line_errors(self, folder, files, arguments, words):
        assert_one_line(run("invert", *(argument.format(files=files) for argument in arguments)), words)
        assert names(folder) == []

    def test_broken_maps_and_weights(self, folder, files):
        Path("broken.fits").write_bytes(b"no FITS")
        assert_one_line(run("invert", *files.iterdir(), "broken.fits"), "broken.fits cannot be read")
        Path("broken.safetensors").write_bytes(b"no weights")
        assert_one_line(run("invert", files, "--weights", "broken.safetensors"), "broken.safetensors")

    def test_traceback(self, files):
        assert isinstance(run("--traceback", "invert", files, "--shape", "-3").exception, ValueError)


class TestPartsOfTheData:
    """``--region``, ``--channels`` and ``--quantiles``."""

    def test_region(self, folder, files):
        assert run("invert", files, "-o", "part.fits", "--region", -300, -200, 300, 200).exit_code == 0
        whole, part = run("invert", files, "-o", "all.fits"), DEMCube.read("part.fits")
        assert whole.exit_code == 0
        assert part.shape[1] < part.shape[2] < 32
        em, whole_em = part.data[5], DEMCube.read("all.fits").data[5].ravel()
        nearest = whole_em[np.abs(whole_em - em[..., np.newaxis]).argmin(axis=-1)]
        np.testing.assert_allclose(em, nearest, rtol=1e-5)  # other tiles round otherwise

    def test_quantiles_of_weights_without_a_posterior(self, folder, files, response):
        network = ScaledNetwork(response.matrix.value.sum(axis=1) * 1e25, 18, hidden=(8,))
        DeepEM(network, bins=response.bins, response=response).save("mine.safetensors")
        result = run("invert", files, "--quantiles", "0.5", "--weights", "mine.safetensors")
        assert_one_line(result, "mine.safetensors has none")
        assert "Reading" not in result.stderr

    def test_channels(self, folder, files):
        (files / "aia_335.fits").rename(folder / "hidden")
        try:
            assert_one_line(run("invert", files, "-o", "dem.fits"), "335")
            result = run("invert", files, "-o", "dem.fits", "--channels", "94,131,171,193,211")
        finally:
            (folder / "hidden").rename(files / "aia_335.fits")
        assert result.exit_code == 0, result.output
        assert np.isnan(DEMCube.read("dem.fits").intensity.value).all(axis=(1, 2)).tolist() == [False] * 5 + [True]

    def test_quantiles(self, folder, files):
        assert run("invert", files, "-o", "dem.fits", "--quantiles", "0.16,0.84").exit_code == 0
        assert len(names(folder)) == 9
        low, high = (sunpy.map.Map(f"dem_em_6-6.3_q{q}.fits") for q in (0.16, 0.84))
        assert (low.data <= high.data).all()
        assert (low.data < high.data).mean() > 0.9
        Path("dem.fits").unlink()
        assert_one_line(run("invert", files, "-o", "dem.fits", "--quantiles", "0.5,0.84"), "q0.84.fits exists")

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--region", "300", "0", "-300", "100"], "LEFT < RIGHT"),
            (["--channels", "94;131"], "wavelengths in Å"),
            (["--channels", "94,131"], "channels"),
            (["--quantiles", "16,84"], "between 0 and 1"),
            (["--quantiles", "0.5", "--method", "basis-pursuit"], "basis-pursuit has none"),
        ],
    )
    def test_one_line_errors(self, folder, files, arguments, words):
        assert_one_line(run("invert", files, *arguments), words)
        assert names(folder) == []


class TestInvertMany:
    @pytest.fixture(scope="class")
    @classmethod
    def many(cls, tmp_path_factory):
        """Folder with the maps of two times and one of another wavelength."""
        folder = tmp_path_factory.mktemp("many") / "day"
        folder.mkdir()
        for smap in sample_maps((32, 32)):
            for minute in (0, 2):
                moved = later(smap, minute * u.min)
                moved.save(folder / f"aia_{minute}_{smap.wavelength.value:04.0f}.fits")
        changed(moved, wavelnth=304).save(folder / "aia_304.fits")
        return folder

    def test_one_file_per_time(self, folder, many):
        result = run("invert", many, "-o", "dem")
        assert result.exit_code == 0, result.output
        assert names(folder / "dem") == [
            "deepem_2014-01-01T000005.fits",
            "deepem_2014-01-01T000205.fits",
            "report.json",
        ]
        assert "Found 2 sets of channels, 0 incomplete or ambiguous; ignored maps: 1." in result.stderr
        assert "2 inverted, 0 skipped as done before, 0 failed" in result.stderr
        assert f"Report: {Path('dem') / 'report.json'}" in result.stderr

    def test_skip_done_sets(self, folder, many):
        assert run("invert", many, "-o", "dem", "-q").output == ""
        assert "0 inverted, 2 skipped as done before, 0 failed" in run("invert", many, "-o", "dem").stderr
        assert "2 inverted, 0 skipped" in run("invert", many, "-o", "dem", "--overwrite").stderr

    def test_failed_set(self, folder, many):
        files = [path for path in sorted(many.iterdir()) if path.name != "aia_0_0171.fits"]
        result = run("invert", *files, "-o", "dem", "-q")
        assert result.exit_code == 1
        assert "1 inverted, 0 skipped as done before, 1 failed\n  2014-01-01T00:00:05: missing: 171 Å" in result.stderr
        report = json.loads(Path("dem/report.json").read_text(encoding="utf-8"))
        assert [(each["status"], each["reason"]) for each in report["sets"]] == [
            ("failed", "missing: 171 Å"),
            ("done", None),
        ]

    def test_line_length(self, folder, many):
        files = [path for path in sorted(many.iterdir()) if path.name != "aia_0_0171.fits"]
        run("invert", *files, "-o", "dem")
        result = run("invert", *files, "-o", "dem", "--systematic", "0.2")
        lines = [line for line in result.stderr.splitlines() if "Sets:" not in line]  # without the progress bar
        assert len(lines) > 4
        assert max(map(len, lines)) <= 80

    def test_plots_and_maps(self, folder, many):
        assert run("invert", many, "-o", "dem", "--plot", "--quantiles", "0.5", "-q").exit_code == 0
        assert len(list(Path("dem").glob("*.png"))) == 2
        assert len(list(Path("dem").glob("*_q0.5.fits"))) == 8
        first, second = sorted(Path("dem").glob("*.png"))
        first.unlink()
        second.write_text("mine", encoding="utf-8")
        assert run("invert", many, "-o", "dem", "--plot", "-q").exit_code == 0
        assert first.exists()
        assert second.read_text(encoding="utf-8") == "mine"

    def test_without_a_channel(self, folder, many):
        files = [path for path in sorted(many.iterdir()) if not path.name.endswith("0193.fits")]
        result = run("invert", *files, "-o", "dem", "--channels", "94,131,171,211", "-q")
        assert result.exit_code == 0, result.output
        assert len(list(Path("dem").glob("*.fits"))) == 2

    def test_the_report_of_a_good_run_stays(self, folder, many):
        run("invert", many, "-o", "dem", "--shape", "32", "-q")
        good = Path("dem/report.json").read_text(encoding="utf-8")
        result = run("invert", many, "-o", "dem", "--shape", "16")
        assert result.exit_code == 1
        said = " ".join(result.stderr.split())
        assert "made with other shape. Pass --overwrite to replace it" in said
        assert "overwrite=True" not in said
        assert f"The report of an earlier run is kept: {Path('dem') / 'report.json'}" in said
        assert Path("dem/report.json").read_text(encoding="utf-8") == good

    def test_job_array(self, folder, many):
        for k in (1, 2, 3):
            result = run("invert", many, "-o", "dem", "--part", f"{k}/3")
            assert result.exit_code == 0, result.output
            assert f"Report: {Path('dem') / f'report-{k}-of-3.json'}" in result.stderr
            sets = "1 set" if k < 3 else "0 sets"
            assert f"Found {sets} of channels" in result.stderr
        assert len(list(Path("dem").glob("*.fits"))) == 2

    def test_since(self, folder, many):
        assert run("invert", many, "-o", "dem", "--since", "2014-01-01T01:01+01:00", "-q").exit_code == 0
        assert names(folder / "dem") == ["deepem_2014-01-01T000205.fits", "report.json"]
        result = run("invert", many, "-o", "none", "--since", "2014-01-02")
        assert (result.exit_code, names(folder / "none")) == (0, ["report.json"])

    def test_recursive(self, folder, many):
        assert_one_line(run("invert", many.parent, "-o", "dem"), "holds no FITS file")
        result = run("invert", many.parent, "--recursive", "-o", "dem", "--shape", "16")
        assert "2 inverted" in result.stderr

    def test_one_set_into_a_folder(self, folder, files):
        Path("dem").mkdir()
        assert run("invert", files, "-o", "dem").exit_code == 0
        assert names(folder / "dem") == ["deepem_2014-01-01T000005.fits", "report.json"]

    def test_one_set_into_a_new_folder(self, folder, files):
        assert run("invert", files, "-o", "new/2014.01.01").exit_code == 0
        assert names(folder / "new" / "2014.01.01") == ["deepem_2014-01-01T000005.fits", "report.json"]

    def test_archive(self, folder, many):
        pytest.importorskip("zarr")
        result = run("invert", many, "-o", "series.zarr", "--shape", "16")
        assert result.exit_code == 0, result.output
        assert "2 inverted" in result.stderr
        assert names(folder) == ["series-report.json", "series.zarr"]
        assert DEMCubeSequence.read("series.zarr").shape == (2, 18, 16, 16)
        assert "2 skipped" in run("invert", many, "-o", "series.zarr", "--shape", "16").stderr

    def test_sample_and_archive(self, folder):
        assert_one_line(run("invert", "--sample", "-o", "a.zarr"), "--sample needs --out to be a file or folder")

    def test_one_set_and_other_wavelengths(self, folder, many):
        files = [path for path in many.iterdir() if not path.name.startswith("aia_0_")]
        result = run("invert", *files, "-o", "a.fits")
        assert result.exit_code == 0, result.output
        assert "Ignored maps of other channels or times: 1." in result.stderr
        assert DEMCube.read("a.fits").shape == (18, 32, 32)

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ([], "MAPS are of many times (2 sets of channels, 0 incomplete or ambiguous; ignored maps: 1)"),
            (["-o", "dem.fits"], "out must be a folder"),
            (["-o", "dem", "--weights", "none.safetensors"], "none.safetensors"),
            (["-o", "dem", "--scheduler", "abacus"], "scheduler must be"),
            (["-o", "file/dem"], "cannot be written to"),
            (["-o", "dem.zarr", "--plot"], "--plot needs --out to be a file or folder, found the archive dem.zarr"),
            (["-o", "dem.zarr", "--quantiles", "0.5"], "--quantiles needs --out to be a file or folder"),
            (["-o", "file.zarr"], "file.zarr is not an archive of cubes"),
            (["--part", "1/2"], "--part needs maps of many times and a folder for their cubes, --out FOLDER"),
            (["-o", "dem.fits", "--since", "2014-01-01"], "out must be a folder"),
        ],
    )
    def test_one_line_errors(self, folder, many, arguments, words):
        Path("file").write_text("no folder")
        Path("file.zarr").write_text("no archive")
        if "file.zarr" in arguments:
            pytest.importorskip("zarr")
        if "--scheduler" in arguments:
            pytest.importorskip("distributed")
        assert_one_line(run("invert", many, *arguments), words)
        assert not list(folder.glob("**/deepem*"))


class TestSynthesize:
    def test_six_maps(self, folder, dem):
        result = run("synthesize", dem, "-o", "maps")
        assert result.exit_code == 0, result.output
        expected = [f"dem_synthetic_{channel:04d}.fits" for channel in (94, 131, 171, 193, 211, 335)]
        assert names(folder / "maps") == expected
        for name, smap in zip(expected, DEMCube.read(dem).synthesize(), strict=True):
            again = sunpy.map.Map(folder / "maps" / name)
            assert isinstance(smap, type(again))
            assert again.unit == smap.unit
            assert again.wavelength == smap.wavelength
            assert again.meta["content"] == "synthetic, from DEM"
            np.testing.assert_array_equal(again.data, smap.data)

    def test_invert_synthetic_maps(self, folder, dem):
        run("synthesize", dem)
        assert run("invert", ".", "--no-degradation", "-o", "again.fits").exit_code == 0

    def test_existing_file(self, folder, dem):
        Path("dem_synthetic_0335.fits").write_text("precious")
        assert_one_line(run("synthesize", dem), "dem_synthetic_0335.fits exists", "--overwrite")
        assert names(folder) == ["dem_synthetic_0335.fits"]
        assert run("synthesize", dem, "--overwrite").exit_code == 0
        assert len(names(folder)) == 6

    @pytest.mark.parametrize("content", [None, b"", b"no FITS"])
    def test_no_cube(self, folder, content):
        if content is not None:
            Path("cube.fits").write_bytes(content)
        assert_one_line(run("synthesize", "cube.fits", "-o", "maps"), "cube.fits")

    def test_file_instead_of_a_folder(self, folder, dem):
        Path("file").write_text("precious")
        assert_one_line(run("synthesize", dem, "-o", "file"), "--out must be a folder, found the file file")
        assert not Path("maps").exists()


class TestShow:
    def test_png(self, folder, dem):
        assert run("show", dem, "-o", "look.png").exit_code == 0
        assert names(folder) == ["look.png"]
        assert_one_line(run("show", dem, "-o", "look.png"), "look.png exists")

    def test_default_page(self, folder, dem):
        Path("dem.fits").write_bytes(dem.read_bytes())
        result = run("show", "dem.fits")
        assert result.exit_code == 0, result.output
        assert result.stderr == "Wrote dem.html\n"
        assert names(folder) == ["dem.fits", "dem.html"]
        assert_one_line(run("show", "dem.fits"), "dem.html exists", "--overwrite")

    @pytest.mark.parametrize(("options", "opened"), [([], 0), (["--no-open"], 0), (["--open"], 1)])
    def test_open(self, folder, dem, monkeypatch, options, opened):
        pages = []
        monkeypatch.setattr("webbrowser.open", pages.append)
        assert run("show", dem, "-o", "look.html", *options).exit_code == 0
        assert pages == [(folder / "look.html").as_uri()] * opened

    def test_invalid_suffix(self, folder, dem):
        assert_one_line(run("show", dem, "-o", "look.pdf"), "--out must end in .html", ".png", "found look.pdf")
        assert names(folder) == []

    def test_without_bokeh(self, folder, dem, monkeypatch):
        monkeypatch.setitem(sys.modules, "bokeh.embed", None)
        monkeypatch.delitem(sys.modules, "sunpy_deepem.visualization.viewer", raising=False)
        assert_one_line(run("show", dem, "-o", "look.html"), 'pip install "sunpy_deepem[viewer]"')
        assert names(folder) == []

    def test_no_cube(self, folder):
        assert_one_line(run("show", "cube.fits"), "cube.fits")


class TestInfo:
    @pytest.mark.parametrize("weights", ["default", "neutral"])
    def test_packaged_weights(self, weights):
        result = run("info", weights)
        assert result.exit_code == 0
        assert result.output.startswith(f"Weights          {weights}\nNetwork          scaled, 25→")
        for words in ("5.5 to 7.2 in 18 bins", "Seed             0", "deepem train --prior"):
            assert words in result.output
        assert max(map(len, result.output.splitlines())) <= 80

    def test_weights_in_a_long_path(self, folder):
        path = folder / ("long" * 30) / "mine.safetensors"
        path.parent.mkdir()
        DeepEM.load().save(path)
        result = run("info", path)
        assert result.exit_code == 0
        assert max(map(len, result.output.splitlines())) <= 80

    def test_missing_weights(self, folder):
        assert_one_line(run("info", "none.safetensors"), "none.safetensors")


def test_help():
    result = run("-h")
    assert result.exit_code == 0
    for command in ("invert", "fetch", "synthesize", "train", "show", "info"):
        assert command in result.output
        assert run(command, "--help").exit_code == 0


def test_help_of_train_states_the_defaults():
    text = " ".join(run("train", "--help").output.split())
    for name in ("batch_size", "learning_rate"):
        on_prior, on_maps = getattr(DRAWS_OPTIONS, name), getattr(TrainingOptions(), name)
        assert f"[default: {on_prior:g} with --prior, {on_maps:g} with --maps]" in text
    assert f"[default: {DRAWS_OPTIONS.epochs} with --prior, 200 with --maps]" in text
    assert f"[default: {POSTERIOR_OPTIONS.epochs}]" in text


def test_version():
    assert run("--version").exit_code == 0


def test_console_script(tmp_path, files):
    command = Path(sys.executable).with_name("deepem")
    if not command.exists():
        pytest.skip("the command is not installed beside Python")
    done = subprocess.run(
        [command, "invert", files, "-o", "dem.fits", "-q"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert names(tmp_path) == ["dem.fits"]
