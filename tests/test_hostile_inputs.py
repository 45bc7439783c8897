"""
What becomes of input that is no good: a clear error or a right answer, and no file lost.

The rows of `TABLE` are those of ``docs/topics/hostile_inputs.rst``, which ``python tests/test_hostile_inputs.py``
writes anew.
"""

import errno
import re
import traceback
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from astropy.table import QTable
from click.testing import CliRunner
from helpers import six, true_cube
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors import safe_open
from safetensors.torch import save
from sunpy.util.exceptions import SunpyUserWarning

from sunpy_deepem import (
    ChannelStack,
    DeepEM,
    DEMCube,
    DEMCubeSequence,
    LogTBins,
    Quality,
    TemperatureResponse,
    invert,
    invert_series,
    prepare,
)
from sunpy_deepem.analysis import em_loci, fe_xviii, fe_xviii_map
from sunpy_deepem.cli import main
from sunpy_deepem.forward import chi_squared, synthetic_intensity
from sunpy_deepem.methods import get_method
from sunpy_deepem.network.refinement import refine
from sunpy_deepem.sample import sample_em, sample_maps
from sunpy_deepem.series import group_maps
from sunpy_deepem.training import (
    BasisPursuit,
    Checkpoint,
    DEMLoss,
    DEMPrior,
    PriorStream,
    SolveStatus,
    TrainingSet,
    fit,
    simulate_observation,
)
from sunpy_deepem.visualization.viewer import write_page

PAGE = Path(__file__).parents[1] / "docs" / "topics" / "hostile_inputs.rst"
UNIT = u.DN / (u.s * u.pix)
SHORT = {"epochs": 1, "consistency_epochs": 0, "network": (4,)}
QUICK = settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Row(NamedTuple):
    """A row of the table."""

    call: str
    given: str
    do: object
    error: object  # the exception, the exit status of the command, or `None` for a right answer
    says: str  # part of the message, or what the answer is


class Inputs:
    """Small inputs that are good, made when they are asked for, and a folder."""

    @cached_property
    def maps(self):
        return six(np.full((8, 8), 200.0))

    @cached_property
    def cube(self):
        return true_cube(n=8)

    @cached_property
    def parts(self):
        cube = self.cube
        facts = {"response": self.response, "header": cube.sky_header, "inputs": cube.inputs}
        observed = {"intensity": cube.intensity, "uncertainty": cube.intensity_uncertainty}
        return {"em": cube.data, "em_std": None} | facts | observed

    @cached_property
    def response(self):
        return TemperatureResponse.default()

    @cached_property
    def network(self):
        return DeepEM.load()

    @cached_property
    def pixels(self):
        return np.tile(np.array([0.8, 4.5, 140, 170, 50, 2.7], dtype=np.float32)[:, np.newaxis], 4)

    @cached_property
    def training(self):
        return TrainingSet.from_prior(DEMPrior(), self.response, 64, seed=0)

    @cached_property
    def saved(self):
        """The tensors and the metadata of a file of weights."""
        path = self.folder / "good.safetensors"
        self.network.save(path)
        with safe_open(path, framework="pt") as file:
            found = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        path.unlink()
        return found


# ---------------------------------------------------------------------------------------------------------------------
# Trouble of all kinds
# ---------------------------------------------------------------------------------------------------------------------


