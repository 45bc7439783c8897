"""Prior of solar emission measures: `DEMPrior`."""

import numpy as np

from sunpy_deepem.temperature import LogTBins
from sunpy_deepem.training.observing import generator
from sunpy_deepem.units import TRACE
from sunpy_deepem.utils.checks import real_number, whole_number

__all__ = ["DEMPrior"]

# Points per bin at which an EM distribution is evaluated.
_POINTS_PER_BIN = 5
# Each bin holds a trace of plasma, smaller than TRACE in 95 % of all cases (fraction of the total EM, and its scatter
# in ln), and departs from the family's curve by a few percent (in ln), which keeps densities finite.
_TRACE, _TRACE_SCATTER, _ROUGHNESS = 3e-5, 0.7, 0.03
# exp of it is near the largest number of single precision.
_MAX_EXPONENT = np.float32(80)


class DEMPrior:
    """
    Random emission measure distributions of the solar corona.

    Each draw belongs to one family. The *solar* families describe what is commonly observed: quiet Sun, coronal hole,
    active region (a power law up to its peak and a steeper one beyond, over some quiet Sun), flare (hot plasma over an
    active region) and off-limb corona. A *hot component* with up to half of the EM lies over quiet Sun, an active
    region or off-limb corona. The *neutral* families know nothing of the Sun: isothermal plasma, one to four log-normal
    components anywhere, a cool and a hot component, top hats, and power laws around a peak anywhere. The last two
    groups keep the posterior from excluding plasma that six channels cannot exclude.

    The total EM is log-uniform within the family's range and independent of the shape. Bins outside a family's curve
    hold a trace of plasma, about 3e-5 of the total EM each, or nothing, with even odds: no channel can tell. With bins
    beyond log T 7.25, the flare, hot component and neutral families extend to the last bin.

    Parameters
    ----------
    bins : `LogTBins`, optional
        Bins of log T.
    weights : `dict`, optional
        Relative frequency of families, by name; omitted families are not drawn. By default `DEMPrior.WEIGHTS`.

    Raises
    ------
    ValueError
        If ``weights`` names a family that does not exist, or has no positive weight.

    See Also
    --------
    DEMPrior.neutral : The neutral families alone.
    DEMPrior.solar : Mostly the solar families.

    Notes
    -----
    The weights of the families are a compromise between accuracy in the quiet Sun, where hot plasma is rarely claimed,
    and calibration where there is some. With the solar families alone, the exact posterior of plasma with a hot
    component of 5 to 15 % of the EM excludes that component in most cases, although it is there. With these weights its
    68 % intervals hold the true EM between log T 6.6 and 7.0 in half of such pixels, and the fraction of the quiet
    Sun's EM above log T 6.6 is 1 % (68 % interval 0.08 to 9 %).

    References
    ----------
    Warren, Brooks & Winebarger (2011), ApJ 734, 90, https://doi.org/10.1088/0004-637X/734/2/90,
    Warren, Winebarger & Brooks (2012), ApJ 759, 141, https://doi.org/10.1088/0004-637X/759/2/141, and
    Del Zanna et al. (2015), A&A 573, A104, https://doi.org/10.1051/0004-6361/201423918: slopes of active regions.

    Examples
    --------
    >>> from sunpy_deepem.training import DEMPrior
    >>> DEMPrior().sample(3, seed=0).shape
    (18, 3)
    """

    #: Relative frequency of each family.
    WEIGHTS = {  # noqa: RUF012
        "quiet Sun": 0.13,
        "coronal hole": 0.06,
        "active region": 0.12,
        "flare": 0.05,
        "off limb": 0.04,
        "hot component": 0.38,
        "isothermal": 0.025,
        "components": 0.075,
        "two components": 0.075,
        "top hat": 0.025,
        "power law": 0.02,
    }
    #: The same for `DEMPrior.solar`.
    SOLAR_WEIGHTS = {  # noqa: RUF012
        "quiet Sun": 0.28,
        "coronal hole": 0.13,
        "active region": 0.24,
        "flare": 0.10,
        "off limb": 0.09,
        "isothermal": 0.08,
        "components": 0.08,
    }
    #: The same for `DEMPrior.neutral`.
    NEUTRAL_WEIGHTS = {  # noqa: RUF012
        "isothermal": 0.10,
        "components": 0.40,
        "two components": 0.25,
        "top hat": 0.125,
        "power law": 0.125,
    }
    #: Range of log10 of the total EM in cm^-5, by family.
    LOG_TOTAL_EM = {  # noqa: RUF012
        "quiet Sun": (25.7, 27.5),
        "coronal hole": (25.0, 27.0),
        "active region": (26.5, 29.3),
        "flare": (27.0, 30.0),
        "off limb": (25.0, 27.8),
        "hot component": (25.5, 29.3),
        "isothermal": (25.0, 30.0),
        "components": (25.0, 30.0),
        "two components": (25.0, 30.0),
        "top hat": (25.0, 30.0),
        "power law": (25.0, 30.0),
    }

    def __init__(self, bins=None, *, weights=None):
        weights = self.WEIGHTS if weights is None else weights
        if not isinstance(weights, dict):
            msg = f"weights must be a dict of families and their weights, found {type(weights).__name__}."
            raise TypeError(msg)
        unknown = sorted(set(weights) - set(self.WEIGHTS))
        if unknown:
            msg = f"weights names families that do not exist: {unknown}. Known are {list(self.WEIGHTS)}."
            raise ValueError(msg)
        values = np.array([real_number(value, f"weights[{name!r}]") for name, value in weights.items()])
        if not np.isfinite(values).all() or (values < 0).any() or values.sum() <= 0:
            msg = f"weights must be finite, not negative, and not all zero, found {weights}."
            raise ValueError(msg)
        self.bins = LogTBins() if bins is None else bins
        self.families = tuple(weights)
        self.weights = values / values.sum()
        offsets = (np.arange(_POINTS_PER_BIN) + 0.5) / _POINTS_PER_BIN * self.bins.step
        self._log_t = (self.bins.edges[:-1, np.newaxis] + offsets).ravel()[:, np.newaxis].astype(np.float32)

    @classmethod
    def solar(cls, bins=None):
        """
        Return a prior that expects the Sun to look as usual, with the weights ``SOLAR_WEIGHTS``.

        The network that finds channels inconsistent with the others is trained on it.
        """
        return cls(bins, weights=cls.SOLAR_WEIGHTS)

    @classmethod
    def neutral(cls, bins=None):
        """
        Return the prior of the neutral families alone, with the weights ``NEUTRAL_WEIGHTS``.

        Comparing answers under this and the default prior shows how much the prior matters.
        """
        return cls(bins, weights=cls.NEUTRAL_WEIGHTS)

    def sample(self, n, *, seed, return_family=False, trace=False):
        """
        Draw ``n`` emission measure distributions.

        In a random half of them the trace is absent: ``TRACE`` of the total EM is removed from each bin, down to zero.

        Parameters
        ----------
        n : `int`
            Number of draws.
        seed : `int` or `~numpy.random.Generator`
            Source of randomness; the same seed gives the same draws.
        return_family : `bool`, optional
            Also return the index into ``families`` of each draw.
        trace : `bool`, optional
            Keep the trace in all draws, so that no EM is zero and its logarithm exists.

        Returns
        -------
        em : `~numpy.ndarray`
            EM per bin in cm^-5, shape ``(number of bins, n)``.
        family : `~numpy.ndarray`
            Shape ``(n,)``, if ``return_family``.
        """
        n, rng = whole_number(n, "n", least=0), generator(seed)
        family = rng.choice(len(self.families), size=n, p=self.weights)
        em = np.empty((len(self.bins), n))
        for index, name in enumerate(self.families):
            chosen = np.flatnonzero(family == index)
            em[:, chosen] = self.sample_family(name, chosen.size, seed=rng)
        if not trace:
            bare = rng.random(n) < 0.5
            em[:, bare] = np.maximum(em[:, bare] - TRACE * em[:, bare].sum(axis=0), 0)
        return (em, family) if return_family else em

    def sample_family(self, name, n, *, seed):
        """
        Draw ``n`` distributions of one family.

        Parameters
        ----------
        name : `str`
            One of ``families``.
        n : `int`
            Number of draws.
        seed : `int` or `~numpy.random.Generator`
            Source of randomness.

        Returns
        -------
        `~numpy.ndarray`
            EM per bin in cm^-5, shape ``(number of bins, n)``.
        """
        if name not in self.families:
            msg = f"name must be one of {', '.join(map(repr, self.families))}, found {name!r}."
            raise ValueError(msg)
        n, rng = whole_number(n, "n", least=0), generator(seed)
        shape = _FAMILIES[name](self._log_t, n, rng)
        em = shape.reshape(len(self.bins), _POINTS_PER_BIN, n).mean(axis=1)
        em = _normalized(em) * np.exp(np.float32(_ROUGHNESS) * _normal(rng, em.shape))
        em += np.float32(_TRACE) * np.exp(np.float32(_TRACE_SCATTER) * _normal(rng, em.shape))
        total = 10 ** rng.uniform(*self.log_total_em(name, em))
        return em * (total / em.sum(axis=0, dtype=float))

    def log_total_em(self, name, em):
        """
        Return the range of log10 of the total EM in cm^-5 of distributions of a family.

        Parameters
        ----------
        name : `str`
            One of ``families``.
        em : `~numpy.ndarray`
            Distributions of any scale, shape ``(number of bins, n)``.

        Returns
        -------
        low, high : `~numpy.ndarray`
            Shape ``(n,)``.
        """
        return tuple(np.full(em.shape[1], limit) for limit in self.LOG_TOTAL_EM[name])


