"""
Test pixels of known EM, their noise, and measures of an answer.

All EM is per bin in cm^-5, shape ``(bins, n)``; intensities are in DN s^-1 pix^-1, shape ``(6, n)``.
"""

from functools import cached_property
from typing import NamedTuple

import numpy as np
from loops import lines_of_sight

from sunpy_deepem import CHANNELS
from sunpy_deepem.calibrate.photometry import counts_uncertainty
from sunpy_deepem.training import DEMPrior, simulate_observation

#: Ranges of log T, and the names of the quantities that are derived from the EM of all bins.
BANDS = ((5.6, 6.0), (6.0, 6.3), (6.3, 6.6), (6.6, 7.0))
DERIVED = (*(f"{low}-{high}" for low, high in BANDS), "total", "log T", "width", "energy")
_POINTS_PER_BIN = 20
# NOTE: log10 of the DEM in cm^-5 K^-1 at log T = 5.4, 5.5, ...: the files quiet_sun.dem and coronal_hole.dem of the
# CHIANTI database (Dere et al. 1997, A&AS 125, 149, https://doi.org/10.1051/aas:1997368), made from the intensities of
# Vernazza & Reeves (1978), ApJS 37, 485, https://doi.org/10.1086/190539. The tables end where the lists end.
_CHIANTI_FIRST = 5.4
_CHIANTI = {
    "CHIANTI quiet Sun": (
        *(20.102, 20.068, 20.125, 20.241, 20.374, 20.482, 20.522),
        *(20.460, 20.305, 20.072, 19.775, 19.424, 19.028),
    ),
    "CHIANTI coronal hole": (20.034, 20.032, 20.104, 20.176, 20.154, 19.937, 19.414, 18.493, 17.206, 15.603),
}


class Case(NamedTuple):
    """Measurement errors."""

    #: Native pixels averaged.
    n_sample: float
    #: Systematic error as a fraction of the intensity.
    systematic: float

    @property
    def name(self):
        """Short name for tables."""
        return f"{self.n_sample:g} px, {100 * self.systematic:g} %"


#: Photometric noise alone at 1 and 64 native pixels, and with systematic errors.
CASES = (Case(1, 0.0), Case(64, 0.0), Case(64, 0.05), Case(64, 0.1), Case(64, 0.2))


class SimulatedNoise:
    """
    Variance of `~sunpy_deepem.training.simulate_observation` as a function of the true intensity.

    Parameters
    ----------
    n_sample : `float`
        Native pixels averaged.
    systematic : `float`
        Systematic error as a fraction of the intensity.
    """

    # As in the simulation: usual exposure times in s, and the counts that shorten them.
    _TIMES = np.array([2.9, 2.9, 2.0, 2.0, 2.9, 2.9])
    _MAX_COUNTS = 10000.0
    _POINTS = 40_000

    def __init__(self, n_sample, systematic):
        self.n_sample, self.systematic = float(n_sample), float(systematic)

    @cached_property
    def _tables(self):
        """Variance of each channel's counts on an even grid of their square root, fine enough to be looked up."""
        root = np.linspace(0, np.sqrt(self._MAX_COUNTS), self._POINTS + 1)
        return [counts_uncertainty(root**2, channel, self.n_sample) ** 2 for channel in CHANNELS]

    def __call__(self, intensity):
        """Return the variance, of the shape ``(6, ...)`` of ``intensity``."""
        variance, scale = np.empty_like(intensity), self._POINTS / np.sqrt(self._MAX_COUNTS)
        for index, (row, time, table) in enumerate(zip(intensity, self._TIMES, self._tables, strict=True)):
            times = np.minimum(time, self._MAX_COUNTS / np.maximum(row, 1e-30))
            variance[index] = table[(np.sqrt(row * times) * scale).astype(np.intp)] / times**2
        return variance + (self.systematic * intensity) ** 2


def fine_grid(bins):
    """Points of log T inside the bins, shape ``(bins * points, 1)``."""
    offsets = (np.arange(_POINTS_PER_BIN) + 0.5) / _POINTS_PER_BIN * bins.step
    return (bins.edges[:-1, np.newaxis] + offsets).ravel()[:, np.newaxis]


def binned(per_dex, bins):
    """Mean over each bin of a profile on the fine grid, shape ``(bins, n)``."""
    return per_dex.reshape(len(bins), _POINTS_PER_BIN, -1).mean(axis=1)


def scaled(profile, log_total):
    """Profile with the total EM 10^log_total."""
    return profile * (10**log_total / profile.sum(axis=0))


