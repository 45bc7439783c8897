"""Tests of the interactive viewer: the data of the page and, if a browser is installed, the displayed page."""

import io
import json
import re
import shutil

import astropy.units as u
import matplotlib.image
import numpy as np
import pytest
from helpers import changed, cube_from_arrays, true_cube

from sunpy_deepem import CHANNELS, Quality, invert
from sunpy_deepem.analysis import em_loci
from sunpy_deepem.sample import sample_maps
from sunpy_deepem.units import COVERAGE

pytest.importorskip("bokeh", reason='the viewer is an extra: pip install "sunpy_deepem[viewer]"')

from bokeh.models import ColumnDataSource, CustomJS, LayoutDOM, Slider

from sunpy_deepem.visualization import packing, viewer
from sunpy_deepem.visualization.viewer import view, write_page

N = 32
MASKED = (6, 7)  # row, column


@pytest.fixture(scope="module")
def cube():
    """A cube of the true EM with missing and saturated pixels and a negative one."""
    maps = list(sample_maps((N, N)))
    for index in range(4):  # two channels are left, too few
        data = maps[index].data.copy()
        data[5:9, 7] = np.nan
        if index == 2:
            data[20, 3], data[1, 2] = 16000, -5
        maps[index] = changed(maps[index], data=data)
    return true_cube(maps, N)


def rebuilt(cube, em=None, std=None, **cards):
    """Return the cube with other EM or header cards."""
    options = {"intensity": cube.intensity, "uncertainty": cube.intensity_uncertainty, "quality": cube.quality}
    em = cube.data if em is None else em
    return cube_from_arrays(em, std, cube.response, cube.sky_header | cards, cube.inputs, **options)


