"""Bad maps, and bad options for stacking them."""

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import StdDevUncertainty, UnknownUncertainty, VarianceUncertainty
from helpers import aia_map, changed, degradation_by_aiapy, replaced, six
from hostile import ANYTHING, QUICK, Table, junk, maps
from hypothesis import given
from sunpy.util.exceptions import SunpyUserWarning

from sunpy_deepem import CHANNELS, ChannelStack, Quality, invert
from sunpy_deepem.calibrate import correction_table
from sunpy_deepem.series import group_maps

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


def spoiled_header(**cards):
    """Make six maps, of which that of 171 Å has other cards; names with an underscore may stand for a hyphen."""
    cards = {name.replace("date_obs", "date-obs"): value for name, value in cards.items()}
    return replaced(maps(), 171, lambda smap: changed(smap, **cards))


def rejected(name, value, expected, given=None):
    """Return a row of a header card of the 171 Å map that is rejected by its name."""
    shown = name.upper().replace("DATE_OBS", "DATE-OBS")
    message = f"the AIA 1 171 Å map: {shown} must be {expected}"
    return f"{shown} {given or ('missing' if value is None else repr(value))}", {name: value}, ValueError(message)


NUMBER, TIME, EXPOSURE = "a finite number", "a time such as '2014-01-01T00:00:00'", "a positive exposure time, found"
CARDS = (
    *(
        rejected("exptime", value, f"{EXPOSURE} {value!r}")
        for value in (0, -2.0, np.nan, np.inf, "nan", "abc", "2.0", True, 1e-300, 1e300, 10**400)
    ),
    rejected("exptime", None, f"{EXPOSURE} none"),
    rejected("xposure", -1.0, f"{EXPOSURE} -1.0"),
    rejected("xposure", "x", f"{EXPOSURE} 'x'"),
    *(rejected("timeunit", value, "a unit such as 's'") for value in ("K", "parsecond")),
    rejected("timeunit", 3, "text"),
    *(rejected("lvl_num", value, NUMBER) for value in ("one", "1.5", np.nan, True)),
    *(rejected("lvl_num", value, "a level from 1 to 3") for value in (0, -1, 1e300)),
    *(rejected("date_obs", value, TIME) for value in ("yesterday", "2014-13-01", "nan")),
    *(rejected("date_obs", value, TIME) for value in (5, 2014.0)),
    rejected("date_obs", None, "the start of the exposure", "and T_OBS missing"),
    *(rejected("t_obs", value, TIME) for value in ("nan", "MISSING", 7)),
    rejected("t_obs", "2024-01-01T00:00:00", "within 60 s of DATE-OBS, 2014-01-01T00:00:00.000"),
    rejected("timesys", "CEST", "a time scale such as 'UTC' or 'TAI'"),
    rejected("timesys", 8, "text"),
    *(rejected("bunit", value, "a unit such as 'DN'") for value in ("foo", "DN/foo", "counts per second")),
    rejected("bunit", 1, "text"),
    rejected("pixlunit", "foo", "a unit such as 'DN'"),
    rejected("content", 1, "text"),
    *(rejected("crota2", value, NUMBER) for value in (np.nan, "nan", np.inf, True)),
    *(rejected("pc1_1", value, NUMBER) for value in (np.nan, "x")),
    *(rejected("crpix1", value, NUMBER) for value in (np.nan, np.inf, "x", True, None)),
    *(rejected("crval2", value, NUMBER) for value in (np.nan, "nan", None)),
    *(rejected("cdelt1", value, NUMBER) for value in (np.nan, "2.4", None)),
    *(rejected("cdelt2", value, "the size of a pixel, not zero") for value in (0, 0.0)),
    *(rejected("cdelt2", value, "at most 450 arcsec for 8 pixels") for value in (1e4, -1e30)),
    *(rejected("ctype1", value, "a coordinate such as 'HPLN-TAN'") for value in ("RA---TAN", "WAVE", "HPLN-TAN-SIP")),
    rejected("lonpole", 90.0, "180 or missing"),
    rejected("a_order", 2, "zero or missing"),
    rejected("b_order", 3, "zero or missing"),
    rejected("cpdis1", "LOOKUP", "zero or missing"),
    rejected("pv2_1", 0.5, "zero or missing"),
    *(rejected("dsun_obs", value, NUMBER) for value in (np.nan, "nan", np.inf)),
    *(rejected("dsun_obs", value, "the distance of the Sun in m") for value in (0, -1.5e11, 1e300)),
    *(rejected("hgln_obs", value, NUMBER) for value in (np.nan, "nan")),
    rejected("hglt_obs", 100.0, "a latitude in degrees"),
    *(rejected("rsun_ref", value, "the radius of the Sun in m") for value in (0, -6.96e8, 6.96e5)),
    rejected("rsun_ref", "nan", NUMBER),
    *(rejected("rsun_obs", value, "the radius of the Sun, between") for value in (0, 1.0, 1e9)),
    rejected("rsun_obs", np.nan, NUMBER),
)


