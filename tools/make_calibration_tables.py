"""
Make the packaged tables of AIA degradation and photometric errors.

Usage: ``python tools/make_calibration_tables.py CORRECTION ERROR``, with SolarSoft's
``aia_V10_20201119_190000_response_table.txt`` and ``aia_V3_error_table.txt``.
"""

import argparse
from pathlib import Path

import numpy as np
from astropy.io import ascii
from astropy.table import Table

CHANNELS = (94, 131, 171, 193, 211, 335)
CORRECTION_COLUMNS = (
    "DATE", "VER_NUM", "WAVE_STR", "WAVELNTH", "T_START", "T_STOP",
    "EFFA_P1", "EFFA_P2", "EFFA_P3", "EFF_AREA", "EFF_WVLN",
)  # fmt: skip


def select(source, columns, version, date, description, origin):
    """Select the six channels and the columns, and add the provenance."""
    table = Table(ascii.read(source))[list(columns)]
    table = table[np.isin(table["WAVELNTH"], CHANNELS)]
    table.meta = {
        "description": description,
        "version": version,
        "source": origin,
        "date": date,
        "made_by": "tools/make_calibration_tables.py",
    }
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("correction", type=Path)
    parser.add_argument("error", type=Path)
    args = parser.parse_args()
    data = Path(__file__).resolve().parents[1] / "sunpy_deepem" / "data"
    select(
        args.correction,
        CORRECTION_COLUMNS,
        "V10",
        "2020-11-19",
        "Time-dependent degradation of the AIA coronal EUV channels. EFF_AREA in cm2, EFF_WVLN and WAVELNTH in "
        "angstrom, EFFA_Pn in day^-n.",
        "SolarSoft aia_V10_20201119_190000_response_table.txt",
    ).write(data / "aia_v10_degradation.ecsv", overwrite=True)
    select(
        args.error,
        ("DATE", "T_START", "T_STOP", "VER_NUM", "WAVE_STR", "WAVELNTH", "DNPERPHT", "COMPRESS", "CALERR", "CHIANTI",
         "EVEERR"),
        "V3",
        "2012-02-10",
        "Terms of the error of AIA intensities. DNPERPHT in DN / photon, WAVELNTH in angstrom, the rest relative.",
        "SolarSoft aia_V3_error_table.txt",
    ).write(data / "aia_v3_errors.ecsv", overwrite=True)  # fmt: skip