def _uniform(rng, low, high, n):
    """Return single precision: drawing EM distributions dominates the time of training."""
    return rng.uniform(low, high, n).astype(np.float32)


def _normal(rng, shape):
    return rng.standard_normal(shape, dtype=np.float32)


def _power_laws(log_t, peak, rise, fall):
    """Return an EM per dex that rises as T^rise to its peak and falls as T^-fall beyond, with a smooth transition."""
    x = np.float32(np.log(10)) * (log_t - peak)
    return 1 / (np.exp(np.minimum(-rise * x, _MAX_EXPONENT)) + np.exp(np.minimum(fall * x, _MAX_EXPONENT)))


def _gaussian(log_t, center, width):
    """Return Gaussians of any scale, which do not vanish where their centers lie outside the bins."""
    nearest = np.clip(center, log_t[0], log_t[-1])
    return np.exp(-0.5 * (np.square((log_t - center) / width) - np.square((nearest - center) / width)))


def _normalized(profile):
    return profile / profile.sum(axis=0)


def _hottest(log_t):
    """Return the largest log T of components: 7.2, or more where bins extend beyond 7.25."""
    end = log_t[-1, 0] + 0.5 * (log_t[1, 0] - log_t[0, 0])
    return max(7.2, round(float(end) - 0.05, 3))


