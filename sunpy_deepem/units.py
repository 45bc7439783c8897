"""Units and numerical constants that several subpackages share."""

import astropy.units as u

__all__ = [
    "ALIGNMENT_TOLERANCE",
    "COVERAGE",
    "EDGE_TOLERANCE",
    "EMISSIVITY_UNIT",
    "EM_SCALE",
    "EM_UNIT",
    "INTENSITY_UNIT",
    "LOG_T_TOLERANCE",
    "MIN_CHANNELS",
    "MIN_VALID_FRACTION",
    "NATIVE_PLATE_SCALE",
    "RESPONSE_UNIT",
    "SATURATION",
    "TRACE",
]

#: Unit of the emission measure of a bin.
EM_UNIT = u.cm**-5

#: Emission measure in cm^-5 that networks and solvers use as 1.
EM_SCALE = 1e25

#: Unit of intensity. The pixel is AIA's native one, also for coarser maps.
INTENSITY_UNIT = u.DN / (u.s * u.pix)

#: Unit of the temperature response. The pixel is AIA's native one.
RESPONSE_UNIT = u.cm**5 * u.DN / (u.pix * u.s)

#: Unit of the spectral emissivity, per n_e n_H.
EMISSIVITY_UNIT = u.photon * u.cm**3 / (u.s * u.sr * u.angstrom)

# NOTE: Boerner et al. (2012), Solar Phys. 275, 41.
#: AIA's plate scale after registration.
NATIVE_PLATE_SCALE = 0.6 * u.arcsec / u.pix

# NOTE: Full well is 16383 DN; the detector is nonlinear near it. Boerner et al. (2012), Solar Phys. 275, 41.
#: Counts in DN from which a native pixel is flagged as saturated.
SATURATION = 15000

#: Grids that differ by less than this many pixels are treated as the same.
ALIGNMENT_TOLERANCE = 0.1

#: Fields overlap if they share more than this many pixels, as rounding and seconds of orbit move their edges.
EDGE_TOLERANCE = 0.01

#: Channels required for an inversion.
MIN_CHANNELS = 3

#: Fraction of a binned or reprojected pixel that must hold valid data.
MIN_VALID_FRACTION = 0.5

#: log10(T/K) axes that differ by less than this are the same.
LOG_T_TOLERANCE = 1e-6

#: Probability within one standard deviation of a Gaussian, that of all intervals.
COVERAGE = 0.6827

#: Fraction of a pixel's total EM that no channel can see in any bin; priors and draws treat it as possibly absent.
TRACE = 1e-4