def gaussian(log_t, center, width):
    """Gaussian in log T with a peak of one."""
    return np.exp(-0.5 * ((log_t - center) / width) ** 2)


def gaussians(n, rng, bins):
    """One Gaussian in log T, as in Cheung et al. (2015) and Hannah & Kontar (2012)."""
    profile = gaussian(fine_grid(bins), rng.uniform(5.7, 7.1, n), rng.uniform(0.05, 0.4, n))
    return scaled(binned(profile, bins), rng.uniform(25, 30, n))


def two_components(n, rng, bins):
    """Two Gaussians at least 0.3 dex apart; the weaker has 3 to 50 % of the EM."""
    log_t = fine_grid(bins)
    cool = rng.uniform(5.7, 6.6, n)
    hot = rng.uniform(cool + 0.3, 7.1)
    parts = [binned(gaussian(log_t, center, rng.uniform(0.05, 0.25, n)), bins) for center in (cool, hot)]
    minor = 10 ** rng.uniform(np.log10(0.03), np.log10(0.5), n)
    share = np.where(rng.random(n) < 0.5, minor, 1 - minor)
    return scaled(scaled(parts[0], np.log10(share)) + scaled(parts[1], np.log10(1 - share)), rng.uniform(26, 29, n))


def _pair(n, rng, bins, fraction):
    """Two Gaussians of width 0.12 dex; the hot one has a given fraction of the EM."""
    log_t = fine_grid(bins)
    cool, hot = (
        scaled(binned(gaussian(log_t, rng.uniform(*centers, n), 0.12), bins), 0) for centers in ((5.9, 6.3), (6.6, 7.0))
    )
    return scaled((1 - fraction) * cool + fraction * hot, rng.uniform(26.5, 28.5, n))


def cool_and_hot(n, rng, bins):
    """A cool component at log T 5.9 to 6.3 and a hot one at 6.6 to 7.0 with 5 to 70 % of the EM."""
    return _pair(n, rng, bins, rng.uniform(0.05, 0.7, n))


def hot_minority(n, rng, bins):
    """The same with 5 to 15 % of the EM in the hot component."""
    return _pair(n, rng, bins, rng.uniform(0.05, 0.15, n))


def top_hats(n, rng, bins):
    """Constant EM per dex over 0.2 to 1 dex."""
    low, width = rng.uniform(5.6, 6.7, n), rng.uniform(0.2, 1.0, n)
    log_t = fine_grid(bins)
    return scaled(binned((log_t >= low) & (log_t <= np.minimum(low + width, 7.15)), bins), rng.uniform(26, 28.5, n))


def loop_strands(n, rng, bins):
    """Lines of sight through impulsively heated strands with their transition region, `loops`."""
    return lines_of_sight(n, rng, bins, transition_region=True)


def loop_corona(n, rng, bins):
    """The coronal part of impulsively heated strands alone, `loops`."""
    return lines_of_sight(n, rng, bins, transition_region=False)


def active_regions(n, rng, bins):
    """EM per dex ~ T^a up to a sharp peak and T^-b beyond; slopes of Warren, Winebarger & Brooks (2012)."""
    x = np.log(10) * (fine_grid(bins) - rng.uniform(6.4, 6.7, n))
    profile = np.exp(np.minimum(rng.uniform(1.5, 5, n) * x, -rng.uniform(4, 14, n) * x))
    return scaled(binned(profile, bins), rng.uniform(26.5, 29, n))


def flares(n, rng, bins):
    """Hot Gaussian at log T 6.85 to 7.15 over an active region that has 1 to 100 % of its EM."""
    hot = binned(gaussian(fine_grid(bins), rng.uniform(6.85, 7.15, n), rng.uniform(0.07, 0.25, n)), bins)
    total = rng.uniform(28, 30, n)
    background = active_regions(n, rng, bins)
    return scaled(scaled(hot, 0) + scaled(background, rng.uniform(-2, 0, n)), total)


def isothermal(n, rng, bins):
    """All of the EM in one bin, log T 5.7 to 7.1."""
    centers = np.flatnonzero((bins.centers > 5.65) & (bins.centers < 7.15))
    em = np.zeros((len(bins), n))
    em[rng.choice(centers, n), np.arange(n)] = 10 ** rng.uniform(25, 30, n)
    return em


