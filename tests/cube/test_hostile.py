"""Bad arrays for a cube, and bad arguments of its methods."""

import astropy.units as u
import numpy as np
from helpers import cube_from_arrays
from hostile import Table, cube, maps, response

INTENSITY_UNIT = u.DN / (u.s * u.pix)
table = Table("Cubes")


def from_arrays(**changes):
    """Make a cube from the parts of another, some of them changed."""
    whole = cube()
    parts = {
        "em": whole.data,
        "em_std": None,
        "response": response(),
        "header": whole.sky_header,
        "inputs": whole.inputs,
        "intensity": whole.intensity,
        "uncertainty": whole.intensity_uncertainty,
    }
    return cube_from_arrays(**parts | changes)


@table(
    "Planes.from_fit(em=)",
    ("a string", "a", TypeError("em must be an array of real numbers")),
    ("in kelvin", np.ones((18, 8, 8)) * u.K, TypeError("em must be a plain array, found one in K")),
    ("17 bins", np.ones((17, 8, 8)), ValueError("em must have shape (18, 8, 8)")),
)
def test_em(value, expected):
    with expected:
        from_arrays(em=value)


@table("Planes.from_fit(em_std=)", ("a number", ValueError("em_std must have shape (18, 8, 8), found ()")))
def test_em_std(expected):
    with expected:
        from_arrays(em_std=3)


@table("Planes.from_fit(response=)", ("``None``", TypeError("response must be a TemperatureResponse")))
def test_response(expected):
    with expected:
        from_arrays(response=None)


@table("DEMCube.from_planes(header=)", ("``None``", TypeError("header must be a dict")))
def test_header(expected):
    with expected:
        from_arrays(header=None)


@table(
    "Planes.from_fit(intensity=)",
    ("no unit", np.ones((6, 8, 8)), TypeError("intensity must be a Quantity in DN")),
    ("in kelvin", np.ones((6, 8, 8)) * u.K, u.UnitsError("intensity must be in DN")),
)
def test_intensity(value, expected):
    with expected:
        from_arrays(intensity=value)


@table(
    "Planes.from_fit(uncertainty=)",
    ("five channels", ValueError("uncertainty must have shape")),
)
def test_uncertainty(expected):
    with expected:
        from_arrays(uncertainty=np.ones((5, 8, 8)) * INTENSITY_UNIT)


@table("Planes.from_fit(quality=)", ("another shape", ValueError("quality must have shape (8, 8)")))
def test_quality(expected):
    with expected:
        from_arrays(quality=np.zeros((3, 3), int))


@table("Planes.from_fit(saturation=)", ("another shape", ValueError("saturation must have shape (8, 8)")))
def test_saturation(expected):
    with expected:
        from_arrays(saturation=np.zeros((3, 3)))


# ---------------------------------------------------------------------------------------------------------------------
# Products
# ---------------------------------------------------------------------------------------------------------------------


@table(
    "DEMCube.total_em(low, high)",
    ("the wrong order", (7, 6), ValueError("low must be below high, found 7.0 and 6.0")),
    ("NaN", (np.nan, None), ValueError("low must be below high, found nan")),
    ("beyond the bins", (5, 9), ValueError("must lie within the cube's bins, from 5.45 to 7.25")),
    ("a string", ("a", None), ValueError("low must be a number, log10(T/K), found 'a'")),
    ("a length", (1 * u.m, None), ValueError("low must be a positive temperature")),
)
def test_total_em(value, expected):
    with expected:
        cube().total_em(*value)


@table(
    "DEMCube.bin_map(log_t)",
    ("NaN", np.nan, ValueError("log_t must")),
    ("1e6", 1e6, ValueError("log_t must")),
    ("a string", "a", ValueError("log_t must")),
    ("``None``", None, ValueError("log_t must")),
)
def test_bin_map(value, expected):
    with expected:
        cube().bin_map(value)


@table(
    "DEMCube.band_maps(bands)",
    ("nothing", [], ValueError("bands must be one or more")),
    ("a number", 3, ValueError("bands must be one or more")),
    ("triples", [(6, 6.2, 6.4)], ValueError("bands must be one or more")),
)
def test_band_maps(value, expected):
    with expected:
        cube().band_maps(value)