@maps_table("invert(maps)", *CARDS)
def test_card(value, expected):
    cards = {"bunit": None} | value if "pixlunit" in value else value
    with expected:
        invert(spoiled_header(**cards))


#: Cards that need not be there
EMPTY = ("timeunit", "timesys", "lvl_num", "rsun_ref", "rsun_obs", "t_obs", "crota2", "pixlunit")


@maps_table(
    "invert(maps)",
    ("304 Å", {"wavelnth": 304}, ValueError("foreign: AIA 1 304")),
    ("BUNIT of K", {"bunit": "K"}, ValueError("is in K; expected DN")),
    ("INSTRUME of a number", {"instrume": 0.5}, ValueError("foreign: 0.5 171 Angstrom")),
    ("INSTRUME missing", {"instrume": None}, ValueError("AIA's maps have INSTRUME 'AIA_…'")),
    ("a projection that needs parameters", {"ctype1": "HPLN-ZPN", "ctype2": "HPLT-ZPN"}, ValueError(NO_WCS)),
    ("one axis of another coordinate", {"ctype1": "HPLT-TAN"}, ValueError(NO_WCS)),
    ("a singular PC matrix", {"pc1_1": 0.0, "pc2_2": 0.0}, ValueError(NO_WCS)),
    ("a PC matrix that is no rotation", {"pc1_2": -1.5}, ValueError("PCi_j or CDi_j are no rotation: [[1.0, -1.5]")),
    ("a PC matrix of another scale", {"pc1_1": 3.0}, ValueError("must have rectangular pixels of the size of CDELT")),
    ("XPOSURE of a blank", {"xposure": " "}, ValueError("XPOSURE must be a positive exposure time, found ' '")),
    ("CRVAL1 of 1e30", {"crval1": 1e30}, ValueError("must show the Sun, but the center of its image is")),
    ("CRPIX2 of 1e6", {"crpix2": 1e6}, ValueError("must show the Sun, but the center of its image is")),
    ("another observer", {"hgln_obs": 90.0}, ValueError("of 171 Angstrom is 1.39 AU from that of 94 Angstrom")),
    ("another distance of the Sun", {"dsun_obs": 1e11}, ValueError("Correct DSUN_OBS, HGLN_OBS and HGLT_OBS")),
    (
        "HAEX_OBS of 1e300",
        {"haex_obs": 1e300, "haey_obs": 1e10, "haez_obs": 0},
        ValueError("HAEZ_OBS must be the distance of the Sun in m"),
    ),
    ("another position HAEX_OBS", {"haex_obs": 1e11, "haey_obs": 1e10, "haez_obs": 0}, ValueError("observers of the")),
)
def test_header(value, expected):
    with expected:
        invert(spoiled_header(**value))


@maps_table(
    "invert(maps)",
    (
        "DATE-OBS of 2005",
        {"date-obs": "2005-01-01"},
        ValueError("The degradation of 94 Å at 2005-01-01T00:00:00.000 is not in the table"),
    ),
    ("neither DATE-OBS nor T_OBS", {"date-obs": None}, ValueError("94 Å map: DATE-OBS must be the start")),
)
def test_date(value, expected):
    with expected:
        invert(maps(**value))


