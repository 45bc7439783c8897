"""Bad options of the synthetic Sun."""

from hostile import Table

from sunpy_deepem.sample import sample_em, sample_maps

table = Table("The synthetic Sun")
SHAPES = (
    ("0", (0, 0), ValueError("shape must be two equal whole numbers")),
    ("8 × 16", (8, 16), ValueError("shape must be two equal whole numbers")),
    ("a number", 8, TypeError("shape must be two equal whole numbers")),
)


@table("sample_em(shape)", *SHAPES)
def test_shape_of_em(value, expected):
    with expected:
        sample_em(value)


@table("sample_maps(shape)", *SHAPES)
def test_shape_of_maps(value, expected):
    with expected:
        sample_maps(value)


@table("sample_maps(seed=)", ("-1", ValueError("seed must not be negative")))
def test_seed(expected):
    with expected:
        sample_maps((8, 8), seed=-1)


@table("sample_maps(obstime=)", ("no time", ValueError("obstime must be a time")))
def test_obstime(expected):
    with expected:
        sample_maps((8, 8), obstime="x")