def rotated(cube, degrees):
    """Return the cube with a rotated WCS."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return rebuilt(cube, std=cube.uncertainty.array, pc1_1=cos, pc1_2=-sin, pc2_1=sin, pc2_2=cos, crval1=200.0)


def stores(layout):
    """Return the data of the page as arrays: codes of EM and its band, intensity, noise, chi2, quality and mask."""
    sources = [model for model in layout.references() if isinstance(model, ColumnDataSource)]
    (store,) = [source for source in sources if "masked" in source.data and len(source.data["masked"])]
    data = {name: column[0] for name, column in store.data.items()}
    (sky,) = [model for model in layout.references() if isinstance(model, CustomJS) and "packed" in model.args]
    ny, nx = sky.args["ny"], sky.args["nx"]
    chained = {"em", "band"}
    codes = {name: unpacked(data[name], ny, nx, name in chained) for name in (*chained, "intensity", "noise", "chi2")}
    steps = viewer._STEPS
    intensity = packing.signed_values(codes["intensity"], steps["intensity"])
    noise = 10 ** ((codes["noise"] - 10_000.0) * steps["noise"] + np.arcsinh(intensity / 0.01) / np.log(10))
    chi2 = np.where(codes["chi2"] > 0, 10 ** (-12 + (codes["chi2"] - 1.0) * steps["chi2"]), np.nan)
    return data | codes | {"intensity": intensity, "noise": noise, "chi2": chi2}


def unpacked(encoded, ny, nx, chained):
    """Return the codes ``(n, ny, nx)`` of bytes, pixel by pixel as the page does."""
    upper, lower = encoded.astype(int).reshape(2, -1, ny, nx)
    folded = upper << 8 | lower
    codes = np.where(folded & 1, -(folded >> 1) - 1, folded >> 1)
    if chained:
        codes = np.cumsum(codes, axis=0)
    for y, x in np.ndindex(ny, nx):
        left, below = codes[:, y, x - 1], codes[:, y - 1, x]
        codes[:, y, x] += (left + below) >> 1 if x and y else left if x else below if y else 0
    return codes


def precision(name):
    """Return the largest relative error of a value of the page by rounding."""
    return 10 ** (viewer._STEPS[name] / 2) - 1 + 1e-6


class TestPage:
    def test_layout(self, cube):
        assert isinstance(cube.view(), LayoutDOM)

    def test_self_contained_file(self, cube, tmp_path):
        write_page(cube, tmp_path / "sun.html")
        assert [path.name for path in tmp_path.iterdir()] == ["sun.html"]
        text = (tmp_path / "sun.html").read_text()
        assert "Emission measure, 2014-01-01T00:00" in text
        # Strings inside the libraries may contain links.
        assert not re.search(r"^\s*<(script|link|img)[^>]*(src|href)=", text, flags=re.MULTILINE)

    def test_existing_file(self, cube, tmp_path):
        path = tmp_path / "sun.html"
        path.write_text("precious")
        with pytest.raises(FileExistsError, match=r"sun\.html exists"):
            write_page(cube, path)
        assert path.read_text() == "precious"
        write_page(cube, path, overwrite=True)
        assert path.read_text() != "precious"

    def test_all_flags_are_described(self):
        assert set(viewer._FLAG_WORDS) == set(Quality)

    @pytest.mark.parametrize("max_pixels", [0, -1, 2.5, True, "many"])
    def test_invalid_max_pixels(self, cube, max_pixels):
        with pytest.raises(ValueError, match="max_pixels must be a positive whole number"):
            view(cube, max_pixels=max_pixels)

    def test_missing_axis(self, cube):
        with pytest.raises(ValueError, match="needs the axes log T, y, x"):
            cube[3].view()


class TestData:
    def test_em_and_its_band(self):
        dem = invert(sample_maps((8, 8)))
        found = stores(view(dem))
        interval = ((1 - COVERAGE) / 2, (1 + COVERAGE) / 2)
        limits = [dem.bin_map(log_t, quantiles=interval, n=viewer._DRAWS) for log_t in dem.log_t]
        low, high = np.moveaxis([[smap.data for smap in pair] for pair in limits], 1, 0)
        lowest, total = np.log10(np.nanmax(dem.data)) - viewer._DECADES, np.nansum(dem.data, axis=0)
        for name, step, values, codes in (
            ("em", "em", dem.data, found["em"]),
            ("band", "band", low, found["band"][:18]),
            ("band", "band", high, found["band"][18:]),
        ):
            seen = values > 1.01 * viewer._NEGLIGIBLE[name] * total
            decoded = 10 ** (lowest + (codes[seen] - 1.0) * viewer._STEPS[step])
            np.testing.assert_allclose(decoded, values[seen], rtol=precision(step))
            assert not codes[values < 0.99 * viewer._NEGLIGIBLE[name] * total].any()

    def test_precision_of_other_values(self, cube):
        found, shape = stores(view(cube)), (6, N, N)
        g, sigma = cube.intensity.value, cube.intensity_uncertainty.value
        bright = g > 1  # the scale is linear near zero
        np.testing.assert_allclose(found["intensity"].reshape(shape)[bright], g[bright], rtol=precision("intensity"))
        np.testing.assert_array_equal(np.isnan(found["intensity"].reshape(shape)), np.isnan(g))
        known = np.isfinite(g)
        np.testing.assert_allclose(found["noise"].reshape(shape)[known], sigma[known], rtol=precision("noise"))
        seen = np.isfinite(cube.chi2)
        np.testing.assert_allclose(found["chi2"].reshape(N, N)[seen], cube.chi2[seen], rtol=1e-3)

    def test_page_is_small(self, tmp_path):
        write_page(invert(sample_maps((64, 64)), method="basis-pursuit"), tmp_path / "small.html")
        write_page(invert(sample_maps((128, 128)), method="basis-pursuit"), tmp_path / "large.html")
        small, large = ((tmp_path / name).stat().st_size for name in ("small.html", "large.html"))
        per_pixel = (large - small) / (128**2 - 64**2)
        assert small + per_pixel * (256**2 - 64**2) < 5e6

    def test_max_pixels(self, cube):
        fine, coarse = stores(view(cube[:, :30])), stores(view(cube[:, :30], max_pixels=20))
        assert fine["chi2"].size == 30 * 32
        assert coarse["chi2"].size == 15 * 16
        assert coarse["em"].size == 18 * 15 * 16

    def test_binned_pixels_are_means(self, cube):
        coarse = stores(view(cube[:, :, :31], max_pixels=16))
        g = cube.intensity.value[:, :, :30].reshape(6, 16, 2, 15, 2).mean(axis=(2, 4))
        seen = coarse["masked"].reshape(16, 15) == 0
        shown = coarse["intensity"].reshape(6, 16, 15)[:, seen]
        # On the linear part of the scale near zero, a step is 5e-5.
        np.testing.assert_allclose(shown, g[:, seen], rtol=precision("intensity"), atol=5e-5)

    @pytest.mark.parametrize(
        "item",
        [np.s_[:13, 4:10, 2:30], np.s_[:, 5:6, 7:8], np.s_[3:4], np.s_[:, 10:11, 12:13]],
        ids=["cutout", "one masked pixel", "one bin", "one pixel"],
    )
    def test_sliced_cube(self, cube, item, tmp_path):
        part = cube[item]
        write_page(part, tmp_path / "part.html")
        assert stores(view(part))["em"].size == part.data.size
        (slider,) = [model for model in view(part).references() if isinstance(model, Slider)]
        assert slider.start < slider.end

    @pytest.mark.parametrize("value", [0, np.nan])
    def test_empty_cube(self, cube, value, tmp_path):
        empty = rebuilt(cube, np.full_like(cube.data, value))
        write_page(empty, tmp_path / "empty.html")
        assert not stores(view(empty))["em"].any()


# ---------------------------------------------------------------------------------------------------------------------
# In a browser
# ---------------------------------------------------------------------------------------------------------------------

_CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_DRIVER = shutil.which("chromedriver")

needs_browser = pytest.mark.skipif(
    _CHROMIUM is None or _DRIVER is None, reason="no browser: chromium and chromedriver are not on the path"
)


_READOUT = re.compile(
    r"x, y = (?P<x>\S+)″, (?P<y>\S+)″ \(row (?P<row>\d+), column (?P<column>\d+)\)(?P<held>, held)?\s+"
    r"χ² (?P<chi2>\S+), EM-weighted log T (?P<log_t>\S+), total EM (?P<total>\S+) cm⁻⁵\s+(?P<words>.*)"
)


class Page:
    """A page in Chromium with the actions of a user."""

    def __init__(self, driver, cube, path, **options):
        self.driver = driver
        self.cube = cube
        write_page(cube, path, overwrite=True, **options)
        driver.get_log("performance")  # drop the requests of earlier pages
        driver.get(path.as_uri())
        self.until(lambda: "x, y" in self.text("readout"))

    def run(self, script, *arguments):
        """Run a script in which ``view(name)`` finds the view of a named model."""
        find = "const view = (name) => Bokeh.index.find_one(Bokeh.documents[0].get_model_by_name(name)); "
        return self.driver.execute_script(find + script, *arguments)

    def until(self, condition):
        from selenium.common import JavascriptException
        from selenium.webdriver.support.wait import WebDriverWait

        wait = WebDriverWait(self.driver, 20, poll_frequency=0.05, ignored_exceptions=[JavascriptException])
        return wait.until(lambda _: condition())

    def readout(self):
        """Return the readout of the pixel after pending drawing."""
        self.until(lambda: self.run("return Bokeh.documents[0].is_idle"))
        return _READOUT.search(self.text("readout")).groupdict()

    def text(self, name):
        """Return the displayed text of a part of the page."""
        return self.run("return view(arguments[0]).shadow_el.querySelector('.bk-clearfix').innerText", name)

    def table(self):
        """Return the table, one row per channel: observed, σ, synthetic, ratio, residual."""
        lines = self.text("table").strip().splitlines()[1:]
        assert [line.split()[:2] for line in lines] == [[str(channel), "Å"] for channel in CHANNELS]
        return np.array([[float(word) for word in line.replace("±", "").split()[2:]] for line in lines])

    def source(self, name):
        """Return the columns of a named source as lists."""
        script = "return JSON.stringify(Bokeh.documents[0].get_model_by_name(arguments[0]).data, (key, value) => "
        plain = "ArrayBuffer.isView(value) ? Array.from(value) : value === null ? NaN : value)"
        return json.loads(self.run(script + plain, name))

    def place(self, row, column):
        """Return the screen position of a pixel of the cube."""
        frame = self.run(
            """const sky = view("sky"), {x, y} = sky.canvas_view.el.getBoundingClientRect(), {bbox} = sky.frame
            return [x + bbox.left, y + bbox.top, bbox.width, bbox.height]"""
        )
        left, top, width, height = frame
        ny, nx = self.cube.data.shape[1:]
        return round(left + (column + 0.5) / nx * width), round(top + height - (row + 0.5) / ny * height)

    def point(self, row, column, *, click=False):
        from selenium.webdriver.common.actions.action_builder import ActionBuilder

        actions = ActionBuilder(self.driver, duration=20)
        actions.pointer_action.move_to_location(*self.place(row, column))
        if click:
            actions.pointer_action.click()
        actions.perform()
        # Pointer events take effect with the next frame.
        self.driver.execute_async_script(
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(done))"
        )

    def widget(self, kind, selector):
        """Return the element that matches a selector in the only widget of a kind."""
        return self.run(
            """const [model] = [...Bokeh.documents[0].all_models].filter((model) => model.type == arguments[0])
            return Bokeh.index.find_one(model).shadow_el.querySelector(arguments[1])""",
            kind,
            selector,
        )

    def image(self):
        """Return the displayed image, shape (ny, nx), with NaN for gray."""
        shown = self.run('return Array.from(Bokeh.documents[0].get_model_by_name("image").data.image[0], String)')
        return np.array([float(value) for value in shown]).reshape(self.cube.data.shape[1:])

    def screenshot(self):
        return matplotlib.image.imread(io.BytesIO(self.driver.get_screenshot_as_png()))[:, :, :3]


@pytest.fixture(scope="module")
def driver():
    pytest.importorskip("selenium")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = _CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1300,950"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=_DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page(driver, cube, tmp_path_factory):
    return Page(driver, cube, tmp_path_factory.mktemp("page") / "sun.html")


@needs_browser
class TestInBrowser:
    def test_no_requests_and_no_warnings(self, page):
        messages = [json.loads(entry["message"])["message"] for entry in page.driver.get_log("performance")]
        requested = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        assert any(url.endswith("sun.html") for url in requested)
        assert not [url for url in requested if not url.startswith(("file:", "data:"))]
        # The oldest supported bokeh causes a hint about rendering speed.
        entries = [entry for entry in page.driver.get_log("browser") if "will-read-frequently" not in entry["message"]]
        assert not [entry for entry in entries if entry["level"] in ("WARNING", "SEVERE")]

    def test_brightest_pixel_is_first(self, page, cube):
        row, column = np.unravel_index(np.nanargmax(cube.data.sum(axis=0)), (N, N))
        assert page.readout()["row"] == str(row)
        assert page.readout()["column"] == str(column)

    @pytest.mark.parametrize(("row", "column"), [(20, 12), (3, 29), (31, 0)])
    def test_readout_of_pixel(self, page, cube, row, column):
        page.point(row, column)
        read = page.readout()
        sky = cube.total_em().pixel_to_world(column * u.pix, row * u.pix)
        assert float(read["x"]) == pytest.approx(sky.Tx.to_value("arcsec"), abs=0.1)
        assert float(read["y"]) == pytest.approx(sky.Ty.to_value("arcsec"), abs=0.1)
        assert float(read["chi2"]) == pytest.approx(cube.chi2[row, column], rel=1e-3)
        assert float(read["log_t"]) == pytest.approx(cube.em_weighted_log_t().data[row, column], abs=0.006)
        assert float(read["total"]) == pytest.approx(cube.data[:, row, column].sum(), rel=6e-3 + precision("em"))
        observed, sigma, synthetic, ratio, residual = page.table().T
        g, error = cube.intensity.value[:, row, column], cube.intensity_uncertainty.value[:, row, column]
        model = np.array([smap.data[row, column] for smap in cube.synthesize()])
        # The page shows three digits.
        np.testing.assert_allclose(observed, g, rtol=precision("intensity") + 5e-3)
        np.testing.assert_allclose(sigma, error, rtol=precision("noise") + 5e-3)
        np.testing.assert_allclose(synthetic, model, rtol=precision("em") + 5e-3)
        rounding = precision("em") + precision("intensity")
        np.testing.assert_allclose(ratio, model / g, atol=0.006, rtol=rounding)
        np.testing.assert_allclose(residual, (g - model) / error, atol=0.06 + rounding * (g / error).max())

    def test_curve_and_loci(self, page, cube):
        row, column = 18, 14
        page.point(row, column)
        em, sigma = cube.data[:, row, column], cube.uncertainty.array[:, row, column]
        seen = em > em.max() * 1e-4
        curve = {name: np.array(values)[seen] for name, values in page.source("curve").items()}
        np.testing.assert_allclose(curve["em"], em[seen], rtol=precision("em"))
        np.testing.assert_allclose(curve["high"], (em + sigma)[seen], rtol=precision("band"))
        np.testing.assert_allclose(curve["low"], (em - sigma)[seen], rtol=precision("band"))
        np.testing.assert_allclose(curve["left"], cube.bins.edges[:-1][seen])
        expected = em_loci(cube.intensity[:, row, column], cube.response).value
        log_t = np.log10(cube.response.temperature.value)
        loci = page.source("loci")
        for x, y, locus in zip(loci["xs"], loci["ys"], expected, strict=True):
            np.testing.assert_allclose(y, np.interp(x, log_t, locus), rtol=precision("intensity"))

    @pytest.mark.parametrize(
        ("at", "words"),
        [
            (MASKED, "masked: a channel has no valid data"),
            ((20, 3), "saturated; a channel is not used"),
            ((1, 2), "a channel is negative"),
            ((16, 10), "no flags"),
        ],
    )
    def test_descriptions_of_flags(self, page, at, words):
        page.point(*at)
        assert words in page.readout()["words"]

    def test_masked_pixel_is_gray(self, page):
        page.point(16, 16)
        page.readout()
        column, row = page.place(*MASKED)
        np.testing.assert_allclose(page.screenshot()[row, column], 0.6, atol=0.01)

    def test_click_holds_pixel(self, page):
        page.point(10, 10, click=True)
        page.until(lambda: page.readout()["held"])
        page.point(22, 20)
        assert page.readout()["row"] == "10"
        page.point(22, 20, click=True)
        page.until(lambda: page.readout()["row"] == "22" and not page.readout()["held"])
        page.point(23, 5)
        page.until(lambda: page.readout()["row"] == "23")

    def test_select_image(self, page, cube):
        from selenium.webdriver.support.select import Select

        choice = Select(page.widget("Select", "select"))
        masked = cube.sky_mask
        images = {
            "χ²": np.log10(cube.chi2),
            "EM-weighted log T": cube.em_weighted_log_t().data,
            "193 Å observed": np.log10(cube.intensity.value[3]),
            "EM per bin": np.log10(cube.data[np.argmax(np.nansum(cube.data, axis=(1, 2)))]),
        }
        assert {option.text for option in choice.options} == {
            *images,
            *(f"{channel} Å observed" for channel in CHANNELS),
        }
        within = 1e-3 + viewer._STEPS["em"] / 2
        for name, image in images.items():
            choice.select_by_visible_text(name)
            page.until(lambda image=image: np.allclose(page.image()[~masked], image[~masked], atol=within))
            assert np.isnan(page.image()[masked]).all()

    def test_slider_selects_bin(self, page, cube):
        from selenium.webdriver.common.keys import Keys

        handle = page.widget("Slider", ".noUi-handle")
        before = int(np.argmax(np.nansum(cube.data, axis=(1, 2))))
        handle.send_keys(Keys.ARROW_RIGHT)
        with np.errstate(divide="ignore"):
            image = np.log10(cube.data[before + 1])
        within = 1e-3 + viewer._STEPS["em"] / 2
        page.until(lambda: np.allclose(page.image()[~cube.sky_mask], image[~cube.sky_mask], atol=within))


@needs_browser
def test_rotated_grid(driver, cube, tmp_path):
    page = Page(driver, rotated(cube, 30), tmp_path / "rotated.html")
    for row, column in ((5, 9), (25, 30)):
        page.point(row, column)
        read = page.readout()
        sky = page.cube.total_em().pixel_to_world(column * u.pix, row * u.pix)
        assert (read["row"], read["column"]) == (str(row), str(column))
        assert float(read["x"]) == pytest.approx(sky.Tx.to_value("arcsec"), abs=0.3)
        assert float(read["y"]) == pytest.approx(sky.Ty.to_value("arcsec"), abs=0.3)


@needs_browser
def test_no_uncertainty(driver, cube, tmp_path):
    page = Page(driver, rebuilt(cube), tmp_path / "sun.html")
    page.point(16, 16)
    assert page.readout()["row"] == "16"
    curve = page.source("curve")
    seen = np.array(curve["em"]) > 1e-3 * np.max(curve["em"])
    for name in ("low", "high"):
        np.testing.assert_allclose(
            np.array(curve[name])[seen], np.array(curve["em"])[seen], rtol=precision("band") + precision("em")
        )


@pytest.mark.parametrize("show", [view, lambda cube: write_page(cube, "never.html")])
def test_invalid_cube(show):
    with pytest.raises(TypeError, match=r"cube must be a DEMCube, .* found ndarray"):
        show(np.ones((18, 4, 4)))


_SCRIPT = "<script>document.ran = true</script><img src=x onerror='document.ran = true'>"


@pytest.fixture(scope="module")
def malicious_cube():
    """A cube of maps with HTML in every text card that may have any text, and in its date."""
    cards = dict.fromkeys(("origin", "object", "wave_str", "img_type", "history", "comment", "detector"), _SCRIPT)
    cards |= {"instrume": f"AIA_1 {_SCRIPT}", "telescop": f"SDO/AIA {_SCRIPT}"}
    maps = [changed(smap, **cards) for smap in sample_maps((8, 8))]
    made = invert(maps)
    made.wcs.wcs.dateobs = "<img src=x>"
    made.meta["provenance"]["history"] = [_SCRIPT]
    return made


@pytest.mark.filterwarnings("ignore:Missing metadata for observation time")
def test_text_of_headers_is_escaped(malicious_cube, tmp_path):
    write_page(malicious_cube, tmp_path / "sun.html")
    content = (tmp_path / "sun.html").read_text(encoding="utf-8")
    assert f"emission measure, {malicious_cube.date.isot[:19]}" in content  # a parsed date, not the text of a card
    assert "img src=x" not in content
    assert "document.ran" not in content


@needs_browser
@pytest.mark.filterwarnings("ignore:Missing metadata for observation time")
def test_text_of_headers_does_not_run(driver, malicious_cube, tmp_path):
    page = Page(driver, malicious_cube, tmp_path / "sun.html")
    assert driver.execute_script("return document.ran") is None
    assert "x, y" in page.text("readout")