@maps_table(
    "invert(maps)",
    ("T_OBS, but no DATE-OBS", {"date-obs": None, "t_obs": "2014-01-01T00:00:01.000Z"}, "Corrected for that day."),
    ("DATE-OBS of 2014/01/01", {"date-obs": "2014/01/01"}, "Corrected for that day."),
    ("TIMESYS of TAI", {"timesys": "TAI"}, "Corrected for that day."),
    ("a date of JSOC", {"date-obs": "2014.01.01_00:00:35_TAI"}, "Corrected for that day."),
)
def test_date_is_understood(value):
    six_maps = maps(**value)
    stack = ChannelStack.from_maps(six_maps)
    factors = [facts["degradation"] for facts in stack.inputs]
    assert factors == pytest.approx([degradation_by_aiapy(channel) for channel in CHANNELS], rel=1e-4)
    # group_maps understands the same dates
    assert [each.reason for each in group_maps(six_maps).complete] == [None]


@maps_table(
    "invert(maps)",
    ("EXPTIME of 2000 s", {"exptime": 2000.0}, "Inverted, with a warning."),
    ("EXPTIME of 33.3 and TIMEUNIT of min", {"exptime": 100 / 3, "timeunit": "min"}, "Inverted, with a warning."),
)
def test_exposure_of_an_hour(value):
    with pytest.warns(SunpyUserWarning, match="an exposure time of 2000 s is not usual for AIA"):
        invert(spoiled_header(**value))


@maps_table(
    "invert(maps)",
    *((f"{name.upper()} empty", {name: ""}, "As if it were missing.") for name in EMPTY),
)
def test_empty_card(value):
    np.testing.assert_array_equal(invert(spoiled_header(**value)).data, invert(maps()).data)


@maps_table("invert(maps)", ("XPOSURE unlike EXPTIME", "Inverted, with a warning."))
def test_two_exposure_times():
    with pytest.warns(SunpyUserWarning, match="XPOSURE = 1 is used, but EXPTIME = .* differs"):
        invert(spoiled_header(xposure=1.0))


@maps_table(
    "invert(maps)",
    ("CROTA2 of 90", {"crota2": 90.0}, "Inverted, with a warning."),
    ("CDELT1 twice too large", {"cdelt1": 4.8, "cdelt2": 4.8}, "Inverted, with a warning."),
    ("CRPIX1 outside of the image", {"crpix1": -1.0}, "Inverted, with a warning."),
    ("CROTA2 of 1.5 in one channel", {"crota2": 1.5}, "Inverted, with a warning."),
    ("CRVAL1 of 7 in one channel", {"crval1": 7.0}, "Inverted, with a warning."),
    ("CDELT2 negative in one channel", {"cdelt2": -2.4}, "Inverted, with a warning."),
)
def test_other_field(value):
    with pytest.warns(SunpyUserWarning, match="differ from those of the other channels: 171 Å"):
        invert(spoiled_header(**value))


@maps_table(
    "invert(maps)",
    ("BUNIT of DN/s in one channel", {"bunit": "DN/s"}, "Inverted, with a warning."),
    ("PIXLUNIT of DN/s in one channel", {"bunit": None, "pixlunit": "DN/s"}, "Inverted, with a warning."),
)
def test_other_unit(value):
    with pytest.warns(SunpyUserWarning, match="maps of 171 Å are in DN / s, but those of 94 Å, 131 Å, .* in DN"):
        invert(spoiled_header(**value))


@maps_table(
    "invert(maps)",
    ("EXPTIME that T_OBS contradicts", {"exptime": 2.9}, "Inverted, with a warning."),
    ("EXPTIME of 1, as after a division", {"exptime": 1.0}, "Inverted, with a warning."),
    ("T_OBS three seconds later", {"t_obs": "2014-01-01T00:00:04.00Z"}, "Inverted, with a warning."),
)
def test_middle_of_exposure(value):
    with pytest.warns(SunpyUserWarning, match="171 Å map: the exposure time .* is used, but T_OBS is"):
        invert(spoiled_header(**{"t_obs": "2014-01-01T00:00:01.00Z"} | value))


@maps_table("invert(maps)", ("all from another observer", "Inverted, with a warning."))
def test_observer_far_from_the_earth():
    with pytest.warns(SunpyUserWarning, match=r"observer of the maps is 1\.39 AU from the Earth"):
        invert(maps(hgln_obs=90.0))


