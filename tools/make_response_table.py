"""
Make the packaged table of AIA temperature responses.

Usage: ``python tools/make_response_table.py SOURCE``, where SOURCE is an ECSV table of SolarSoft's V10 response with
columns ``temperature``, ``response_N`` and ``chiantifix_N`` (as in the PyPI package solar-dynamics-observatory 1.3.0).
"""

import argparse
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.table import QTable

CHANNELS = (94, 131, 171, 193, 211, 335)
UNIT = u.Unit("cm5 DN / (pix s)")
# NOTE: EVE normalisation at the launch epoch, from SolarSoft's V10 response tables by way of aiapy's
# Channel.eve_correction; CHIANTI 9.0.1 and V9 instrument data.
EVE_FACTORS = {94: 0.955, 131: 1.044, 171: 0.968, 193: 1.205, 211: 1.084, 335: 1.273}


def make_table(source):
    """Return the packaged table from SolarSoft's, with the provenance in its metadata."""
    table = QTable()
    table["log_temperature"] = np.round(np.log10(source["temperature"].to_value("K")), 4)
    for channel in CHANNELS:
        table[f"response_{channel}"] = u.Quantity(source[f"response_{channel}"]).to(UNIT)
    # Only 94 Å has an empirical correction; the others' are zero in SolarSoft and are left out here.
    table["chiantifix_94"] = u.Quantity(source["chiantifix_94"]).to(UNIT)
    table.meta = {
        "description": "Temperature response of the AIA coronal EUV channels, without time-dependent correction and "
        "without EVE normalisation. The emission measure is that of n_e n_H. The EVE-normalised response "
        "is response_N x eve_factors[N]; chiantifix_94 is added to that.",
        "version": "V10",
        "eve_factors": {str(channel): factor for channel, factor in EVE_FACTORS.items()},
        "source": "SolarSoft aia_get_response(/temperature, /dn), V10 (instrument V9, CHIANTI 9.0.1, coronal "
        "abundances of Feldman 1992), as distributed by the PyPI package solar-dynamics-observatory 1.3.0 (BSD-3)",
        "references": "Boerner et al. (2012), doi:10.1007/s11207-011-9804-8; "
        "Boerner et al. (2014), doi:10.1007/s11207-013-0452-z",
        "made_by": "tools/make_response_table.py",
    }
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    data = Path(__file__).resolve().parents[1] / "sunpy_deepem" / "data"
    make_table(QTable.read(parser.parse_args().source)).write(
        data / "aia_v10_temperature_response.ecsv", overwrite=True
    )
