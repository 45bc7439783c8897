"""
Make the packaged table of AIA temperature responses with aiapy.

Usage: ``python tools/make_response_table.py SOURCE CHIANTIFIX [--output TABLE]``. SOURCE is an IDL save of the V9
instrument data and emissivity (``aia_hybrid_genx_export_v1.sav`` in the PyPI package pyeuvtools 0.2.1), CHIANTIFIX an
ECSV table with columns ``temperature`` and ``chiantifix_94`` (``aia_V10_temperature_response.ecsv`` in the PyPI package
solar-dynamics-observatory 1.3.0).

Weights store a fingerprint of the response. If the first five digits of the table change, train the default weights
again.
"""

import argparse
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.table import QTable

from sunpy_deepem.calibrate.degradation import correction_table
from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.response.instrument import eve_factor, instrument_channels
from sunpy_deepem.response.temperature_response import TemperatureResponse
from sunpy_deepem.units import RESPONSE_UNIT

PACKAGED = Path(__file__).resolve().parents[1] / "sunpy_deepem" / "data" / "aia_v10_temperature_response.ecsv"


def make_table(source, chiantifix):
    """Return the table with its provenance, from the path of the save and the chiantifix table."""
    response = TemperatureResponse.from_aiapy(
        eve=False, chiantifix=False, instrument_file=source, emissivity=source, wavelength_range=[1, 901] * u.angstrom
    )
    log_t = np.round(np.log10(response.temperature.to_value(u.K)), 4)
    if not np.array_equal(log_t, np.round(np.log10(chiantifix["temperature"].to_value(u.K)), 4)):
        msg = "CHIANTIFIX must have the temperatures of SOURCE, log T from 4 to 9 in steps of 0.05."
        raise ValueError(msg)
    table = QTable()
    table["log_temperature"] = log_t
    for channel, curve in zip(CHANNELS, response.curves, strict=True):
        table[f"response_{channel}"] = curve
    # The empirical corrections of the other channels are zero in SolarSoft
    table["chiantifix_94"] = u.Quantity(chiantifix["chiantifix_94"]).to(RESPONSE_UNIT)
    table.meta = {
        "description": "Temperature response of the AIA coronal EUV channels, without time-dependent correction and "
        "without EVE normalisation. The emission measure is that of n_e n_H. The EVE-normalised response "
        "is response_N x eve_factors[N]; chiantifix_94 is added to that.",
        "version": "V10",
        "eve_factors": eve_factors(source),
        "source": "aiapy.response.Channel with SolarSoft's instrument data V9, integrated from 1 to 901 Å with its "
        "emissivity V9 (CHIANTI 9.0.1, coronal abundances of Feldman 1992), both as distributed by the PyPI package "
        "pyeuvtools 0.2.1 (MIT); this is SolarSoft's aia_get_response(/temperature, /dn), V10. Chiantifix as "
        "distributed by the PyPI package solar-dynamics-observatory 1.3.0 (BSD-3)",
        "references": "Boerner et al. (2012), doi:10.1007/s11207-011-9804-8; "
        "Boerner et al. (2014), doi:10.1007/s11207-013-0452-z",
        "date": "effective area 2013-01-04, chiantifix 2014-05-08, emissivity 2020-06-24",
        "made_by": "tools/make_response_table.py",
    }
    return table


def eve_factors(source):
    """Return aiapy's EVE factors at launch from the V10 table."""
    table, _ = correction_table()
    channels, _ = instrument_channels(source)
    factors = [round(float(eve_factor(channel, table)), 7) for channel in channels]
    return dict(zip(map(str, CHANNELS), factors, strict=True))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("chiantifix", type=Path)
    parser.add_argument("--output", type=Path, default=PACKAGED)
    args = parser.parse_args()
    make_table(args.source, QTable.read(args.chiantifix)).write(args.output, overwrite=True)
