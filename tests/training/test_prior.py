"""The prior: families of EM distributions."""

import numpy as np
import pytest
from scipy import stats

from sunpy_deepem import LogTBins
from sunpy_deepem.training import DEMPrior

#: Means over 4000 draws of seed 0 of log10 of the total EM, EM-weighted log T, its standard deviation, and log10 of the
#: fraction of the EM above log T 6.6. The packaged weights were trained with these; a change needs new weights.
MEANS = {
    "quiet Sun": (26.61700, 6.02177, 0.19509, -3.00319),
    "coronal hole": (25.99078, 5.85875, 0.16905, -3.19667),
    "active region": (27.89064, 6.28823, 0.22357, -2.05504),
    "flare": (28.51086, 6.76793, 0.27855, -0.22256),
    "off limb": (26.38369, 6.19855, 0.13703, -2.74745),
    "hot component": (27.40372, 6.26833, 0.27474, -1.25352),
    "isothermal": (27.49856, 6.34413, 0.05204, -2.32779),
    "components": (27.50487, 6.35158, 0.27981, -1.20654),
    "two components": (27.47087, 6.31199, 0.28321, -1.16772),
    "top hat": (27.49856, 6.34943, 0.15497, -1.97593),
    "power law": (27.51436, 6.35250, 0.20659, -1.47416),
}


def moments(bins, em):
    """Return the EM-weighted log T of distributions and its standard deviation."""
    weights, log_t = em / em.sum(axis=0), bins.centers[:, np.newaxis]
    mean = (weights * log_t).sum(axis=0)
    return mean, np.sqrt((weights * (log_t - mean) ** 2).sum(axis=0))


@pytest.mark.parametrize("family", DEMPrior.WEIGHTS)
def test_families_are_positive_and_in_range(family):
    em = DEMPrior().sample_family(family, 500, seed=0)
    assert em.shape == (18, 500)
    assert np.isfinite(em).all()
    assert em.min() >= 0
    low, high = DEMPrior.LOG_TOTAL_EM[family]
    total = np.log10(em.sum(axis=0))
    assert low - 1e-6 <= total.min() < low + 0.1 * (high - low)
    assert high - 0.1 * (high - low) < total.max() <= high + 1e-6


def test_quiet_sun_and_coronal_holes_are_not_hot():
    hot = LogTBins().centers > 6.6
    for family in ("quiet Sun", "coronal hole"):
        em = DEMPrior().sample_family(family, 2000, seed=0)
        assert np.median(em[hot].sum(axis=0) / em.sum(axis=0)) < 1e-3
    em = DEMPrior().sample_family("flare", 2000, seed=0)
    assert np.median(em[hot].sum(axis=0) / em.sum(axis=0)) > 0.5


@pytest.mark.parametrize("family", DEMPrior.WEIGHTS)
def test_total_em_is_log_uniform_in_the_range_of_the_family(family):
    prior = DEMPrior()
    em = prior.sample_family(family, 4000, seed=0)
    low, high = prior.log_total_em(family, em)
    position = (np.log10(em.sum(axis=0)) - low) / (high - low)
    assert stats.kstest(position, "uniform").pvalue > 0.001


def test_many_draws_have_empty_bins():
    prior = DEMPrior.neutral()
    em = prior.sample(4000, seed=0)
    empty = (em == 0).any(axis=0)
    assert 0.3 < empty.mean() < 0.5
    # Nothing that a channel could see is removed.
    np.testing.assert_allclose(em.sum(axis=0), prior.sample(4000, seed=0, trace=True).sum(axis=0), rtol=3e-3)
    assert (prior.sample(1000, seed=0, trace=True) > 0).all()


def test_neutral_and_solar_priors():
    assert "quiet Sun" not in DEMPrior.neutral().families
    assert "two components" not in DEMPrior.solar().families
    for prior in (DEMPrior(), DEMPrior.neutral(), DEMPrior.solar()):
        assert prior.weights.sum() == pytest.approx(1)


def test_weights_choose_families():
    prior = DEMPrior(weights={"flare": 1, "quiet Sun": 3})
    _, family = prior.sample(4000, seed=0, return_family=True)
    assert prior.families == ("flare", "quiet Sun")
    assert np.mean(family == 1) == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize("weights", [{"sunspot": 1}, {"flare": -1}, {"flare": 0}, {"flare": np.nan}])
def test_bad_weights(weights):
    with pytest.raises(ValueError, match="weights"):
        DEMPrior(weights=weights)


def test_same_seed_same_draws():
    np.testing.assert_array_equal(DEMPrior().sample(50, seed=3), DEMPrior().sample(50, seed=3))
    assert not np.array_equal(DEMPrior().sample(50, seed=3), DEMPrior().sample(50, seed=4))


@pytest.mark.parametrize("family", DEMPrior.WEIGHTS)
def test_families_are_those_of_the_packaged_weights(family):
    prior = DEMPrior()
    em = prior.sample_family(family, 4000, seed=0)
    total, hot = em.sum(axis=0), em[prior.bins.centers > 6.6].sum(axis=0)
    found = np.log10(total), *moments(prior.bins, em), np.log10(hot / total)
    assert [values.mean() for values in found] == pytest.approx(MEANS[family], abs=2e-5)


@pytest.mark.parametrize("weights", [DEMPrior.WEIGHTS, DEMPrior.SOLAR_WEIGHTS, DEMPrior.NEUTRAL_WEIGHTS])
def test_weights_are_fractions(weights):
    assert sum(weights.values()) == pytest.approx(1)


@pytest.mark.parametrize("bins", [LogTBins(n=12), LogTBins(first=6.0, n=10), LogTBins(step=0.05, n=12)], ids=repr)
@pytest.mark.parametrize("family", DEMPrior.WEIGHTS)
def test_short_axes(bins, family):
    em = DEMPrior(bins).sample_family(family, 500, seed=0)
    assert np.isfinite(em).all()
    assert (em >= 0).all()


def test_plasma_is_as_hot_as_the_bins():
    """Plasma is drawn up to log T 7.2, or up to the center of the last bin of longer axes."""
    for n, hottest in ((18, 7.2), (22, 7.6)):
        prior = DEMPrior(LogTBins(n=n))
        mean, width = moments(prior.bins, prior.sample_family("isothermal", 4000, seed=0))
        assert hottest - 0.05 < mean.max() < hottest + 0.01
        assert width.max() < 0.1