def _transition_region(log_t, n, rng):
    """Return an EM that rises towards low temperature, as in the upper transition region."""
    return _normalized(np.exp(_uniform(rng, -4, -0.5, n) * np.float32(np.log(10)) * (log_t - log_t[0])))


def _quiet_corona(log_t, n, rng, peaks, falls=(8, 30)):
    corona = _power_laws(log_t, _uniform(rng, *peaks, n), _uniform(rng, 0.7, 6, n), _uniform(rng, *falls, n))
    second = _gaussian(log_t, _uniform(rng, peaks[0] - 0.15, peaks[1] + 0.2, n), _uniform(rng, 0.04, 0.2, n))
    fraction = _uniform(rng, 0, 1, n) * (_uniform(rng, 0, 1, n) < 0.8)
    low = 10 ** _uniform(rng, -2.5, -0.3, n)
    return _normalized(
        (1 - fraction) * _normalized(corona) + fraction * _normalized(second) + low * _transition_region(log_t, n, rng)
    )


def _cool_components(log_t, n, rng):
    """Return one to three narrow components below log T 6.5, as of unresolved structures."""
    profile = np.zeros((log_t.shape[0], n), dtype=np.float32)
    components = rng.integers(1, 4, n)
    for k in range(3):
        component = _gaussian(log_t, _uniform(rng, 5.6, 6.45, n), _uniform(rng, 0.03, 0.13, n))
        profile += _normalized(component) * _uniform(rng, 0.02, 1, n) * (k < components)
    low = 10 ** _uniform(rng, -2.5, -0.3, n)
    return _normalized(_normalized(profile) + low * _transition_region(log_t, n, rng))


def _chosen(log_t, rng, families, choice):
    """Return one distribution for each of ``choice``, the indices of their families."""
    profile = np.empty((log_t.shape[0], choice.size), dtype=np.float32)
    for index, family in enumerate(families):
        here = np.flatnonzero(choice == index)
        profile[:, here] = family(log_t, here.size, rng)
    return profile


def _smooth_quiet_sun(log_t, n, rng):
    return _quiet_corona(log_t, n, rng, (5.95, 6.3))


def _quiet_sun(log_t, n, rng):
    return _chosen(log_t, rng, (_smooth_quiet_sun, _cool_components), _uniform(rng, 0, 1, n) >= 0.7)


def _coronal_hole(log_t, n, rng):
    return _quiet_corona(log_t, n, rng, (5.75, 6.1))