@table(
    "DEMCube.electron_density(depth)",
    ("no unit", 5, TypeError("'depth' to function 'electron_density' has no 'unit'")),
    ("in seconds", 5 * u.s, u.UnitsError("'depth'")),
    ("0", 0 * u.cm, ValueError("depth must be a positive length")),
    ("NaN", np.nan * u.cm, ValueError("depth must be a positive length")),
    ("another shape", np.ones((3, 3)) * u.cm, ValueError("depth must be one length or have the shape")),
)
def test_electron_density(value, expected):
    with expected:
        cube().electron_density(value)


@table(
    "DEMCube.thermal_energy(depth, filling_factor=)",
    ("a string", ValueError("filling_factor must be a number above 0")),
)
def test_filling_factor(expected):
    with expected:
        cube().thermal_energy(5 * u.Mm, filling_factor="a")


@table(
    "DEMCube.curve(region)",
    ("a string", "x", TypeError("region must be a SkyCoord")),
    ("an empty mask", np.zeros((8, 8), bool), ValueError("region holds no pixel")),
    ("a mask of another shape", np.ones((3, 3), bool), ValueError("region, as a mask, must have the shape")),
)
def test_curve(value, expected):
    with expected:
        cube().curve(value)


@table("DEMCube.synthesize()", ("a cube without log T", ValueError("needs the axes")))
def test_synthesize_without_temperatures(expected):
    with expected:
        cube()[5].synthesize()


# ---------------------------------------------------------------------------------------------------------------------
# Resampling and arithmetic
# ---------------------------------------------------------------------------------------------------------------------


@table(
    "DEMCube.rebin(bin_shape)",
    ("``None``", None, ValueError("bin_shape must hold")),
    ("a string", "a", ValueError("bin_shape must hold")),
    ("0", (0, 1, 1), ValueError("bin_shape must hold")),
    ("NaN", (1, np.nan, 1), ValueError("bin_shape must hold")),
    ("1.5", (1, 1.5, 1), ValueError("bin_shape must hold")),
    ("three, of eight", (1, 3, 3), ValueError("bin_shape must hold")),
    ("in centimetres", [1, 2, 2] * u.cm, ValueError("bin_shape must hold")),
)
def test_rebin(value, expected):
    with expected:
        cube().rebin(value)


@table("DEMCube.reproject_to(target)", ("a number", ValueError("target_wcs must be")))
def test_reproject_to(expected):
    with expected:
        cube().reproject_to(3)


SHAPE_OUT = "shape_out must be two positive whole numbers"


@table(
    "DEMCube.reproject_to(target, shape_out=)",
    ("0", (0, 0), ValueError(SHAPE_OUT)),
    ("negative", (-1, 3), ValueError(SHAPE_OUT)),
    ("one", 3, ValueError(SHAPE_OUT)),
    ("2.5", (2.5, 3), ValueError(SHAPE_OUT)),
    ("a string", "ab", ValueError(SHAPE_OUT)),
)
def test_shape_of_reprojection(value, expected):
    with expected:
        cube().reproject_to(maps()[0].wcs, shape_out=value)


@table(
    "DEMCube.reproject_to(target, algorithm=)",
    ("a list", ValueError("algorithm must be one of")),
)
def test_algorithm_of_reprojection(expected):
    with expected:
        cube().reproject_to(maps()[0].wcs, algorithm=[])


@table("cube + other", ("a number", u.UnitConversionError("are not convertible")))
def test_sum(expected):
    with expected:
        cube() + 5


@table("cube * other", ("another shape", ValueError("must have a shape that fits")))
def test_product(expected):
    with expected:
        cube() * np.ones((3, 3))


@table("cube / other", ("0", "Nothing finite."))
def test_division_by_zero():
    assert not np.isfinite((cube() / 0).data).any()


@table(
    "cube ** other",
    ("a string", "a", TypeError("unsupported operand")),
    ("NaN", np.nan, ValueError("exponent of a cube must be finite")),
)
def test_power(value, expected):
    with expected:
        cube() ** value


@table("cube[…]", ("a step", IndexError("must have step 1")))
def test_slice(expected):
    with expected:
        cube()[::2]
