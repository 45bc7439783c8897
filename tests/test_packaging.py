"""Installed files, dependencies, and behaviour without optional packages."""

import re
import subprocess
import sys
import tomllib
from importlib import import_module, resources
from pathlib import Path
from pkgutil import walk_packages

import pytest

import sunpy_deepem

ROOT = Path(__file__).parents[1]
EXTRAS_FOR_DEVELOPERS = {"all", "tests", "docs", "dev", "peers"}


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.mark.parametrize(
    "name",
    [
        "__init__.pyi",
        "py.typed",
        "data/README.rst",
        "data/aia_20140101/AIA20140101_0000_0094.fits",
        "data/aia_v10_degradation.ecsv",
        "data/aia_v10_temperature_response.ecsv",
        "data/aia_v3_errors.ecsv",
        "data/default.safetensors",
        "io/asdf/manifests/sunpy_deepem-1.0.0.yaml",
        "io/asdf/schemas/dem_cube-1.0.0.yaml",
        "io/asdf/schemas/log_t_bins-1.0.0.yaml",
        "io/asdf/schemas/temperature_response-1.0.0.yaml",
    ],
)
def test_data_files_are_installed(name):
    assert resources.files(sunpy_deepem).joinpath(name).is_file()


def test_licenses_name_all_data():
    text = (ROOT / "licenses" / "README.rst").read_text(encoding="utf-8")
    data = [
        path.name
        for path in resources.files("sunpy_deepem.data").iterdir()
        if path.suffix in (".ecsv", ".safetensors") or (path.is_dir() and path.name != "__pycache__")
    ]
    assert "aia_20140101" in data
    assert [name for name in data if name not in text] == []


def test_all_contains_every_extra_for_users(project):
    extras = project["optional-dependencies"]
    (names,) = extras["all"]
    assert set(re.search(r"\[(.*)\]", names)[1].split(",")) == extras.keys() - EXTRAS_FOR_DEVELOPERS


def test_every_dependency_has_a_lowest_version(project):
    """Tox's oldestdeps environment tests these versions."""
    needed = project["dependencies"] + [
        one for name, extra in project["optional-dependencies"].items() if name != "dev" for one in extra
    ]
    assert [one for one in needed if ">=" not in one and not re.match(r"sunpy_deepem\[|ndcube\[plotting\]", one)] == []


def test_names_of_changelog_fragments():
    kinds = "breaking|feature|bugfix|doc|trivial"
    names = [path.name for path in (ROOT / "changelog").iterdir() if path.name != "README.rst"]
    assert [name for name in names if not re.fullmatch(rf"\d+\.({kinds})(\.\d+)?\.rst", name)] == []


def test_public_names_exist():
    modules = [one.name for one in walk_packages(sunpy_deepem.__path__, "sunpy_deepem.")]
    public = [name for name in modules if not any(part.startswith("_") for part in name.split("."))]
    assert "sunpy_deepem.training.prior" in public
    for name in public:
        module = import_module(name)
        assert [each for each in getattr(module, "__all__", ()) if not hasattr(module, each)] == [], name


WITHOUT_EXTRAS = r"""
import sys

ABSENT = ("asdf", "asdf_astropy", "bokeh", "demregpy", "distributed", "fiasco", "regions", "xarray", "zarr")


class Without:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in ABSENT else self.finder.find_spec(name, path, target)


sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
import sunpy_deepem

print("torch imported:", "torch" in sys.modules)
from sunpy_deepem.io import DEMArchive
from sunpy_deepem.response.emissivity import Emissivity
from sunpy_deepem.sample import sample_maps

maps = sample_maps((24, 24))
cube = sunpy_deepem.invert(maps)
cube.write("cube.fits")
print("read:", sunpy_deepem.DEMCube.read("cube.fits").synthesize()[0].data.shape)
cube.plot_summary()
for name, use in {
    "asdf": lambda: cube.write("cube.asdf"),
    "xarray": cube.to_xarray,
    "zarr": lambda: DEMArchive.create("cubes.zarr", (24, 24), cube.bins),
    "viewer": cube.view,
    "demregpy": lambda: sunpy_deepem.invert(maps, method="demregpy"),
    "fiasco": Emissivity.from_fiasco,
}.items():
    try:
        use()
        print(name, "worked")
    except ImportError as error:
        print(f"{name}: {error}")
"""


@pytest.mark.slow
def test_without_optional_packages(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS], capture_output=True, text=True, cwd=tmp_path, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    lines = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert lines.pop("torch imported") == "False"
    assert lines.pop("read") == "(24, 24)"
    for extra in ("asdf", "xarray", "zarr", "viewer", "demregpy"):
        assert f"sunpy_deepem[{extra}]" in lines.pop(extra)
    assert "pip install fiasco" in lines.pop("fiasco")
    assert not lines
    assert not (tmp_path / "cube.asdf").exists()


@pytest.mark.slow
def test_products_have_types_where_sunpy_has_none(tmp_path, monkeypatch):
    mypy = pytest.importorskip("mypy.api")
    script = tmp_path / "script.py"
    script.write_text(
        "from sunpy_deepem import invert\n"
        "dem = invert([])\n"
        "reveal_type((dem, dem.total_em(), dem.curve(), dem.rebin((1, 2, 2)), dem.chi2))\n",
        encoding="utf-8",
    )
    options = ["--ignore-missing-imports", "--follow-imports=silent", f"--cache-dir={tmp_path}", "--no-incremental"]
    monkeypatch.setenv("MYPYPATH", str(ROOT))
    found, _, _ = mypy.run([*options, str(script)])
    cube = "sunpy_deepem.cube.dem_cube.DEMCube"
    types = (cube, "sunpy_deepem.utils.product_maps.DerivedMap", "sunpy_deepem.analysis.curves.EMCurve", cube)
    assert f'Revealed type is "tuple[{", ".join(types)}, numpy.ndarray' in found
