"""Code in the documentation imports existing names, and runs where it needs neither files nor a network."""

import ast
import importlib
import inspect
import os
import re
import runpy
import subprocess
import sys
import textwrap
from importlib import resources
from pathlib import Path

import astropy.units as u
import hostile
import matplotlib.pyplot as plt
import numpy as np
import pytest
import sunpy.map
from astropy.coordinates import SkyCoord
from file_server import PATTERN, open_archive

from sunpy_deepem import DEMCube
from sunpy_deepem.sample import real_maps, sample_maps
from sunpy_deepem.series import invert_series

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="needs the docs folder of a checkout")

PAGES = sorted(path for folder in (".", "howto", "topics") for path in (ROOT / "docs" / folder).glob("*.rst"))
REFERRING = [*PAGES, *sorted((ROOT / "docs" / "reference").glob("*.rst")), *sorted((ROOT / "changelog").glob("*.rst"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
TUTORIAL = ROOT / "examples" / "plot_0_tutorial.py"
_BLOCK = re.compile(r"^\.\. code-block:: python\n(?:   :.*\n)*\n((?:(?: {4}.*)?\n)+)", re.MULTILINE)
# Columns of code; a page of 1280 pixels shows about 90 and wraps longer lines
_PAGE_WIDTH = 100
_REFERENCE = re.compile(r"(?:`~?|^\.\. auto\w+:: )(sunpy_deepem(?:\.\w+)+)(?:`|$)", re.MULTILINE)

# Pages, and the numbers of their code blocks that run in this order without changes
RUNNING = {
    "howto/archive.rst": (0, 1, 2, 3, 4),
    "howto/cutouts.rst": (0, 1, 2),
    "howto/flares.rst": (2, 3),
    "howto/missing_channels.rst": (0, 1, 2),
    "howto/offline.rst": (0,),
    "howto/compare_methods.rst": (0, 1),
    "howto/overlay.rst": (0, 1, 2, 3, 4, 5),
    "howto/own_prior.rst": (0, 1),
    "howto/own_teacher.rst": (0,),
    "topics/intervals.rst": (0, 1, 2, 3, 4, 5),
    "topics/network.rst": (0,),
    "topics/trust.rst": (0,),
}


def blocks(page):
    return [textwrap.dedent(block) for block in _BLOCK.findall(page.read_text(encoding="utf-8") + "\n")]


def imports(source):
    """Return pairs of module and name that the source imports from the package."""
    found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    found = [node for node in found if node.module.startswith("sunpy_deepem")]
    return [(node.module, alias.name) for node in found for alias in node.names]


def exists(name):
    """Whether an object of the package can be imported by its full name."""
    module, *attributes = name.split(".")
    found = importlib.import_module(module)
    for attribute in attributes:
        module += f".{attribute}"
        try:
            found = getattr(found, attribute)
        except AttributeError:
            try:
                found = importlib.import_module(module)
            except ImportError:
                return False
    return True


@pytest.fixture
def figures():
    yield
    plt.close("all")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_code_in_pages_imports_existing_names(page):
    code = blocks(page)
    assert len(code) == page.read_text(encoding="utf-8").count(".. code-block:: python")
    for block in code:
        for module, name in imports(block):
            assert hasattr(importlib.import_module(module), name), f"{page.name}: from {module} import {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_code_in_pages_fits_the_page(page):
    assert [line for block in blocks(page) for line in block.splitlines() if len(line) > _PAGE_WIDTH] == []


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_import_existing_names(example):
    for module, name in imports(example.read_text(encoding="utf-8")):
        assert hasattr(importlib.import_module(module), name), f"{example.name}: from {module} import {name}"


@pytest.mark.parametrize("page", REFERRING, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_references_to_the_package_exist(page):
    missing = [name for name in _REFERENCE.findall(page.read_text(encoding="utf-8")) if not exists(name)]
    assert missing == []


@pytest.mark.parametrize(("page", "numbers"), RUNNING.items(), ids=RUNNING)
def test_code_in_pages_runs(page, numbers, figures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, namespace = blocks(ROOT / "docs" / page), {}
    for number in numbers:
        exec(compile(code[number], f"{page}, block {number}", "exec"), namespace)


def test_overlay_of_a_rotated_magnetogram(figures):
    """The function of the page puts a spot of a map with HMI's header, rotated by 180°, where it is on the Sun."""
    code, namespace = blocks(ROOT / "docs" / "howto/overlay.rst"), {}
    for block in code[:3]:
        exec(compile(block, "howto/overlay.rst", "exec"), namespace)
    em, spot = namespace["hot"], (600, -290)
    n, pixel = 400, 5.0
    header = {"cunit1": "arcsec", "cunit2": "arcsec", "crpix1": n / 2 + 0.5, "crpix2": n / 2 + 0.5, "crval1": 0.0}
    header |= {"ctype1": "HPLN-TAN", "ctype2": "HPLT-TAN", "cdelt1": pixel, "cdelt2": pixel, "crval2": 0.0}
    header |= {"crota2": 180.08, "telescop": "SDO/HMI", "instrume": "HMI_SIDE1", "content": "MAGNETOGRAM"}
    header |= {"bunit": "Gauss", "t_obs": "2014.01.01_00:00:22_TAI", "date-obs": "2013-12-31T23:59:02.80"}
    header |= {"rsun_ref": 696e6}
    header |= {name: em.meta[name] for name in ("dsun_obs", "hgln_obs", "hglt_obs")} | {"wavelnth": 6173.0}
    magnetogram = sunpy.map.Map(np.zeros((n, n)), header)
    column, row = magnetogram.world_to_pixel(SkyCoord(*spot * u.arcsec, frame=magnetogram.coordinate_frame))
    y, x = np.indices((n, n))
    magnetogram.data[:] = 1000 * np.exp(-np.hypot(x - column.value, y - row.value) / 4)
    assert column.value < n / 2 < row.value  # the Sun is upside down

    axes = namespace["overlay"](magnetogram, em).axes[0]
    (contours,) = axes.collections
    vertices = np.concatenate([path.vertices for path in contours.get_paths()])
    display = contours.get_transform().transform(vertices)
    drawn = em.pixel_to_world(*axes.transData.inverted().transform(display).T * u.pix)
    np.testing.assert_allclose(drawn.Tx.to_value("arcsec").mean(), spot[0], atol=2 * pixel)
    np.testing.assert_allclose(drawn.Ty.to_value("arcsec").mean(), spot[1], atol=2 * pixel)

    same = magnetogram.reproject_to(em.wcs)
    row, column = np.unravel_index(np.nanargmax(same.data), same.data.shape)
    place = em.pixel_to_world(column * u.pix, row * u.pix)
    np.testing.assert_allclose([place.Tx.value, place.Ty.value], spot, atol=2 * em.scale[0].value)


def test_tutorial_runs_without_a_network(tmp_path, monkeypatch, figures, capsys):
    monkeypatch.chdir(tmp_path)
    namespace = runpy.run_path(str(TUTORIAL))
    assert (tmp_path / "active_region.pdf").stat().st_size > 10_000
    assert DEMCube.read("active_region.fits").data.shape == namespace["region"].data.shape
    assert f"{namespace['curve'].n_pixels} pixels" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plot_2_roundtrip", "plot_6_time_series", "plot_9_flare"])
def test_examples_run_without_warnings(name, figures, capsys):
    """Pages of the gallery would hold the warnings, which are errors here, and lines that are cut."""
    source = (ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8")
    synthetic = source.split("# %%\n# Cutouts of a real flare")[0]
    exec(compile(synthetic, name, "exec"), {})
    assert [line for line in capsys.readouterr().out.splitlines() if len(line) > _PAGE_WIDTH] == []


def test_tutorial_downloads_what_it_reads(monkeypatch):
    """The code of the download runs word for word, with files of the package in place of those of the archive."""
    fetch = importlib.import_module("sunpy_deepem.fetch")
    asked = []
    folder = resources.files("sunpy_deepem.data") / "aia_20140101"
    signature = inspect.signature(fetch.fetch)

    def from_package(*args, **kwargs):
        asked.append((args, kwargs))
        return sorted(folder.iterdir())

    monkeypatch.setattr(fetch, "fetch", from_package)
    text = ast.get_docstring(ast.parse(TUTORIAL.read_text(encoding="utf-8")))
    (download,) = (textwrap.dedent(block) for block in _BLOCK.findall(text + "\n"))
    namespace = {}
    exec(compile(download, "tutorial, download", "exec"), namespace)
    ((args, kwargs),) = asked
    signature.bind(*args, **kwargs)
    dates = [sorted(smap.meta["date-obs"] for smap in maps) for maps in (namespace["maps"], real_maps())]
    assert dates[0] == dates[1]


# Points sunpy to an archive and a folder, and runs the rest of the arguments' file.
_WITH_ARCHIVE = """
import runpy, sys
import sunpy
from sunpy.net.dataretriever.sources.aia_synopsis import AIASynopsisClient

AIASynopsisClient.pattern = sys.argv[1]
sunpy.config.set("downloads", "download_dir", sys.argv[2])
runpy.run_path(sys.argv[3], run_name="__main__")
"""


@pytest.mark.slow
def test_tutorial_runs_with_a_download(tmp_path):
    """In a fresh interpreter, the code of the download in place of the packaged maps, from an archive on loopback."""
    text = TUTORIAL.read_text(encoding="utf-8")
    (download,) = (textwrap.dedent(block) for block in _BLOCK.findall(ast.get_docstring(ast.parse(text)) + "\n"))
    offline = "maps = real_maps()\n"
    assert text.count(offline) == 1
    (tmp_path / "tutorial.py").write_text(text.replace(offline, download), encoding="utf-8")
    with open_archive() as archive:
        archive.add("2014-01-01T00:00")
        arguments = [archive.url + PATTERN, str(tmp_path), "tutorial.py"]
        done = subprocess.run(
            [sys.executable, "-c", _WITH_ARCHIVE, *arguments],
            cwd=tmp_path,
            env=os.environ | {"MPLBACKEND": "agg"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert sorted(archive.downloads()) == sorted(path.name for path in (tmp_path / "aia").iterdir())
    assert "(18, 256, 256) 1 / cm5" in done.stdout
    assert (tmp_path / "active_region.pdf").stat().st_size > 10_000
    assert DEMCube.read(tmp_path / "active_region.fits").shape[1:] == (45, 53)


def test_light_curve_runs(figures):
    times = ("2014-01-01T00:00", "2014-01-01T00:02")
    sequence = invert_series([smap for time in times for smap in sample_maps((64, 64), obstime=time)])
    namespace = {"sequence": sequence}
    exec(blocks(ROOT / "docs" / "howto" / "time_series.rst")[1], namespace)
    assert len(namespace["curve"]) == 2


def test_page_of_bad_input_is_up_to_date():
    assert hostile.PAGE.read_text(encoding="utf-8") == hostile.page(), "run: python tests/hostile.py"
