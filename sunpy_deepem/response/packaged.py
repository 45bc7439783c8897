"""The packaged table of the temperature response."""

from functools import cache
from importlib import resources

import astropy.units as u
import numpy as np
from astropy.table import QTable

from sunpy_deepem.units import RESPONSE_UNIT

__all__ = ["PACKAGED_TABLE", "chiantifix_94", "packaged_table"]

#: Name of the table in the package's data.
PACKAGED_TABLE = "aia_v10_temperature_response.ecsv"


@cache
def packaged_table():
    """Return SolarSoft's V10 response and its corrections, a `~astropy.table.QTable` that is read once."""
    with resources.as_file(resources.files("sunpy_deepem.data") / PACKAGED_TABLE) as path:
        return QTable.read(path)


def chiantifix_94(temperature):
    """Interpolate SolarSoft's correction of the 94 Å response, zero beyond its temperatures."""
    table = packaged_table()
    log_t, fix = np.log10(temperature.to_value(u.K)), table["chiantifix_94"].to_value(RESPONSE_UNIT)
    return np.interp(log_t, table["log_temperature"].value, fix, left=0, right=0) * RESPONSE_UNIT
