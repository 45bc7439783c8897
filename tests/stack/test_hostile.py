"""Bad maps, and bad options for stacking them."""

import astropy.units as u
import numpy as np
from helpers import six
from hostile import ANYTHING, QUICK, Table, junk, maps
from hypothesis import given

from sunpy_deepem import ChannelStack, Quality, invert

maps_table = Table("Maps")
options_table = Table("Options of an inversion")


@maps_table(
    "invert(maps)",
    ("nothing", [], ValueError("found 0 maps, missing: 94 Å, 131 Å")),
    ("``None``", None, TypeError("maps must be a MapSequence, a folder")),
    ("an array", np.ones((6, 8, 8)), TypeError("maps must contain sunpy maps")),
    ("a folder that does not exist", "no", FileNotFoundError("which is not a folder")),
    ("an empty folder", ".", FileNotFoundError("contains no FITS file")),
)
def test_source(value, expected):
    with expected:
        invert(value)


@maps_table(
    "invert(maps)",
    ("a single map", lambda six_maps: six_maps[0], TypeError("found a single AIA 1 94")),
    ("five maps", lambda six_maps: six_maps[:5], ValueError("missing: 335 Å")),
    ("each map twice", lambda six_maps: six_maps * 2, ValueError("more than once: 94 Å (2 maps)")),
)
def test_selection_of_maps(value, expected):
    with expected:
        invert(value(maps()))


@maps_table("invert(maps)", ("reverse order", "Inverted."))
def test_reverse_order():
    assert invert(maps()[::-1]).shape == (18, 8, 8)


@maps_table("invert(maps)", ("files of another kind", ValueError("cannot be read as a map")))
def test_files_of_another_kind(expected):
    path = junk()
    with expected:
        invert([path])


@maps_table("invert(maps)", ("no pixels", ValueError("no field of view")))
def test_no_pixels(expected):
    with expected:
        invert(six(np.zeros((0, 0))))


@maps_table("invert(maps)", ("one pixel", "Inverted."))
def test_one_pixel():
    assert invert(six([[200.0]])).shape == (18, 1, 1)


@maps_table(
    "invert(maps)",
    ("all NaN", (np.nan, Quality.MISSING), "Masked, MISSING."),
    ("all infinite", (np.inf, 0), "Masked."),
    ("1e300 DN", (1e300, 0), "Masked."),
    ("full well", (16383.0, Quality.SATURATED), "Masked, SATURATED."),
)
def test_invalid_pixels_are_masked(value):
    counts, flag = value
    cube = invert(maps(counts))
    assert np.isnan(cube.data).all()
    assert cube.sky_mask.all()
    assert ((cube.quality & flag) == flag).all()


@maps_table("invert(maps)", ("negative counts", "Inverted with their σ, flagged NEGATIVE."))
def test_negative_counts_are_flagged():
    assert (invert(maps(-50.0)).quality & Quality.NEGATIVE).all()


@maps_table("invert(maps)", ("big-endian integers", "Same as for the equal floating-point numbers."))
def test_big_endian_integers():
    np.testing.assert_array_equal(invert(maps(200, ">i2")).data, invert(maps()).data)


@maps_table(
    "invert(maps)",
    ("complex numbers", (1j, complex), ValueError("must contain real numbers")),
    ("strings", ("a", "U1"), ValueError("must contain real numbers, found <U1")),
)
def test_data_type(value, expected):
    with expected:
        invert(maps(*value))


NO_WCS = "must have a valid solar WCS"


@maps_table(
    "invert(maps)",
    ("304 Å", {"wavelnth": 304}, ValueError("foreign: AIA 1 304")),
    ("EXPTIME of 0", {"exptime": 0}, ValueError("has exposure time 0.0 s")),
    ("EXPTIME of 1e-300", {"exptime": 1e-300}, ValueError("has exposure time 1e-300 s")),
    ("BUNIT of K", {"bunit": "K"}, ValueError("is in K; expected DN")),
    ("CRPIX1 of NaN", {"crpix1": np.nan}, ValueError(NO_WCS)),
    ("RA and Dec", {"ctype1": "RA---TAN", "ctype2": "DEC--TAN"}, ValueError(NO_WCS)),
    (
        "DATE-OBS of 2005",
        {"date-obs": "2005-01-01"},
        ValueError("The degradation of 94 Å at 2005-01-01T00:00:00.000 is not in the table"),
    ),
    ("a singular PC matrix", {"pc1_1": 0.0, "pc2_2": 0.0}, ValueError(NO_WCS)),
)
def test_header(value, expected):
    with expected:
        invert(maps(**value))


# ---------------------------------------------------------------------------------------------------------------------
# Options
# ---------------------------------------------------------------------------------------------------------------------


@options_table(
    "invert(maps, shape=)",
    ("0", 0, ValueError("shape must be None")),
    ("``True``", True, ValueError("shape must be None")),
    ("infinite", (np.inf, 1), ValueError("shape must be None")),
    ("a string", "a", ValueError("shape must be None")),
    ("larger than the maps", (64, 64), ValueError("maps are never upsampled")),
)
def test_shape(value, expected):
    with expected:
        invert(maps(), shape=value)


@options_table(
    "invert(maps, systematic=)",
    ("-1", -1, ValueError("systematic must be a fraction from 0 up to 1")),
    ("10, for 10 %", 10, ValueError("systematic must be a fraction from 0 up to 1")),
    ("NaN", np.nan, ValueError("systematic must be a fraction from 0 up to 1")),
    ("in metres", 0.1 * u.m, ValueError("systematic must be a fraction from 0 up to 1")),
)
def test_systematic(value, expected):
    with expected:
        invert(maps(), systematic=value)


@options_table(
    "invert(maps, degradation=)",
    ("another word", "x", ValueError("degradation must be 'data', 'response' or None")),
    ("an array", np.ones(2), ValueError("degradation must be 'data', 'response' or None")),
)
def test_degradation(value, expected):
    with expected:
        invert(maps(), degradation=value)


@options_table("invert(maps, epoch=)", ("no time", ValueError("epoch must be a time such as")))
def test_epoch(expected):
    with expected:
        invert(maps(), epoch="x")


@options_table(
    "invert(maps, max_time_span=)",
    ("no unit", 5, TypeError("'max_time_span' to function '__init__' has no 'unit'")),
    ("NaN s", np.nan * u.s, ValueError("max_time_span must be a time that is not negative")),
    ("-1 s", -1 * u.s, ValueError("max_time_span must be a time that is not negative")),
)
def test_max_time_span(value, expected):
    with expected:
        invert(maps(), max_time_span=value)


@options_table(
    "invert(maps, region=)",
    ("a number", 3, TypeError("region must be a SkyCoord")),
    ("a header without size", {"naxis1": 3}, TypeError("region must be a SkyCoord")),
    ("an array", np.ones((8, 8)), TypeError("region must be a SkyCoord")),
)
def test_region(value, expected):
    with expected:
        invert(maps(), region=value)


@QUICK
@given(shape=ANYTHING)
def test_any_shape_is_valid_or_rejected(shape):
    try:
        stack = ChannelStack.from_maps(maps(), shape=shape)
    except ValueError as error:
        assert str(error).startswith("shape ")  # noqa: PT017
        return
    assert max(stack.quality.shape) <= 8
