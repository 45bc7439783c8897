"""Bad temperatures and responses."""

import re

import astropy.units as u
import numpy as np
from astropy.table import QTable
from hostile import ANYTHING, QUICK, WRITE_FAILURES, Table, existing_file, junk, response
from hypothesis import given
from hypothesis import strategies as st

from sunpy_deepem import LogTBins, TemperatureResponse
from sunpy_deepem.forward import chi_squared, synthetic_intensity

INTENSITY_UNIT = u.DN / (u.s * u.pix)
table = Table("Temperatures and responses")
writing_table = Table("Writing files")


@table(
    "LogTBins(first=)",
    ("a string", "a", ValueError("first must be a")),
    ("NaN", np.nan, ValueError("first must be a")),
    ("in kelvin", 1e6 * u.K, ValueError("first must be a")),
)
def test_first_bin(value, expected):
    with expected:
        LogTBins(first=value)


@table(
    "LogTBins(step=)",
    ("0", 0, ValueError("step must be a")),
    ("infinite", np.inf, ValueError("step must be a")),
)
def test_step_of_bins(value, expected):
    with expected:
        LogTBins(step=value)


@table(
    "LogTBins(n=)",
    ("0", 0, ValueError("n must be a")),
    ("2.5", 2.5, ValueError("n must be a")),
    ("infinite", np.inf, ValueError("n must be a")),
)
def test_number_of_bins(value, expected):
    with expected:
        LogTBins(n=value)


@table(
    "LogTBins.from_centers(centers)",
    ("strings", ["a"], ValueError("centers must be")),
    ("descending", [6, 5], ValueError("centers must ascend")),
)
def test_centers(value, expected):
    with expected:
        LogTBins.from_centers(value)


@QUICK
@given(first=ANYTHING, step=ANYTHING, n=st.one_of(st.sampled_from([None, "a", np.nan, np.inf]), st.floats(-5, 50)))
def test_any_bins_are_valid_or_rejected(first, step, n):
    try:
        bins = LogTBins(first, step, n)
    except ValueError as error:
        assert re.match("(first|step|n) must be a", str(error))  # noqa: PT017
        return
    assert bins.edges.shape == (n + 1,)


@table(
    "TemperatureResponse(temperature, response)",
    ("no unit", lambda temperature: temperature.value, TypeError("has no 'unit' attribute")),
    (
        "temperatures from 0",
        lambda temperature: temperature - temperature[0],
        ValueError("temperature must be positive and finite"),
    ),
    (
        "the wrong order",
        lambda temperature: temperature[::-1],
        ValueError("temperature must be one-dimensional and ascending"),
    ),
)
def test_temperature(value, expected):
    with expected:
        TemperatureResponse(value(response().temperature), response().curves)


@table(
    "TemperatureResponse(temperature, response)",
    ("NaN", ValueError("curves must be finite, found 606 values")),
)
def test_nan(expected):
    with expected:
        TemperatureResponse(response().temperature, response().curves * np.nan)


@table(
    "TemperatureResponse.default(bins=)",
    ("a string", TypeError("bins must be LogTBins, found str")),
)
def test_bins(expected):
    with expected:
        TemperatureResponse.default(bins="x")


@table(
    "TemperatureResponse.default(obstime=)",
    ("no time", "x", ValueError("obstime must be a time such as")),
    ("two times", ["2014-01-01", "2014-01-02"], ValueError("obstime must be one time, found 2")),
)
def test_obstime(value, expected):
    with expected:
        TemperatureResponse.default(obstime=value)


CHANNELS = "channels must be some of (94, 131, 171, 193, 211, 335), each once"


@table(
    "TemperatureResponse.with_channels(channels)",
    ("304 Å", [304], ValueError(CHANNELS)),
    ("nothing", [], ValueError(CHANNELS)),
    ("171.6", [171.6], ValueError(CHANNELS)),
    ("a string", "x", ValueError(CHANNELS)),
    ("``None``", None, ValueError(CHANNELS)),
)
def test_channels(value, expected):
    with expected:
        response().with_channels(value)


@table("TemperatureResponse.read(path)", ("a file of another kind", ValueError("cannot be read as ECSV")))
def test_file_of_another_kind(expected):
    path = junk()
    with expected:
        TemperatureResponse.read(path)


@table(
    "TemperatureResponse.read(path)",
    ("a table without temperature", ValueError("contains no complete response")),
)
def test_incomplete_file(folder, expected):
    path = folder / "response.ecsv"
    response().write(path)
    content = QTable.read(path)
    content.remove_column("temperature")
    content.write(path, overwrite=True)
    with expected:
        TemperatureResponse.read(path)


@writing_table("TemperatureResponse.write(path)", *WRITE_FAILURES)
def test_write_fails(value, expected):
    with expected, existing_file() as path, value():
        response().write(path, overwrite=True)


# ---------------------------------------------------------------------------------------------------------------------
# Forward model
# ---------------------------------------------------------------------------------------------------------------------


@table(
    "synthetic_intensity(em, response)",
    ("five bins", ValueError("em must have the 18 bins of response")),
)
def test_bins_of_em(expected):
    with expected:
        synthetic_intensity(np.ones(5) * u.cm**-5, response())


@table(
    "chi_squared(em, …)",
    ("another shape", ValueError("intensity must have shape (6, 3), found (6, 4)")),
)
def test_shape_of_intensity(expected):
    intensity = np.ones((6, 4)) * INTENSITY_UNIT
    with expected:
        chi_squared(np.ones((18, 3)) * u.cm**-5, intensity, intensity, response())
