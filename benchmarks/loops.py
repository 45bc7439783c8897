"""
Emission measure of impulsively heated, cooling loops by a 0-D hydrodynamic model.

The model follows the mean pressure and density of a strand (EBTEL: Klimchuk et al. 2008, ApJ 682, 1351,
https://doi.org/10.1086/589521; Cargill et al. 2012, ApJ 752, 161, https://doi.org/10.1088/0004-637X/752/2/161), single
fluid, subsonic, without gravity::

    3/2 dp/dt = Q - (1 + c1) n² Λ(T)                       energy of the corona
    dn/dt = -c2 (F + c1 n² Λ L) / (5 c3 k T L)             enthalpy flux: conducted energy that the transition region
                                                           does not radiate evaporates plasma
    p = 2 n k T,  T_apex = T / c2,  F = -(2/7) κ T_apex^(7/2) / L, limited to the free-streaming flux

L is the half-length; c2 = 0.9 and c3 = 0.6 are the mean temperature and that of the base relative to the apex; c1 is
the ratio of transition-region to coronal losses: 2 in equilibrium and in the conductive phase, down to 0.6 in the
radiative phase. The EM of the corona is uniform in T from 2 T - T_apex to T_apex. That of the transition region follows
from its energy balance κ T^(3/2) T'² - 5 k J T' - n² Λ = 0 at constant pressure with a flux of J particles per cm² and
second: EM per K = n² / T'.
"""

from functools import cache

import numpy as np

_BOLTZMANN, _ELECTRON_MASS, _KAPPA = 1.380649e-16, 9.109e-28, 8.12e-7  # cgs; κ as in EBTEL
_C2, _C3 = 0.9, 0.6
# NOTE: radiative losses in erg cm^3 s^-1 as a T^b below log T, Klimchuk et al. (2008), equation 3.
_LOSSES = (
    (4.97, 1.09e-31, 2.0),
    (5.67, 8.87e-17, -1.0),
    (6.18, 1.90e-22, 0.0),
    (6.55, 3.53e-13, -1.5),
    (6.90, 3.46e-25, 1 / 3),
    (7.63, 5.49e-16, -1.0),
    (np.inf, 1.96e-27, 0.5),
)
_COOLEST = 2e4
_STEP, _DURATION, _SETTLED, _SNAPSHOTS = 1.0, 12000.0, 3000.0, 60
_LOOPS = 400
_LEAST_EM = 1e25  # cm^-5
_FINE = 10  # points per bin in the transition region


def losses(temperature):
    """Return Λ(T) in erg cm^3 s^-1."""
    index = np.searchsorted([limit for limit, *_ in _LOSSES], np.log10(temperature))
    factor, power = (np.array(column)[index] for column in zip(*(row[1:] for row in _LOSSES), strict=True))
    return factor * temperature**power


def _rates(pressure, density, heating, length):
    """Return dp/dt, dn/dt and the flux J of particles into the corona."""
    temperature = np.maximum(pressure / (2 * _BOLTZMANN * density), _COOLEST)
    apex = temperature / _C2
    conduction = 2 / 7 * _KAPPA * apex**3.5 / length
    free = 0.25 * density * (_BOLTZMANN * temperature) ** 1.5 / np.sqrt(_ELECTRON_MASS)
    conduction = conduction * free / np.hypot(conduction, free)
    radiation = density**2 * losses(temperature)
    # Density in equilibrium over the density, squared: the loop is radiative where it is below one.
    excess = conduction / (2 * length * radiation)
    c1 = np.where(excess > 1, 2.0, (4 + 0.6 * (1 / np.minimum(excess, 1) - 1)) / (1 + 1 / np.minimum(excess, 1)))
    flux = (conduction - c1 * radiation * length) / (5 * _BOLTZMANN * temperature * _C3 / _C2)
    return 2 / 3 * (heating - (1 + c1) * radiation), flux / length, flux


def evolve(length, heating):
    """
    Integrate strands in time.

    Parameters
    ----------
    length : `~numpy.ndarray`
        Half-lengths in cm, shape ``(n,)``.
    heating : callable
        Heating rate in erg cm^-3 s^-1, shape ``(n,)``, as a function of time in s.

    Yields
    ------
    time, pressure, density, flux
        Time in s, and arrays of shape ``(n,)`` in cgs.
    """
    # Static equilibrium of the first heating rate: with c1 = 2, two thirds of it are conducted downwards.
    apex = (7 * heating(0.0) * length**2 / (3 * _KAPPA)) ** (2 / 7)
    temperature = _C2 * apex
    density = np.sqrt(heating(0.0) / (3 * losses(temperature)))
    pressure = 2 * _BOLTZMANN * density * temperature
    for time in np.arange(0, _DURATION, _STEP):
        first = _rates(pressure, density, heating(time), length)
        middle = (
            np.maximum(value + _STEP / 2 * rate, 0.1 * value)
            for value, rate in zip((pressure, density), first[:2], strict=True)
        )
        second = _rates(*middle, heating(time + _STEP / 2), length)
        density = np.maximum(density + _STEP * second[1], 0.5 * density)
        pressure = np.maximum(pressure + _STEP * second[0], 2 * _BOLTZMANN * density * _COOLEST)
        yield time, pressure, density, second[2]