def _active_region(log_t, n, rng):
    foreground = 10 ** _uniform(rng, -2, 0.7, n)
    # Hot cores are bright: a core fainter than the quiet Sun is cool.
    peak = _uniform(rng, 6.3, 6.75, n) - np.float32(0.3) * np.log10(np.maximum(foreground, 1))
    core = _power_laws(log_t, peak, _uniform(rng, 1, 6, n), _uniform(rng, 4, 20, n))
    return _normalized(_normalized(core) + foreground * _quiet_sun(log_t, n, rng))


def _flare(log_t, n, rng):
    hot = _gaussian(log_t, _uniform(rng, 6.8, _hottest(log_t) + 0.05, n), _uniform(rng, 0.05, 0.3, n))
    background = 10 ** _uniform(rng, -2.5, 1, n)
    return _normalized(_normalized(hot) + background * _active_region(log_t, n, rng))


def _off_limb(log_t, n, rng):
    first = _gaussian(log_t, _uniform(rng, 5.9, 6.5, n), _uniform(rng, 0.03, 0.2, n))
    second = _gaussian(log_t, _uniform(rng, 5.7, 6.7, n), _uniform(rng, 0.03, 0.25, n))
    fraction = 10 ** _uniform(rng, -2.5, 0, n) * (_uniform(rng, 0, 1, n) < 0.5)
    return _normalized(_normalized(first) + fraction * _normalized(second))


def _hot_component(log_t, n, rng):
    """Return hot plasma, up to half of the EM, over quiet Sun, an active region or off-limb corona."""
    profile = _chosen(log_t, rng, (_quiet_sun, _active_region, _off_limb), rng.integers(3, size=n))
    hot = _gaussian(log_t, _uniform(rng, 6.5, _hottest(log_t), n), _uniform(rng, 0.03, 0.25, n))
    # Small fractions are more frequent, since they are easily overlooked.
    fraction = np.float32(0.5) * _uniform(rng, 0, 1, n) ** np.float32(2.5)
    return (1 - fraction) * profile + fraction * _normalized(hot)


def _isothermal(log_t, n, rng):
    return _normalized(_gaussian(log_t, _uniform(rng, 5.5, _hottest(log_t), n), _uniform(rng, 0.02, 0.06, n)))


def _components(log_t, n, rng):
    """One to four log-normal components anywhere."""
    components = rng.integers(1, 5, n)
    profile = np.zeros((log_t.shape[0], n), dtype=np.float32)
    for k in range(4):
        component = _gaussian(log_t, _uniform(rng, 5.5, _hottest(log_t), n), 10 ** _uniform(rng, -1.5, -0.3, n))
        profile += _normalized(component) * rng.gamma(0.7, size=n).astype(np.float32) * (k < components)
    return _normalized(profile + np.float32(1e-12))


def _two_components(log_t, n, rng):
    """A cool and a hot component, the weaker of which, mostly the hot one, has up to half of the EM."""
    cool = _uniform(rng, 5.55, 6.6, n)
    hot = _uniform(rng, cool + np.float32(0.25), _hottest(log_t), n)
    cool, hot = (_normalized(_gaussian(log_t, center, _uniform(rng, 0.03, 0.25, n))) for center in (cool, hot))
    weaker = np.float32(0.5) * _uniform(rng, 0, 1, n) ** np.float32(1.5)
    fraction = np.where(_uniform(rng, 0, 1, n) < 0.75, weaker, 1 - weaker)
    return (1 - fraction) * cool + fraction * hot


def _top_hat(log_t, n, rng):
    """Constant EM per dex between two temperatures."""
    half_width, edge = 10 ** _uniform(rng, -1.2, -0.1, n), np.float32(0.01)
    distance = np.abs(log_t - _uniform(rng, 5.5, _hottest(log_t), n)) - half_width
    return _normalized(1 / (1 + np.exp(np.clip(distance / edge, -30, 30))))


def _power_law(log_t, n, rng):
    """EM per dex that rises and falls as powers of T around a peak anywhere."""
    rise, fall = (10 ** _uniform(rng, -0.3, 1.5, n) for _ in range(2))
    return _normalized(_power_laws(log_t, _uniform(rng, 5.5, _hottest(log_t), n), rise, fall))


_FAMILIES = {
    "quiet Sun": _quiet_sun,
    "coronal hole": _coronal_hole,
    "active region": _active_region,
    "flare": _flare,
    "off limb": _off_limb,
    "hot component": _hot_component,
    "isothermal": _isothermal,
    "components": _components,
    "two components": _two_components,
    "top hat": _top_hat,
    "power law": _power_law,
}
