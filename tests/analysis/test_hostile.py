"""Bad intensities for the products of six channels."""

import astropy.units as u
import numpy as np
from hostile import Table, response

from sunpy_deepem.analysis import em_loci, fe_xviii, fe_xviii_map

table = Table("Pixels")


@table("em_loci(intensity, response)", ("no unit", TypeError("no 'unit'")))
def test_em_loci(expected):
    with expected:
        em_loci(np.ones(6), response())


@table(
    "fe_xviii(intensity)",
    ("in kelvin", np.ones(6) * u.K, u.UnitsError("'intensity'")),
    ("five channels", np.ones(5) * u.DN / (u.s * u.pix), ValueError("must have the 6 channels")),
)
def test_fe_xviii(value, expected):
    with expected:
        fe_xviii(value)


@table("fe_xviii_map(source)", ("a number", TypeError("source must be a ChannelStack or a")))
def test_fe_xviii_map(expected):
    with expected:
        fe_xviii_map(3)