@maps_table(
    "invert(folder)",
    ("a file with EXPTIME nan", {"EXPTIME": "nan"}, ValueError("aia_171.fits (171 Å): EXPTIME must be")),
    ("a file with WAVELNTH x", {"WAVELNTH": "x"}, ValueError("aia_171.fits: WAVELNTH must be a wavelength")),
    ("a file with WAVEUNIT K", {"WAVEUNIT": "K"}, ValueError("aia_171.fits: WAVEUNIT must be a unit")),
    ("a file with WAVEUNIT empty", {"WAVEUNIT": ""}, ValueError("aia_171.fits: WAVEUNIT must be a unit")),
    ("a file with TELESCOP 3", {"TELESCOP": 3}, ValueError("aia_171.fits (171 Å): TELESCOP must be text")),
    ("a file with CUNIT1 m", {"CUNIT1": "m"}, ValueError("aia_171.fits (171 Å): CUNIT1 must be a unit such as")),
    ("a file with CTYPE1 5", {"CTYPE1": 5}, ValueError("aia_171.fits (171 Å): CTYPE1 must be text")),
)
def test_card_of_a_file(value, expected, folder):
    for smap in maps():
        smap.save(f"aia_{smap.wavelength.value:.0f}.fits")
    with fits.open("aia_171.fits", mode="update") as hdus:
        hdus[0].header.update(value)
    with expected:
        invert(folder)


@maps_table(
    "invert(maps)",
    ("a mask of integers", np.zeros((8, 8), int), ValueError("mask of the AIA 1 171 Angstrom map must be a Boolean")),
    ("a mask of one value", np.True_, ValueError("mask of the AIA 1 171 Angstrom map must be a Boolean array")),
    ("a mask of another shape", np.zeros((4, 8), bool), ValueError("(8, 8), found ndarray of bool, shape (4, 8)")),
)
def test_mask(value, expected):
    with expected:
        invert(replaced(maps(), 171, lambda smap: aia_map(171, smap.data, mask=value)))


OWN = "the uncertainty of the AIA 1 171 Angstrom map"


@maps_table(
    "invert(maps)",
    ("negative σ", StdDevUncertainty(np.full((8, 8), -5.0)), ValueError("found 64 negative values")),
    ("negative variance", VarianceUncertainty(np.full((8, 8), -5.0)), ValueError("found 64 negative values")),
    ("σ of one value", StdDevUncertainty(5.0), ValueError(f"{OWN} must be an array of real numbers")),
    ("σ of another shape", StdDevUncertainty(np.ones((4, 8))), ValueError("(8, 8), found (4, 8)")),
    ("σ of an unknown kind", UnknownUncertainty(np.ones((8, 8))), ValueError("found UnknownUncertainty")),
)
def test_uncertainty(value, expected):
    with expected:
        invert(replaced(maps(), 171, lambda smap: aia_map(171, smap.data, uncertainty=value)))


@maps_table("invert(maps)", ("σ in another unit than the data", "σ is converted."))
def test_unit_of_uncertainty():
    def sigma_of(uncertainty):
        six_maps = replaced(maps(), 171, lambda smap: aia_map(171, smap.data, uncertainty=uncertainty))
        return ChannelStack.from_maps(six_maps, systematic=0).uncertainty.value[2]

    five = np.full((8, 8), 5.0)
    expected = sigma_of(StdDevUncertainty(five))
    for same in (StdDevUncertainty(five / 1000, unit=1000 * u.DN), VarianceUncertainty(five**2)):
        np.testing.assert_allclose(sigma_of(same), expected, rtol=1e-6)


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


@options_table(
    "invert(maps, correction_table=)",
    ("with degradation='response'", ValueError("Pass response=TemperatureResponse.default(obstime=..., correction_")),
)
def test_correction_table(expected):
    with expected:
        invert(maps(), degradation="response", correction_table=correction_table()[0], method="basis-pursuit")


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
@pytest.mark.filterwarnings("ignore:shape=")
def test_any_shape_is_valid_or_rejected(shape):
    try:
        stack = ChannelStack.from_maps(maps(), shape=shape)
    except ValueError as error:
        assert str(error).startswith("shape ")  # noqa: PT017
        return
    assert max(stack.quality.shape) <= 8