def _chianti(name):
    def sample(n, rng, bins):
        log_dem = np.array(_CHIANTI[name])
        log_t = fine_grid(bins)
        knots = _CHIANTI_FIRST + 0.1 * np.arange(log_dem.size)
        dem = 10 ** np.interp(log_t, knots, log_dem, right=-np.inf)
        # EM = ∫ DEM dT, and dT = ln(10) T dlog T.
        em = binned(dem * np.log(10) * 10**log_t * bins.step, bins)
        return em * 10 ** rng.uniform(np.log10(0.3), np.log10(3), n)

    sample.__doc__ = f"{name}'s DEM, times 0.3 to 3."
    return sample


def prior(n, rng, bins):
    """The training prior's own pixels."""
    return DEMPrior(bins).sample(n, seed=rng)


def prior_of(network, bins):
    """Return the prior that a network was trained on, by default that of the package."""
    return DEMPrior(bins, weights=getattr(network, "prior", None) or None)


#: Families of test pixels by name, each ``(n, rng, bins) -> em``.
FAMILIES = {
    "prior": prior,
    "Gaussian": gaussians,
    "two components": two_components,
    "active region": active_regions,
    "flare": flares,
    "isothermal": isothermal,
    **{name: _chianti(name) for name in _CHIANTI},
    "cool and hot": cool_and_hot,
    "hot minority": hot_minority,
    "top hat": top_hats,
    "loop strands": loop_strands,
    "loop corona": loop_corona,
}


def observe(family, case, n, response, *, seed):
    """
    Return true EM, intensity and the uncertainty that an analyst would state of pixels of a family.

    The true EM is the same for every case.
    """
    index = list(FAMILIES).index(family)
    em = FAMILIES[family](n, np.random.default_rng([seed, index]), response.bins)
    rng = np.random.default_rng([seed, index, *(round(1000 * value) for value in case)])
    return em, *simulate_observation(em, response, seed=rng, systematic=case.systematic, n_sample=case.n_sample)


def wasserstein(em, truth, bins):
    """W1 distance of the normalised distributions over log T in dex, shape ``(n,)``."""
    difference = em / em.sum(axis=0) - truth / truth.sum(axis=0)
    return np.abs(np.cumsum(difference, axis=0)).sum(axis=0) * bins.step


def chi2(em, intensity, uncertainty, response):
    """Mean over the channels of the squared residuals in units of σ, shape ``(n,)``."""
    return np.mean(((response.matrix.value @ em - intensity) / uncertainty) ** 2, axis=0)


def covered(low, high, em, truth, least=0.01):
    """Fraction of the bins with more than ``least`` of a pixel's EM whose true EM lies in the interval."""
    return ((truth >= low) & (truth <= high))[em > least * em.sum(axis=0)].mean()


def quantities(em, bins, floor=0.0):
    """
    Return the quantities of EM distributions, shape ``(..., bins, n)``, as ``(..., bins + 8, n)``.

    EM and energy are given as log10, no less than that of ``floor``.
    """
    em = np.asarray(em, dtype=np.float32)
    low, high = bins.edges[:-1], bins.edges[1:]
    parts = [(np.minimum(high, b) - np.maximum(low, a)).clip(0) / bins.step for a, b in BANDS]
    # Mean temperature of a bin that is uniform per dex.
    heat = (10**high - 10**low) / (np.log(10) * bins.step)
    sums = np.matmul(np.array([*parts, np.ones(len(bins)), bins.centers, heat], dtype=np.float32), em)
    total = sums[..., 4, :]
    mean = sums[..., 5, :] / total
    spread = np.matmul(((bins.centers[:, np.newaxis] - 6.3) ** 2).T.astype(np.float32), em)[..., 0, :] / total
    width = np.sqrt(np.maximum(spread - (mean - 6.3) ** 2, 0) + bins.step**2 / 12)
    log_em = np.log10(np.maximum(np.concatenate([em, sums[..., :5, :]], axis=-2), np.maximum(floor, 1e10)))
    energy = np.log10(sums[..., 6, :] / np.sqrt(total))
    return np.concatenate([log_em, np.stack([mean, width, energy], axis=-2)], axis=-2)


def relative(values, bins):
    """Return `quantities` with the EM of bins and bands relative to the total, which the data always constrain."""
    split = len(bins) + len(BANDS)
    return np.concatenate([values[..., :split, :] - values[..., [split], :], values[..., split:, :]], axis=-2)


def names_of(bins):
    """Return the names of `quantities`."""
    return (*(f"EM {center:.1f}" for center in bins.centers), *DERIVED)