def _trains(n, rng):
    """Return half-lengths and heating of strands: trains of triangular pulses over a weak steady heating."""
    length = 10 ** rng.uniform(np.log10(1.5e9), np.log10(1e10), n)
    # Energy flux through both footpoints, quiet Sun to active-region core, as mean heating of the volume.
    mean = 10 ** rng.uniform(5.3, 7.3, n) / length
    duration, wait = 10 ** rng.uniform(1.3, 2.5, n), 10 ** rng.uniform(2.5, 4, n)
    pulses = int(_DURATION / 10**2.5) + 1
    starts = np.cumsum(wait * rng.uniform(0.3, 1.7, (pulses, n)), axis=0) - wait * rng.uniform(0, 1, n)
    # A power law of energies, index -2.5, between one and thirty.
    energy = (1 - rng.random((pulses, n)) * (1 - 30**-1.5)) ** (-1 / 1.5)
    peak = 2 * mean * wait / duration * energy / energy.mean()
    steady = np.maximum(0.02 * mean, 2e-6)

    def heating(time):
        phase = (time - starts) / duration
        return steady + (peak * np.maximum(1 - np.abs(2 * phase - 1), 0)).sum(axis=0)

    return length, heating


def _corona(temperature, density, length, edges):
    """EM of both legs' corona in cm^-5, shape ``(bins, n)``: uniform in T."""
    apex = temperature / _C2
    low = np.maximum(2 * temperature - apex, _COOLEST)
    inside = np.clip(edges[:, np.newaxis], low, apex)
    return 2 * length * density**2 * np.diff(inside, axis=0) / (apex - low)


def _transition_region(pressure, temperature, flux, edges):
    """EM of both legs' transition region in cm^-5, shape ``(bins, n)``."""
    n_fine = (edges.size - 1) * _FINE
    log_t = np.interp((np.arange(n_fine) + 0.5) / _FINE, np.arange(edges.size), np.log10(edges))
    t = 10 ** log_t[:, np.newaxis]
    squared = (pressure / (2 * _BOLTZMANN * t)) ** 2
    enthalpy, kappa = 5 * _BOLTZMANN * flux, _KAPPA * t**1.5
    gradient = (enthalpy + np.sqrt(enthalpy**2 + 4 * kappa * squared * losses(t))) / (2 * kappa)
    width = t * np.log(10) * np.diff(np.log10(edges)).mean() / _FINE
    em = np.where(t < _C3 * temperature / _C2, 2 * squared / gradient * width, 0)
    return em.reshape(edges.size - 1, _FINE, -1).sum(axis=1)


@cache
def library(first, step, bins, seed=2008):
    """
    Return the EM of many strands at many times.

    Parameters
    ----------
    first, step, bins
        As for `LogTBins`.
    seed : `int`, optional
        Seed of the strands.

    Returns
    -------
    corona, transition_region : `~numpy.ndarray`
        EM along the whole strand in cm^-5, shape ``(bins, snapshots, strands)``.
    length : `~numpy.ndarray`
        Half-lengths in cm, shape ``(strands,)``.
    """
    edges = 10 ** (first + step * (np.arange(bins + 1) - 0.5))
    length, heating = _trains(_LOOPS, np.random.default_rng(seed))
    kept = np.linspace(_SETTLED, _DURATION - _STEP, _SNAPSHOTS).round()
    parts = []
    for time, pressure, density, flux in evolve(length, heating):
        if time in kept:
            temperature = pressure / (2 * _BOLTZMANN * density)
            corona = _corona(temperature, density, length, edges)
            parts.append((corona, _transition_region(pressure, temperature, flux, edges)))
    return *(np.stack(part, axis=1) for part in zip(*parts, strict=True)), length


def lines_of_sight(n, rng, bins, *, transition_region):
    """
    Return the EM of lines of sight through two to eight strands at random times.

    The strands of a line have similar lengths. Each has a depth of 0.1 to 3 Mm along the line; its EM is the mean over
    the strand.

    Parameters
    ----------
    n : `int`
        Number of lines.
    rng : `~numpy.random.Generator`
    bins : `LogTBins`
    transition_region : `bool`
        Whether the transition region is included, as in a footpoint's or whole strand's mean.

    Returns
    -------
    `~numpy.ndarray`
        EM in cm^-5, shape ``(bins, n)``.
    """
    corona, base, length = library(bins.first, bins.step, len(bins))
    strands = (corona + base if transition_region else corona) / (2 * length)
    order = np.argsort(length)
    tried = 2 * n + 10
    em = np.zeros((len(bins), tried))
    number, center = rng.integers(2, 9, tried), rng.integers(0, order.size, tried)
    for k in range(8):
        strand = order[np.clip(center + rng.integers(-20, 21, tried), 0, order.size - 1)]
        depth = 10 ** rng.uniform(7, 8.5, tried) * (k < number)
        em += strands[:, rng.integers(0, strands.shape[1], tried), strand] * depth
    # Strands that have cooled below the bins are invisible.
    return em[:, em.sum(axis=0) > _LEAST_EM][:, :n]