@contextmanager
def full_disk():
    """No file can grow beyond some kilobytes, which to a program is as a disk that fills up while it writes."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def interrupted():
    """Ctrl-C when the file is written, but does not have its name yet."""
    return mock.patch("os.replace", side_effect=KeyboardInterrupt)


def read_only():
    """A folder without the right to write, which to the superuser is none."""
    return mock.patch("os.access", return_value=False)


def offline():
    return mock.patch("socket.getaddrinfo", side_effect=OSError(errno.ENETUNREACH, "Network is unreachable"))


def spoiled(h, trouble, write, name="old.fits"):
    """Replace a file in trouble; it has to stay what it was, and nothing else may stay."""
    path = h.folder / name
    path.write_bytes(b"what was there")
    try:
        with trouble:
            return write(path)
    finally:
        assert path.read_bytes() == b"what was there"
        assert list(h.folder.iterdir()) == [path]


def junk(h, content, name="junk.fits"):
    path = h.folder / name
    path.write_bytes(content)
    return path


def weights(h, *, tensors=None, drop=(), **metadata):
    meta, state = h.saved
    state = state if tensors is None else {key: tensors(key, tensor) for key, tensor in state.items()}
    meta = {key: value for key, value in (meta | metadata).items() if key not in drop}
    return junk(h, save(state, metadata=meta), "changed.safetensors")


def small_map(**cards):
    return six(np.full((8, 8), 200.0), **cards)


def of(value, dtype=float):
    return six(np.full((8, 8), value, dtype=dtype))


def cube_file(h, change=lambda content: content):
    path = h.folder / "dem.fits"
    h.cube.write(path, overwrite=True)
    return junk(h, change(path.read_bytes()), "dem.fits")


def deepem(*arguments):
    return lambda h: CliRunner().invoke(main, [str(a(h) if callable(a) else a) for a in arguments])


def sample_file(h):
    cube_file(h)
    return h.folder / "dem.fits"


def all_masked(cube, flag):
    return bool(np.isnan(cube.data).all() and cube.sky_mask.all() and ((cube.quality & flag) == flag).all())


class Stopped(TrainingSet):
    """Ctrl-C after the first epoch."""

    def epoch(self, number):
        if number == 1:
            raise KeyboardInterrupt
        return super().epoch(number)


def resumed(h):
    """Stop a training, take it up again, and compare with one that was not stopped."""
    options = {"epochs": 3, "consistency_epochs": 0, "network": (4,), "batch_size": 32}
    arrays_ = {name: getattr(h.training, name) for name in ("intensity", "uncertainty", "em", "status", "observation")}
    with pytest.raises(KeyboardInterrupt):
        fit(Stopped(**arrays_, names=h.training.names), h.response, checkpoint=h.folder / "run", **options)
    again = fit(h.training, h.response, checkpoint=Checkpoint(h.folder / "run", resume=True), **options)
    straight = fit(h.training, h.response, **options)
    return all(
        torch.equal(one, other)
        for one, other in zip(again.module.parameters(), straight.module.parameters(), strict=True)
    )


def packaged_table_instead(h):
    with offline(), pytest.warns(SunpyUserWarning, match="could not be downloaded"):
        stack = ChannelStack.from_maps(h.maps, correction_table="JSOC")
    return stack.meta["correction_table"].startswith("packaged")


# ---------------------------------------------------------------------------------------------------------------------
# The table
# ---------------------------------------------------------------------------------------------------------------------

NOT_NUMBERS = "must be an array of real numbers"
# Rows are packed, lest the table become as long as it is wide.
# fmt: off
TABLE = {
    "Maps": [
        Row("invert(maps)", "nothing", lambda h: invert([]), ValueError, "found 0 maps, missing: 94 Å, 131 Å"),
        Row("invert(maps)", "``None``", lambda h: invert(None), TypeError, "maps must be a MapSequence, a folder"),
        Row("invert(maps)", "an array", lambda h: invert(np.ones((6, 8, 8))), TypeError, "maps must hold sunpy maps"),
        Row("invert(maps)", "a single map", lambda h: invert(h.maps[0]), TypeError, "found a single AIA 1 94"),
        Row("invert(maps)", "five maps", lambda h: invert(h.maps[:5]), ValueError, "missing: 335 Å"),
        Row("invert(maps)", "each map twice", lambda h: invert(h.maps * 2), ValueError,
            "more than once: 94 Å (2 maps)"),
        Row("invert(maps)", "the reverse order", lambda h: invert(h.maps[::-1]).shape == (18, 8, 8), None, "Inverted."),
        Row("invert(maps)", "a folder that is not there", lambda h: invert("no"), FileNotFoundError,
            "which is no folder"),
        Row("invert(maps)", "an empty folder", lambda h: invert(h.folder), FileNotFoundError, "holds no FITS file"),
        Row("invert(maps)", "files of another kind", lambda h: invert([junk(h, b"hello")]), ValueError,
            "cannot be read as a map"),
        Row("invert(maps)", "304 Å", lambda h: invert(small_map(wavelnth=304)), ValueError, "foreign: AIA 1 304"),
        Row("invert(maps)", "no pixels", lambda h: invert(six(np.zeros((0, 0)))), ValueError, "no field of view"),
        Row("invert(maps)", "one pixel", lambda h: invert(six([[200.0]])).shape == (18, 1, 1), None, "Inverted."),
        Row("invert(maps)", "all NaN", lambda h: all_masked(invert(of(np.nan)), Quality.MISSING), None,
            "Masked, MISSING."),
        Row("invert(maps)", "all infinite", lambda h: all_masked(invert(of(np.inf)), 0), None, "Masked."),
        Row("invert(maps)", "1e300 DN", lambda h: all_masked(invert(of(1e300)), 0), None, "Masked."),
        Row("invert(maps)", "full well", lambda h: all_masked(invert(of(16383.0)), Quality.SATURATED), None,
            "Masked, SATURATED."),
        Row("invert(maps)", "negative counts", lambda h: bool((invert(of(-50.0)).quality & Quality.NEGATIVE).all()),
            None, "Inverted with their σ, flagged NEGATIVE."),
        Row("invert(maps)", "big-endian whole numbers", lambda h: np.array_equal(invert(of(200, ">i2")).data,
            invert(h.maps).data), None, "As of the same floating-point numbers."),
        Row("invert(maps)", "complex numbers", lambda h: invert(of(1j, complex)), ValueError, "must hold real numbers"),
        Row("invert(maps)", "texts", lambda h: invert(of("a", "U1")), ValueError, "must hold real numbers, found <U1"),
        Row("invert(maps)", "EXPTIME of 0", lambda h: invert(small_map(exptime=0)), ValueError,
            "has exposure time 0.0 s"),
        Row("invert(maps)", "EXPTIME of 1e-300", lambda h: invert(small_map(exptime=1e-300)), ValueError,
            "has exposure time 1e-300 s"),
        Row("invert(maps)", "BUNIT of K", lambda h: invert(small_map(bunit="K")), ValueError, "is in K; expected DN"),
        Row("invert(maps)", "CRPIX1 of NaN", lambda h: invert(small_map(crpix1=np.nan)), ValueError,
            "must tell where on the Sun its pixels lie, by CTYPE"),
        Row("invert(maps)", "RA and Dec", lambda h: invert(small_map(ctype1="RA---TAN", ctype2="DEC--TAN")),
            ValueError, "must tell where on the Sun its pixels lie, by CTYPE"),
        Row("invert(maps)", "DATE-OBS of 2005", lambda h: invert(small_map(**{"date-obs": "2005-01-01"})), ValueError,
            "The degradation of 94 Å at 2005-01-01T00:00:00.000 is not in the table"),
        Row("invert(maps)", "a singular PC matrix", lambda h: invert(small_map(pc1_1=0.0, pc2_2=0.0)), ValueError,
            "must tell where on the Sun its pixels lie, by CTYPE"),
        Row("prepare(maps)", "``None``", lambda h: prepare(None), TypeError, "maps must be AIA maps, found NoneType"),
        Row("prepare(maps)", "numbers", lambda h: prepare([1]), TypeError, "maps must hold AIA maps, found int"),
        Row("prepare(maps)", "nothing", lambda h: prepare([]) == [], None, "Nothing."),
        Row("prepare(maps, pointing=)", "another word", lambda h: prepare(small_map(lvl_num=1), pointing="x"),
            ValueError, "pointing must be True, False, 'lmsal', 'jsoc' or a table"),
        Row("group_maps(source)", "nothing", lambda h: group_maps([]).complete == (), None, "No sets."),
        Row("group_maps(source)", "a number", lambda h: group_maps(3), TypeError, "source must be a folder, a pattern"),
        Row("invert_series(source)", "a file of another kind", lambda h: invert_series([junk(h, b"hello")]),
            ValueError, "No set of source could be inverted"),
    ],
    "Options of an inversion": [
        *(Row("invert(maps, shape=)", text, lambda h, v=value: invert(h.maps, shape=v), ValueError,
            "shape must be None") for text, value in (("0", 0), ("``True``", True), ("infinite", (np.inf, 1)),
            ("a text", "a"))),
        Row("invert(maps, shape=)", "larger than the maps", lambda h: invert(h.maps, shape=(64, 64)), ValueError,
            "maps are never upsampled"),
        *(Row("invert(maps, systematic=)", text, lambda h, v=value: invert(h.maps, systematic=v), ValueError,
            "systematic must be a fraction from 0 up to 1") for text, value in (("-1", -1), ("10, for 10 %", 10),
            ("NaN", np.nan), ("in metres", 0.1 * u.m))),
        *(Row("invert(maps, degradation=)", text, lambda h, v=value: invert(h.maps, degradation=v), ValueError,
            "degradation must be 'data', 'response' or None") for text, value in (("another word", "x"), ("an array",
            np.ones(2)))),
        Row("invert(maps, epoch=)", "no time", lambda h: invert(h.maps, epoch="x"), ValueError,
            "epoch must be a time such as"),
        Row("invert(maps, max_time_span=)", "no unit", lambda h: invert(h.maps, max_time_span=5), TypeError,
            "'max_time_span' to function '__init__' has no 'unit'"),
        *(Row("invert(maps, max_time_span=)", text, lambda h, v=value: invert(h.maps, max_time_span=v * u.s),
            ValueError, "max_time_span must be a time that is not negative") for text, value in (("NaN s", np.nan),
            ("-1 s", -1))),
        *(Row("invert(maps, region=)", text, lambda h, v=v: invert(h.maps, region=v), TypeError,
            "region must be a SkyCoord") for text, v in (("a number", 3), ("a header without size", {"naxis1": 3}),
            ("an array", np.ones((8, 8))))),
        Row("invert(maps, method=)", "another word", lambda h: invert(h.maps, method="x"), ValueError,
            "method must be one of"),
        Row("invert(maps, method=)", "a function that returns 1", lambda h: invert(h.maps, method=lambda *pixels: 1),
            TypeError, "must return the pair (em, status)"),
        Row("invert(maps, response=)", "a text", lambda h: invert(h.maps, response="x"), TypeError,
            "response must be a Temp"),
        Row("invert(maps, response=)", "one channel", lambda h: invert(h.maps,
            response=h.response.with_channels([171])), ValueError, "response must be that of all six channels"),
        *(Row("invert(maps, refine=)", text, lambda h, v=v: invert(h.maps, refine=v), ValueError,
            "refine must be a whole") for text, v in (("-1", -1), ("2.5", 2.5), ("NaN", np.nan), ("infinite", np.inf),
            ("a text", "a"))),
        *(Row("invert(maps, chunks=)", text, lambda h, v=v: invert(h.maps, chunks=v), ValueError,
            "chunks must be a positive") for text, v in (("0", 0), ("three", (1, 2, 3)), ("a text", "a"))),
        Row("invert(maps, weights=)", "``None``", lambda h: invert(h.maps, weights=None), TypeError,
            "weights must be a str or"),
        Row("invert(maps, nonsense=)", "1", lambda h: invert(h.maps, nonsense=1), TypeError,
            "keyword argument 'nonsense'"),
    ],
    "Graphics processors, networks and weights": [
        *(Row("invert(maps, device=)", text, lambda h, v=value: invert(h.maps, device=v), ValueError,
            f"device must be 'auto', 'cpu', 'cuda' or another that torch has here, found '{value}'") for text,
            value in (('``"cuda"`` without a GPU', "cuda"), ('``"gpu"``', "gpu"), ('``"meta"``', "meta"))),
        Row("prepare(maps, pointing=True)", "no network", lambda h: mocked(offline(),
            lambda: prepare(small_map(lvl_num=1)[:1], pointing=True)), ConnectionError,
            "Without a network pass pointing= a table"),
        Row("prepare(maps, spikes=True)", "no network", lambda h: mocked(offline(),
            lambda: prepare(small_map(lvl_num=1)[:1], spikes=True)), ConnectionError,
            "Without a network pass spikes=False"),
        Row('invert(maps, correction_table="JSOC")', "no network", packaged_table_instead, None,
            "Corrected with the packaged table, with a warning; provenance tells."),
        Row("DeepEM.load(source)", "``None``", lambda h: DeepEM.load(None), TypeError,
            "weights must be a str or pathlib.Path"),
        Row("DeepEM.load(source)", "no file", lambda h: DeepEM.load("no"), FileNotFoundError, "there is no file no"),
        Row("DeepEM.load(source)", "a folder", lambda h: DeepEM.load(h.folder), FileNotFoundError, "there is no file"),
        *(Row("DeepEM.load(source)", text, lambda h, v=v: DeepEM.load(junk(h, v)), ValueError,
            "not a readable safetensors") for text, v in (("an empty file", b""), ("a file of text", b"hello"))),
        *(Row("DeepEM.load(source)", f"weights of {text} version", lambda h, v=version: DeepEM.load(weights(h,
            format=f"sunpy_deepem weights {v}")), ValueError,
            f"format must be 'sunpy_deepem weights 4', found 'sunpy_deepem weights {version}'") for text,
            version in (("an older", 3), ("a later", 5))),
        Row("DeepEM.load(source)", "a training set", lambda h: (h.training.save(h.folder / "set"),
            DeepEM.load(h.folder / "set")), ValueError, "found 'sunpy_deepem training set 1'"),
        Row("DeepEM.load(source)", "weights without a description", lambda h: DeepEM.load(weights(h,
            drop=["architecture"])), ValueError, "do not fit their own description"),
        Row("DeepEM.load(source)", "a description of another kind", lambda h: DeepEM.load(weights(h,
            architecture='"scaled"')), ValueError, "do not fit their own description"),
        Row("DeepEM.load(source)", "weights that are NaN", lambda h: DeepEM.load(weights(h, tensors=lambda key,
            tensor: tensor * torch.nan)), ValueError, "tensors that are not finite"),
        Row("DeepEM.load(source)", "a response of another shape", lambda h: DeepEM.load(weights(h, tensors=lambda key,
            tensor: tensor[:3] if key == "response_matrix" else tensor)), ValueError,
            "response_matrix of shape (3, 18)"),
        Row("DeepEM.from_helioml(path)", "weights of the package", lambda h: DeepEM.from_helioml(weights(h)),
            ValueError, "is a safetensors file, which DeepEM.load reads"),
    ],
    "Pixels": [
        *(Row(f"{call}(intensity, σ)", text, lambda h, f=function, v=value: f(h, v), error, says) for call,
            function in (("DeepEM.predict", lambda h, v: h.network.predict(v, np.ones((6, 4)))), ("BasisPursuit.solve",
            lambda h, v: BasisPursuit().solve(v, np.ones((6, 4)), h.response)), ("refine(em, …)", lambda h,
            v: refine(np.ones((18, 4)), v, np.ones((6, 4)), h.response.matrix.value)), ("TrainingSet", lambda h,
            v: TrainingSet(v, np.ones((6, 4)), np.ones((18, 4))))) for text, value, error, says in (("``None``", None,
            TypeError, f"intensity {NOT_NUMBERS}"), ("texts", [["a"] * 4] * 6, TypeError, f"intensity {NOT_NUMBERS}"),
            ("complex numbers", np.full((6, 4), 1j), TypeError, f"intensity {NOT_NUMBERS}"),
            ("rows of different lengths", [[1, 2], [3]] * 3, TypeError, f"intensity {NOT_NUMBERS}"), ("in kelvin",
            np.ones((6, 4)) * u.K, TypeError, "intensity must be a plain array, found one in K"), ("five channels",
            np.ones((5, 4)), ValueError, "intensity must have"), ("channels last", np.ones((4, 6)), ValueError,
            "intensity must have"))),
        Row("DeepEM.predict(intensity)", "no σ", lambda h: h.network.predict(h.pixels), ValueError,
            "uncertainty is missing"),
        *(Row("DeepEM.predict(intensity, σ)", f"σ {text}", lambda h, v=value: h.network.predict(h.pixels,
            v * h.pixels), ValueError,
            "uncertainty must be positive wherever intensity is finite; it is not in 24 of 24") for text,
            value in (("of 0", 0), ("negative", -1), ("NaN", np.nan))),
        *(Row("DeepEM.predict(intensity, σ)", text, lambda h, v=value: bool(np.isnan(h.network.predict(v(h),
            0.1 * h.pixels)[0]).all()), None, "NaN.") for text, value in (("NaN", lambda h: h.pixels * np.nan),
            ("infinite", lambda h: h.pixels * np.inf), ("1e300 DN/s", lambda h: h.pixels.astype(float) * 1e300),
            ("masked", lambda h: np.ma.masked_less(h.pixels, 1)))),
        Row("DeepEM.predict(intensity, σ)", "no pixel", lambda h: h.network.predict(np.ones((6, 0)), np.ones((6,
            0)))[0].shape == (18, 0), None, "No pixel."),
        *(Row("DeepEM.predict(…, tile=)", text, lambda h, v=value: h.network.predict(h.pixels, h.pixels, tile=v),
            ValueError, "tile must be a positive whole number") for text, value in (("0", 0), ("-1", -1), ("2.5",
            2.5))),
        Row("DeepEM.predict(…, precision=)", '``"float16"``', lambda h: h.network.predict(h.pixels, h.pixels,
            precision="float16"), ValueError, "precision must be one of"),
        Row("BasisPursuit.solve(intensity, σ)", "σ of 0", lambda h: bool((BasisPursuit().solve(h.pixels,
            0 * h.pixels, h.response).status == SolveStatus.INVALID).all()), None, "NaN, with the status INVALID."),
        Row("refine(em, …)", "σ of 0", lambda h: refine(np.ones((18, 4)), h.pixels, 0 * h.pixels,
            h.response.matrix.value), ValueError, "uncertainty must be positive wherever intensity is finite"),
        Row("refine(em, …)", "negative EM", lambda h: refine(-np.ones((18, 4)), h.pixels, h.pixels,
            h.response.matrix.value), ValueError, "em must not be negative, found 72 of 72"),
        Row("em_loci(intensity, response)", "no unit", lambda h: em_loci(np.ones(6), h.response), TypeError,
            "no 'unit'"),
        Row("fe_xviii(intensity)", "in kelvin", lambda h: fe_xviii(np.ones(6) * u.K), u.UnitsError, "'intensity'"),
        Row("fe_xviii(intensity)", "five channels", lambda h: fe_xviii(np.ones(5) * UNIT), ValueError,
            "must have the six"),
        Row("fe_xviii_map(source)", "a number", lambda h: fe_xviii_map(3), TypeError,
            "source must be a ChannelStack or a"),
    ],
    "Temperatures and responses": [
        *(Row(f"LogTBins({name}=)", text, lambda h, n=name, v=value: LogTBins(**{n: v}), ValueError,
            f"{name} must be a") for name, text, value in (("first", "a text", "a"), ("first", "NaN", np.nan),
            ("first", "in kelvin", 1e6 * u.K), ("step", "0", 0), ("step", "infinite", np.inf), ("n", "0", 0), ("n",
            "2.5", 2.5), ("n", "infinite", np.inf))),
        Row("LogTBins.from_centers(centers)", "texts", lambda h: LogTBins.from_centers(["a"]), ValueError,
            "centers must be"),
        Row("LogTBins.from_centers(centers)", "descending", lambda h: LogTBins.from_centers([6, 5]), ValueError,
            "centers must ascend"),
        Row("TemperatureResponse(temperature, response)", "no unit",
            lambda h: TemperatureResponse(h.response.temperature.value, h.response.curves), TypeError,
            "has no 'unit' attribute"),
        Row("TemperatureResponse(temperature, response)", "temperatures from 0",
            lambda h: TemperatureResponse(h.response.temperature - h.response.temperature[0], h.response.curves),
            ValueError, "temperature must be positive and finite"),
        Row("TemperatureResponse(temperature, response)", "the wrong order",
            lambda h: TemperatureResponse(h.response.temperature[::-1], h.response.curves), ValueError,
            "temperature must be one-dimensional and ascending"),
        Row("TemperatureResponse(temperature, response)", "NaN", lambda h: TemperatureResponse(h.response.temperature,
            h.response.curves * np.nan), ValueError, "curves must be finite, found 606 values"),
        Row("TemperatureResponse.default(bins=)", "a text", lambda h: TemperatureResponse.default(bins="x"), TypeError,
            "bins must be LogTBins, found str"),
        *(Row("TemperatureResponse.default(obstime=)", text, lambda h, v=value: TemperatureResponse.default(obstime=v),
            ValueError, f"obstime must be {says}") for text, value, says in (("no time", "x", "a time such as"),
            ("two times", ["2014-01-01", "2014-01-02"], "one time, found 2"))),
        *(Row("TemperatureResponse.with_channels(channels)", text, lambda h, v=value: h.response.with_channels(v),
            ValueError, "channels must be some of (94, 131, 171, 193, 211, 335) Å") for text, value in (("304 Å",
            [304]), ("nothing", []), ("171.6", [171.6]), ("a text", "x"), ("``None``", None))),
        Row("TemperatureResponse.read(path)", "a file of another kind", lambda h: TemperatureResponse.read(junk(h,
            b"hello")), ValueError, "cannot be read as ECSV"),
        Row("TemperatureResponse.read(path)", "a table without temperature",
            lambda h: TemperatureResponse.read(response_file(h)), ValueError, "contains no complete response"),
        Row("synthetic_intensity(em, response)", "five bins", lambda h: synthetic_intensity(np.ones(5) * u.cm**-5,
            h.response), ValueError, "em must have the 18 bins of response"),
        Row("chi_squared(em, …)", "another shape", lambda h: chi_squared(np.ones((18, 3)) * u.cm**-5, np.ones((6,
            4)) * UNIT, np.ones((6, 4)) * UNIT, h.response), ValueError,
            "intensity must have shape (6, 3), found (6, 4)"),
    ],
    "Cubes": [
        *(Row(f"DEMCube.from_arrays({name}=)", text, lambda h, n=name,
            v=value: DEMCube.from_arrays(**h.parts | {n: v}), error, says) for name, text, value, error,
            says in (("em", "a text", "a", TypeError, f"em {NOT_NUMBERS}"), ("em", "in kelvin", np.ones((18, 8,
            8)) * u.K, TypeError, "em must be a plain array, found one in K"), ("em", "17 bins", np.ones((17, 8, 8)),
            ValueError, "em must have shape (18, 8, 8)"), ("em_std", "a number", 3, ValueError,
            "em_std must have shape (18, 8, 8), found ()"), ("response", "``None``", None, TypeError,
            "response must be a TemperatureResponse"), ("header", "``None``", None, TypeError,
            "header must be a dict"), ("intensity", "no unit", np.ones((6, 8, 8)), TypeError,
            "intensity must be a Quantity in DN"), ("intensity", "in kelvin", np.ones((6, 8, 8)) * u.K, u.UnitsError,
            "intensity must be in DN"), ("uncertainty", "five channels", np.ones((5, 8, 8)) * UNIT, ValueError,
            "uncertainty must have shape"), ("quality", "another shape", np.zeros((3, 3), int), ValueError,
            "quality must have shape (8, 8)"), ("saturation", "another shape", np.zeros((3, 3)), ValueError,
            "saturation must have shape (8, 8)"))),
        *(Row("DEMCube.total_em(low, high)", text, lambda h, v=value: h.cube.total_em(*v), ValueError, says) for text,
            value, says in (("the wrong order", (7, 6), "low must be below high, found 7.0 and 6.0"), ("NaN", (np.nan,
            None), "low must be below high, found nan"), ("beyond the bins", (5, 9),
            "must lie within the cube's bins, from 5.45 to 7.25"), ("a text", ("a", None),
            "low must be a number, log10(T/K), found 'a'"), ("a temperature", (1e6 * u.K, None),
            "low must be a number, log10(T/K)"))),
        *(Row("DEMCube.bin_map(log_t)", text, lambda h, v=value: h.cube.bin_map(v), ValueError, "log_t must") for text,
            value in (("NaN", np.nan), ("1e6", 1e6), ("a text", "a"), ("``None``", None))),
        *(Row("DEMCube.band_maps(bands)", text, lambda h, v=v: h.cube.band_maps(v), ValueError,
            "bands must be one or more") for text, v in (("nothing", []), ("a number", 3), ("triples", [(6, 6.2,
            6.4)]))),
        *(Row("DEMCube.electron_density(depth)", text, lambda h, v=v: h.cube.electron_density(v), error, says)
            for text, v, error, says in (("no unit", 5, TypeError,
            "'depth' to function 'electron_density' has no 'unit'"), ("in seconds", 5 * u.s, u.UnitsError, "'depth'"),
            ("0", 0 * u.cm, ValueError, "depth must be a positive length"), ("NaN", np.nan * u.cm, ValueError,
            "depth must be a positive length"), ("another shape", np.ones((3, 3)) * u.cm, ValueError,
            "depth must be one length or have the shape"))),
        Row("DEMCube.thermal_energy(depth, filling_factor=)", "a text", lambda h: h.cube.thermal_energy(5 * u.Mm,
            filling_factor="a"), ValueError, "filling_factor must be a number above 0"),
        *(Row("DEMCube.curve(region)", text, lambda h, v=value: h.cube.curve(v), error, says) for text, value, error,
            says in (("a text", "x", TypeError, "region must be a SkyCoord"), ("an empty mask", np.zeros((8, 8), bool),
            ValueError, "region holds no pixel"), ("a mask of another shape", np.ones((3, 3), bool), ValueError,
            "region, as a mask, must have the shape"))),
        *(Row("DEMCube.rebin(bin_shape)", text, lambda h, v=value: h.cube.rebin(v), ValueError, "bin_shape must hold")
            for text, value in (("``None``", None), ("a text", "a"), ("0", (0, 1, 1)), ("NaN", (1, np.nan, 1)), ("1.5",
            (1, 1.5, 1)), ("three, of eight", (1, 3, 3)), ("in centimetres", [1, 2, 2] * u.cm))),
        Row("DEMCube.reproject_to(target)", "a number", lambda h: h.cube.reproject_to(3), ValueError,
            "target_wcs must be"),
        *(Row("DEMCube.reproject_to(target, shape_out=)", text, lambda h, v=value: h.cube.reproject_to(h.maps[0].wcs,
            shape_out=v), ValueError, "shape_out must be two positive whole numbers") for text, value in (("0", (0,
            0)), ("negative", (-1, 3)), ("one", 3), ("2.5", (2.5, 3)), ("a text", "ab"))),
        Row("DEMCube.reproject_to(target, algorithm=)", "a list", lambda h: h.cube.reproject_to(h.maps[0].wcs,
            algorithm=[]), ValueError, "algorithm must be one of"),
        Row("cube + other", "a number", lambda h: h.cube + 5, u.UnitConversionError, "are not convertible"),
        Row("cube * other", "another shape", lambda h: h.cube * np.ones((3, 3)), ValueError,
            "must have a shape that fits"),
        Row("cube / other", "0", lambda h: not np.isfinite((h.cube / 0).data).any(), None, "Nothing finite."),
        Row("cube ** other", "a text", lambda h: h.cube ** "a", TypeError, "unsupported operand"),
        Row("cube ** other", "NaN", lambda h: h.cube**np.nan, ValueError, "exponent of a cube must be finite"),
        Row("cube[…]", "a step", lambda h: h.cube[::2], IndexError, "must have step 1"),
        Row("DEMCube.synthesize()", "a cube without log T", lambda h: h.cube[5].synthesize(), ValueError,
            "needs the axes"),
        Row("DEMCube.plot_bins(fig=)", "a number", lambda h: h.cube.plot_bins(fig=3), TypeError,
            "fig must be a matplotlib"),
        Row("DEMCube.animate(interval=)", "a text", lambda h: h.cube.animate(interval="a"), ValueError,
            "interval must be"),
        Row("DEMCube.view(max_pixels=)", "0", lambda h: h.cube.view(max_pixels=0), ValueError, "max_pixels must be"),
        Row("DEMCubeSequence.read(folder)", "``None``", lambda h: DEMCubeSequence.read(None), TypeError,
            "folder must be a str"),
        Row("DEMCubeSequence.light_curve(bands=)", "a number",
            lambda h: DEMCubeSequence([h.cube]).light_curve(bands=3), ValueError, "bands must be one or more pairs"),
    ],
    "Reading files": [
        Row("DEMCube.read(path)", "``None``", lambda h: DEMCube.read(None), TypeError,
            "path must be a str or pathlib.Path"),
        Row("DEMCube.read(path)", "no file", lambda h: DEMCube.read("no.fits"), FileNotFoundError,
            "There is no file no.fits"),
        Row("DEMCube.read(path)", "a folder", lambda h: DEMCube.read(h.folder), ValueError, "is a folder"),
        Row("DEMCube.read(path)", "an empty file", lambda h: DEMCube.read(junk(h, b"")), ValueError,
            "is neither FITS nor ASDF"),
        *(Row("DEMCube.read(path)", text, lambda h, f=change: DEMCube.read(cube_file(h, f)), ValueError,
            "cannot be read as a DEM cube") for text, change in (("half of a file",
            lambda content: content[: len(content) // 2]), ("a damaged byte",
            lambda content: content[:20000] + bytes([content[20000] ^ 1]) + content[20001:]),
            ("a cube of an older format", lambda content: content.replace(b"sunpy_deepem 2", b"sunpy_deepem 1")))),
        *(Row("DEMCube.read(path, chunks=)", text, lambda h, v=value: DEMCube.read(sample_file(h), chunks=v),
            ValueError, "chunks must be a positive whole number") for text, value in (("0", 0), ("-5", -5), ("a text",
            "x"))),
        Row("TrainingSet.load(path)", "a file of another kind", lambda h: TrainingSet.load(junk(h, b"hello")),
            ValueError, "is not a readable training set"),
        Row("TrainingSet.load(path)", "weights", lambda h: TrainingSet.load(weights(h)), ValueError,
            "holds no training set"),
        Row("TrainingSet.from_chapter(folder)", "empty", lambda h: TrainingSet.from_chapter(h.folder),
            FileNotFoundError, "folder"),
    ],
    "Writing files": [
        Row("DEMCube.write(path)", "``None``", lambda h: h.cube.write(None), TypeError,
            "path must be a str or pathlib.Path"),
        Row("DEMCube.write(path)", "another suffix", lambda h: h.cube.write("dem.png"), ValueError,
            "path must end in .fits"),
        Row("DEMCube.write(path)", "a folder that is not there", lambda h: h.cube.write(h.folder / "no" / "dem.fits"),
            FileNotFoundError, "lies in a folder that does not exist. Make"),
        Row("DEMCube.write(path)", "a file that is there", lambda h: spoiled(h, mock.MagicMock(), h.cube.write),
            FileExistsError, "Pass overwrite=True to replace it"),
        Row("DeepEM.save(path, overwrite=True)", "a folder", lambda h: h.network.save(h.folder, overwrite=True),
            OSError, "folder"),
        Row("DeepEM.save(path, overwrite=True)", "a device", lambda h: h.network.save("/dev/null", overwrite=True),
            OSError, "/dev/null is a device, not a file"),
        *(Row(call, text, lambda h, f=write, t=trouble: spoiled(h, t(), lambda path: f(h, path)), error, says)
            for call, write in (("DEMCube.write(path)", lambda h, path: h.cube.write(path, overwrite=True)),
            ("invert(maps, out=)", lambda h, path: invert(h.maps, out=path, overwrite=True)), ("DeepEM.save(path)",
            lambda h, path: h.network.save(path, overwrite=True)), ("TrainingSet.save(path)", lambda h,
            path: h.training.save(path, overwrite=True)), ("TemperatureResponse.write(path)", lambda h,
            path: h.response.write(path, overwrite=True)), ("write_page(cube, path)", lambda h,
            path: write_page(h.cube, path, overwrite=True))) for text, trouble, error,
            says in (("a disk that fills up", full_disk, OSError, "could not be written"),
            ("a folder without the right to", read_only, PermissionError, "cannot be written to. Choose another"),
            ("Ctrl-C meanwhile", interrupted, KeyboardInterrupt, ""))),
        Row("invert_series(source, out)", "a file, not a folder", lambda h: invert_series(h.maps, junk(h, b"")),
            ValueError, "out must be a folder"),
    ],
    "Training": [
        Row("DEMPrior(weights=)", "an unknown family", lambda h: DEMPrior(weights={"x": 1}), ValueError,
            "do not exist: ['x']"),
        Row("DEMPrior(weights=)", "a list", lambda h: DEMPrior(weights=[1]), TypeError, "weights must be a dict"),
        Row("DEMPrior(weights=)", "NaN", lambda h: DEMPrior(weights={"flare": np.nan}), ValueError,
            "weights must be finite"),
        *(Row("DEMPrior.sample(n)", text, lambda h, v=v: DEMPrior().sample(v, seed=0), ValueError,
            "n must be a whole number") for text, v in (("-1", -1), ("2.5", 2.5), ("a text", "a"))),
        Row("DEMPrior.sample(n, seed=)", "-1", lambda h: DEMPrior().sample(2, seed=-1), ValueError,
            "seed must be a whole"),
        Row("DEMPrior.sample_family(name)", "unknown", lambda h: DEMPrior().sample_family("x", 1, seed=0), ValueError,
            "name must"),
        Row("PriorStream(n=)", "0", lambda h: PriorStream(DEMPrior(), h.response, 0), ValueError,
            "n must be a positive whole"),
        Row("simulate_observation(em, …)", "five bins", lambda h: simulate_observation(np.ones((5, 3)), h.response,
            seed=0), ValueError, "em must have shape (18, n)"),
        Row("TrainingSet(…, em)", "a number", lambda h: TrainingSet(h.pixels, h.pixels, 3), ValueError,
            "intensity must have"),
        Row("TrainingSet(…, status=)", "NaN", lambda h: TrainingSet(h.pixels, h.pixels, np.ones((18, 4)),
            status=[np.nan] * 4), ValueError, "status must hold whole numbers"),
        Row("TrainingSet.from_maps(…)", "nothing", lambda h: TrainingSet.from_maps([], "demregpy", h.response),
            ValueError, "empty"),
        Row("get_method(method)", "unknown", lambda h: get_method("x"), ValueError,
            "method must be one of 'network'"),
        Row("BasisPursuit.solve(…, response)", "a number", lambda h: BasisPursuit().solve(h.pixels, h.pixels, 3),
            TypeError, "response must be a TemperatureResponse"),
        Row("BasisPursuit(tolerance=)", "a text", lambda h: BasisPursuit(tolerance="a"), ValueError,
            "tolerance must"),
        Row("DEMLoss(distribution=)", "NaN", lambda h: DEMLoss(np.nan), ValueError,
            "The weights of DEMLoss must be finite"),
        *(Row(f"fit(…, {name}=)", text, lambda h, n=name, v=value: fit(**{"training": h.training,
            "response": h.response} | SHORT | {n: v}), error, says) for name, text, value, error, says in (("training",
            "``None``", None, TypeError,
            "training must be a TrainingSet or PriorStream"), ("response", "``None``",
            None, TypeError, "response must be a TemperatureResponse"), ("epochs", "0", 0, ValueError,
            "epochs must be a positive whole number, found 0"), ("epochs", "infinite", np.inf, ValueError,
            "epochs must be a positive whole number, found inf"), ("batch_size", "a text", "a", ValueError,
            "batch_size must be a positive whole number, found 'a'"), ("learning_rate", "infinite", np.inf, ValueError,
            "learning_rate must be positive"), ("learning_rate", "a text", "a", ValueError,
            "learning_rate must be a number"), ("max_gradient", "-1", -1, ValueError, "max_gradient must be positive"),
            ("network", "a number", 3, TypeError, "widths of hidden layers"), ("network", "0", (0,), ValueError,
            "network: each width must be a positive whole number"), ("seed", "-1", -1, ValueError,
            "seed must be a whole number, not negative"), ("consistency_epochs", "1.5", 1.5, ValueError,
            "consistency_epochs must be a whole number"), ("device", '``"cuda"`` without a GPU', "cuda", ValueError,
            "device must be 'auto', 'cpu', 'cuda'"), ("checkpoint", "a number", 3, TypeError,
            "checkpoint must be a str or pathlib.Path"), ("checkpoint", "a folder", Path(), OSError,
            "is a folder, not a file"))),
        Row("fit(…, checkpoint=Checkpoint(path, resume=True))", "a checkpoint of another kind", lambda h: fit(
            h.training, h.response, checkpoint=Checkpoint(junk(h, b"hello"), resume=True), **SHORT), ValueError,
            "cannot be read"),
        Row("fit(…, checkpoint=)", "a disk that fills up", lambda h: mocked(full_disk(), lambda: fit(h.training,
            h.response, checkpoint=h.folder / "run", **SHORT)), OSError, "could not be written"),
        Row("fit(training)", "nothing but NaN", lambda h: fit(h.training.take(slice(0)), h.response, **SHORT),
            ValueError, "No pixel"),
        Row("fit(…, checkpoint=)", "Ctrl-C after an epoch", resumed, None, "resume=True leads to the same weights."),
    ],
    "The embedded Sun": [
        *(Row(f"sample_{name}(shape)", text, lambda h, f=function, v=v: f(v), error,
            "shape must be two equal whole numbers") for name, function in (("em", sample_em), ("maps", sample_maps))
            for text, v, error in (("0", (0, 0), ValueError), ("8 × 16", (8, 16), ValueError), ("a number", 8,
            TypeError))),
        Row("sample_maps(seed=)", "-1", lambda h: sample_maps((8, 8), seed=-1), ValueError,
            "seed must not be negative"),
        Row("sample_maps(obstime=)", "no time", lambda h: sample_maps((8, 8), obstime="x"), ValueError,
            "obstime must be a time"),
    ],
    "The ``deepem`` command": [
        Row("deepem invert", "nothing", deepem("invert"), 2, "Give six FITS files or a folder, or --sample"),
        Row("deepem invert no", "no file", deepem("invert", "no"), 1, "there is no file or folder no"),
        Row("deepem invert", "an empty folder", deepem("invert", lambda h: h.folder), 1, "holds no FITS file"),
        Row("deepem invert", "a file of another kind", deepem("invert", lambda h: junk(h, b"hello")), 1,
            "which is no folder"),
        Row("deepem invert --shape x", "a text", deepem("invert", "--sample", "--shape", "x"), 2,
            "--shape must be a whole number"),
        Row("deepem invert --shape 0", "0", deepem("invert", "--sample", "--shape", "0", "-o",
            lambda h: h.folder / "a.fits"), 1, "shape must"),
        Row("deepem invert --weights no", "no file", deepem("invert", "--sample", "--weights", "no", "-o",
            lambda h: h.folder / "a.fits"), 1, "there is no file no"),
        Row("deepem invert --device cuda", "no GPU", deepem("invert", "--sample", "--shape", "8", "--device", "cuda",
            "-o", lambda h: h.folder / "a.fits"), 1, "device must be 'auto', 'cpu', 'cuda' or another"),
        Row("deepem invert -o", "a folder that is not there", deepem("invert", "--sample", "-o", "no/a.fits"), 1,
            "Make no first"),
        Row("deepem invert -o", "a file that is there", deepem("invert", "--sample", "-o", sample_file), 1,
            "Pass --overwrite to replace"),
        Row("deepem invert -o", "a folder without the right to", lambda h: mocked(read_only(), lambda: deepem("invert",
            "--sample", "-o", h.folder / "a.fits")(h)), 1, "cannot be written to. Choose another"),
        Row("deepem synthesize", "no file", deepem("synthesize", "no.fits"), 1, "There is no file no.fits"),
        Row("deepem synthesize", "a file of another kind", deepem("synthesize", lambda h: junk(h, b"hello")), 1,
            "is neither FITS nor ASDF"),
        Row("deepem show", "a file of another kind", deepem("show", lambda h: junk(h, b"hello")), 1,
            "is neither FITS nor ASDF"),
        Row("deepem show -o a.pdf", "another suffix", deepem("show", sample_file, "-o", "a.pdf"), 2,
            "--out must end in .html"),
        Row("deepem train", "no --out", deepem("train", "--prior"), 2, "Missing option '-o' / '--out'"),
        Row("deepem train", "nothing to learn from", deepem("train", "-o", "a"), 2, "either --prior or --maps FOLDER"),
        Row("deepem train --hidden x", "a text", deepem("train", "--prior", "-q", "--pixels", "10", "--hidden", "x",
            "-o", "a"), 2, "--hidden must be widths"),
        Row("deepem train --pixels 0", "0", deepem("train", "--prior", "-q", "--pixels", "0", "-o", "a"), 1,
            "n must be a positive"),
        Row("deepem train --epochs 0", "0", deepem("train", "--prior", "-q", "--pixels", "10", "--epochs", "0", "-o",
            "a"), 1, "epochs must"),
        Row("deepem info", "no file", deepem("info", "no"), 1, "there is no file no"),
        Row("deepem info", "weights of an older version", deepem("info", lambda h: weights(h,
            format="sunpy_deepem weights 1")), 1, "format must be"),
        Row("deepem invert", "Ctrl-C", lambda h: mocked(mock.patch("sunpy_deepem.invert",
            side_effect=KeyboardInterrupt), lambda: deepem("invert", "--sample", "-o", h.folder / "a.fits")(h)), 1,
            "Aborted!"),
    ],
}
# fmt: on


def mocked(context, call):
    with context:
        return call()


def response_file(h):
    path = h.folder / "response.ecsv"
    h.response.write(path)
    table = QTable.read(path)
    table.remove_column("temperature")
    table.write(path, overwrite=True)
    return path


ROWS = [pytest.param(row, id=f"{row.call} {row.given}") for rows in TABLE.values() for row in rows]


@pytest.fixture(scope="module")
def inputs():
    return Inputs()


@pytest.fixture
def h(inputs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inputs.folder = tmp_path
    yield inputs
    plt.close("all")


@pytest.mark.parametrize("row", ROWS)
def test_row(row, h):
    if "cuda" in row.call + row.given and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    if row.error is None:
        assert row.do(h) is True
    elif isinstance(row.error, int):
        result = row.do(h)
        assert result.exit_code == row.error, result.output
        assert row.says in " ".join(result.output.split())
        assert isinstance(result.exception, SystemExit)
    else:
        with pytest.raises(row.error) as found:
            row.do(h)
        assert row.says in " ".join(str(found.value).split())
        last = Path(traceback.extract_tb(found.value.__traceback__)[-1].filename).as_posix()
        assert "/torch/" not in last
        assert "/numpy/" not in last
    assert not list(h.folder.rglob("*.part"))


# ---------------------------------------------------------------------------------------------------------------------
# Whatever numbers come
# ---------------------------------------------------------------------------------------------------------------------

ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.lists(st.floats(), max_size=3)
)
NUMBERS = st.floats(width=32)


@QUICK
@given(intensity=arrays(np.float32, (6, 3), elements=NUMBERS), sigma=arrays(np.float32, (6, 3), elements=NUMBERS))
def test_any_pixel_is_predicted_or_refused(inputs, intensity, sigma):
    try:
        em, _ = inputs.network.predict(intensity, sigma)
    except ValueError as error:
        assert "uncertainty must be positive" in str(error)  # noqa: PT017
        assert (np.isfinite(intensity) & ~(sigma > 0)).any()
        return
    known = (np.isfinite(intensity) & np.isfinite(sigma)).all(axis=0)
    assert np.isnan(em[:, ~known]).all()
    assert not (em[:, known] < 0).any()


@QUICK
@given(intensity=arrays(float, (6, 2), elements=st.floats()), sigma=arrays(float, (6, 2), elements=st.floats()))
def test_any_pixel_is_solved_or_has_a_status(inputs, intensity, sigma):
    solution = BasisPursuit().solve(intensity, sigma, inputs.response)
    em, status = solution.em, solution.status
    assert np.isin(status, list(SolveStatus)).all()
    assert (em[:, status == 0] >= 0).all()
    assert np.isnan(em[:, status != 0]).all()


@QUICK
@given(
    em=arrays(float, (18, 2), elements=st.floats(0, 1e30)),
    intensity=arrays(float, (6, 2), elements=st.floats(-1e6, 1e6)),
    sigma=arrays(float, (6, 2), elements=st.floats(1e-3, 1e6)),
)
def test_refinement_never_makes_a_fit_worse(inputs, em, intensity, sigma):
    matrix = inputs.response.matrix.value
    refined = refine(em, intensity, sigma, matrix)

    def chi2(values):
        return np.mean(((matrix @ values - intensity) / sigma) ** 2, axis=0)

    assert (refined >= 0).all()
    assert (chi2(refined) <= chi2(em) * (1 + 1e-9)).all()


@QUICK
@given(first=ANYTHING, step=ANYTHING, n=st.one_of(st.sampled_from([None, "a", np.nan, np.inf]), st.floats(-5, 50)))
def test_any_bins_are_bins_or_refused(first, step, n):
    try:
        bins = LogTBins(first, step, n)
    except ValueError as error:
        assert re.match("(first|step|n) must be a", str(error))  # noqa: PT017
        return
    assert bins.edges.shape == (n + 1,)


@QUICK
@given(shape=ANYTHING)
def test_any_shape_is_one_or_refused(inputs, shape):
    try:
        stack = ChannelStack.from_maps(inputs.maps, shape=shape)
    except ValueError as error:
        assert str(error).startswith("shape ")  # noqa: PT017
        return
    assert max(stack.quality.shape) <= 8


@QUICK
@given(data=st.data())
def test_a_damaged_cube_is_refused_or_has_lost_nothing(h, data):
    content = cube_file(h).read_bytes()
    at = data.draw(st.integers(0, len(content) - 1))
    cut = data.draw(st.booleans())
    damaged = content[:at] if cut else content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
    try:
        cube = DEMCube.read(junk(h, damaged))
    except ValueError as error:
        assert re.search(r"cannot be read as a DEM cube|is neither FITS nor ASDF", str(error))  # noqa: PT017
        return
    # Blanks that fill up a header belong to no checksum.
    assert not cut
    np.testing.assert_array_equal(cube.data, h.cube.data)
    np.testing.assert_array_equal(cube.intensity, h.cube.intensity)


@QUICK
@given(share=st.floats(0, 1, exclude_max=True))
def test_weights_that_are_cut_short_are_refused(h, share):
    content = weights(h).read_bytes()
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        DeepEM.load(junk(h, content[: int(share * len(content))]))


# ---------------------------------------------------------------------------------------------------------------------
# The page
# ---------------------------------------------------------------------------------------------------------------------

HEAD = """\
What becomes of bad input
=========================

.. Written by "python tests/test_hostile_inputs.py"; change the table there.

Whatever the package is given, it answers rightly or tells what is wrong: which argument, what was found in it, what was
expected, and where that helps what to do. A file is written whole or not at all, and one that was there stays until the
new one is whole; a training that was stopped goes on from its checkpoint. Every row below is a test. A message stands
for any that holds these words.

The ``deepem`` command says the same in one line, without a traceback, which ``deepem --traceback`` shows, and ends with
the status 1, or 2 where the command itself is wrong.
"""


def page():
    lines = [HEAD]
    for title, rows in TABLE.items():
        lines += [title, "-" * len(title), "", ".. list-table::", "   :header-rows: 1", "   :widths: 32 24 44", ""]
        lines += ["   * - Call", "     - Input", "     - What happens"]
        for row in rows:
            lines += [f"   * - ``{row.call}``", f"     - {row.given}", f"     - {_outcome(row)}"]
        lines.append("")
    return "\n".join(lines)


def _outcome(row):
    says = re.sub(r"([*_`|])", r"\\\1", row.says)
    if row.error is None:
        return says
    kind = f"Exit status {row.error}" if isinstance(row.error, int) else f"``{row.error.__name__}``"
    return f"{kind}: {says}" if says else f"{kind}, and the file that was there is as it was"


@pytest.mark.skipif(not PAGE.parent.is_dir(), reason="needs the documentation, which a wheel lacks")
def test_the_page_holds_this_table():
    assert PAGE.read_text(encoding="utf-8") == page(), f"write it anew: python {Path(__file__).name}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
