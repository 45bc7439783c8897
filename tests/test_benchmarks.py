"""The limit of ``benchmarks/limit.py`` where it can be worked out by hand, and the test pixels and their measures."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sunpy_deepem import LogTBins

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from families import CASES, FAMILIES, covered, observe, wasserstein
from limit import Draws, SimulatedNoise, draw, posterior

from sunpy_deepem.training import DEMPrior

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
UNIT = 1e27


def draws_of(response, shapes, limits):
    """Draws of given shapes, ``(bins, n)``, and limits of the total EM in 10^27 cm^-5, ``(2, n)``."""
    matrix = response.matrix.value * UNIT
    return Draws(*(np.asarray(array, dtype=np.float32) for array in (shapes, matrix @ shapes, limits)))


def one_bin(*indices):
    return np.eye(18)[:, indices]


def brute_force(intensity, variance, draws, n=20000):
    """Posterior mean, second moment and weight of each draw for one pixel, by a sum over a fine grid of totals."""
    low, high = np.log(draws.limits.astype(float))
    totals = np.exp(low[:, None] + (high - low)[:, None] * (np.arange(n) + 0.5) / n)
    model = draws.intensity.astype(float)[:, :, None] * totals
    sigma2 = variance(model)
    logs = -0.5 * ((model - intensity[:, None, None]) ** 2 / sigma2 + np.log(sigma2)).sum(axis=0)
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    shape = draws.shape.astype(float)
    mean = shape @ (weights * totals).sum(axis=1) * UNIT
    return mean, shape**2 @ (weights * totals**2).sum(axis=1) * UNIT**2, weights.sum(axis=1)


def test_two_draws_of_known_weights(response):
    # With the total known, the weights of two shapes are in the ratio of their likelihoods.
    draws = draws_of(response, one_bin(6, 7), [[1.0, 1.0], [1.00001, 1.00001]])
    share = 0.37
    intensity = draws.intensity.astype(float) @ [share, 1 - share]
    uncertainty = 0.5 * intensity
    chi2 = (((draws.intensity - intensity[:, None]) / uncertainty[:, None]) ** 2).sum(axis=0)
    expected = np.exp(-0.5 * chi2) / np.exp(-0.5 * chi2).sum()
    assert 0.05 < expected[0] < 0.95
    result = posterior(intensity[:, None], uncertainty[:, None], draws)
    np.testing.assert_allclose(result.em[[6, 7], 0] / UNIT, expected, rtol=1e-4)
    np.testing.assert_allclose(result.std[6, 0] / UNIT, np.sqrt(expected[0] * expected[1]), rtol=1e-3)
    np.testing.assert_allclose(result.ess, 1 / (expected**2).sum(), rtol=1e-4)


@pytest.mark.parametrize("error", [0.05, 0.2, 1.0, 5.0])
def test_totals_are_integrated_as_by_brute_force(response, error):
    # Two shapes, ranges of different length, a true total within them: from a sharp to a hardly bounded likelihood.
    draws = draws_of(
        response, np.stack([one_bin(6, 7).mean(axis=1), one_bin(7, 8).mean(axis=1)]).T, [[0.01, 0.1], [100, 10]]
    )
    intensity = 2 * draws.intensity.astype(float).mean(axis=1)
    uncertainty = error * intensity
    mean, square, weights = brute_force(intensity, lambda model: uncertainty[:, None, None] ** 2, draws)
    result = posterior(intensity[:, None], uncertainty[:, None], draws)
    np.testing.assert_allclose(result.em[:, 0], mean, rtol=2e-3, atol=1e-4 * UNIT)
    np.testing.assert_allclose(result.std[:, 0] ** 2 + result.em[:, 0] ** 2, square, rtol=5e-3, atol=1e-4 * UNIT**2)
    np.testing.assert_allclose(result.ess, 1 / (weights**2).sum(), rtol=2e-3)


def test_true_total_beyond_the_prior_is_held_at_its_limit(response):
    draws = draws_of(response, one_bin(7), [[0.1], [1.0]])
    intensity = 1.5 * draws.intensity.astype(float)[:, 0]
    uncertainty = 0.1 * intensity
    mean, *_ = brute_force(intensity, lambda model: uncertainty[:, None, None] ** 2, draws)
    result = posterior(intensity[:, None], uncertainty[:, None], draws)
    assert result.em[7, 0] < UNIT
    np.testing.assert_allclose(result.em[7, 0], mean[7], rtol=1e-4)


def test_quantiles_of_one_shape_are_those_of_its_total(response):
    # With a sharp likelihood the total is normal, and its 68 % interval one standard deviation to each side.
    draws = draws_of(response, one_bin(7), [[0.01], [100.0]])
    intensity = draws.intensity.astype(float)[:, 0]
    uncertainty = 0.02 * intensity
    result = posterior(intensity[:, None], uncertainty[:, None], draws)
    std = 0.02 / np.sqrt(6)
    np.testing.assert_allclose(result.std[7, 0] / UNIT, std, rtol=0.01)
    quantiles = result.quantiles[:, 7, 0] / UNIT
    expected = 1 + std * np.array([-1.960, -0.994, 0.994, 1.960])
    np.testing.assert_allclose(quantiles, expected, atol=0.15 * std)


def test_noise_of_the_truth_is_integrated_as_by_brute_force(response):
    noise = SimulatedNoise(*CASES[4])
    draws = draw(DEMPrior(), response, 300, seed=5)
    _, intensity, uncertainty = observe("prior", CASES[4], 4, response, seed=3)
    result = posterior(intensity, uncertainty, draws, noise=noise)
    for pixel in range(4):
        mean, *_ = brute_force(intensity[:, pixel], noise, draws, n=1000)
        assert wasserstein(result.em[:, pixel, None], mean[:, None], response.bins)[0] < 2e-3
        np.testing.assert_allclose(result.em[:, pixel].sum(), mean.sum(), rtol=5e-3)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_simulated_noise_is_that_of_the_simulation(response, case):
    truth, intensity, _ = observe("prior", case, 4000, response, seed=2)
    truth = response.matrix.value @ truth
    scatter = ((intensity - truth) / np.sqrt(SimulatedNoise(*case)(truth))).std(axis=1)
    np.testing.assert_allclose(scatter, 1, atol=0.05)


def test_following_up_a_part_of_the_draws_changes_little(response, monkeypatch):
    draws = draw(DEMPrior(), response, 20000, seed=5)
    _, intensity, uncertainty = observe("prior", CASES[4], 8, response, seed=3)
    full = posterior(intensity, uncertainty, draws)
    monkeypatch.setattr("limit._FOLLOWED", 500)
    part = posterior(intensity, uncertainty, draws)
    assert wasserstein(part.em, full.em, response.bins).max() < 0.01
    np.testing.assert_allclose(part.ess, full.ess, rtol=0.1)


def test_interval_of_the_limit_covers_the_prior_as_often_as_it_says(response):
    draws = draw(DEMPrior(), response, 10000, seed=5)
    truth, intensity, uncertainty = observe("prior", CASES[4], 80, response, seed=3)
    result = posterior(intensity, uncertainty, draws, noise=SimulatedNoise(*CASES[4]))
    known = result.ess > 50
    assert known.sum() > 50
    low, high = result.quantiles[1][:, known], result.quantiles[2][:, known]
    assert covered(low, high, result.em[:, known], truth[:, known]) == pytest.approx(0.68, abs=0.08)


@pytest.mark.parametrize("name", FAMILIES)
def test_families_are_distributions_on_the_bins(name):
    em = FAMILIES[name](50, np.random.default_rng(0), LogTBins())
    assert em.shape == (18, 50)
    assert (em >= 0).all()
    assert ((em.sum(axis=0) > 1e24) & (em.sum(axis=0) < 2e30)).all()


def test_every_case_has_the_same_truth(response):
    first, second = (observe("flare", case, 5, response, seed=1) for case in CASES[:2])
    np.testing.assert_array_equal(first[0], second[0])
    assert (first[1] != second[1]).all()


def test_chianti_quiet_sun_peaks_where_its_table_does():
    # DEM T is largest at log T 6.1 (10^(20.460 + 6.1)), and the bin holds DEM T ln(10) 0.1 of it.
    em = FAMILIES["CHIANTI quiet Sun"](200, np.random.default_rng(0), LogTBins())
    assert (em.argmax(axis=0) == 6).all()
    peak = 10 ** (20.460 + 6.1) * np.log(10) * 0.1
    assert 0.29 * peak < em[6].min() < em[6].max() < 3 * peak
    assert (em[LogTBins().centers > 6.65] == 0).all()


def test_wasserstein_distance_of_shifted_isothermal_plasma_is_the_shift():
    bins = LogTBins()
    np.testing.assert_allclose(wasserstein(3 * one_bin(4, 4, 4), one_bin(4, 5, 9), bins), [0, 0.1, 0.5], atol=1e-12)


def benchmark_module(name):
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def speed_content():
    """What ``speed.py`` writes, of invented times."""
    result = {"pixels": 100, "times": [1.0, 2.0, 4.0], "first": 5.0, "w1": 0.03}
    result |= {"rate": 50.0, "best": 100.0, "per_core": 60.0}
    return {
        "machine": {
            "date": "2014-01-01 00:00 UTC",
            "processor": "abacus",
            "cores": 2,
            "instructions": "beads",
            "gpu": None,
            "memory": 1,
            "system": "wood",
            "load": [[0.1, 0.1, 0.1], [0.2, 0.1, 0.1]],
            "versions": {"sunpy_deepem": "1"},
        },
        "network": "",
        "threads": 2,
        "shape": 10,
        "results": {"package": result, "demregpy": result | {"rate": 0.5, "best": 1.0, "w1": None}},
        "asked": [{"what": "package over demregpy", "asked": 3000, "measured": 100.0}],
    }


def test_rates_are_by_the_median_and_the_fastest_round():
    speed = benchmark_module("speed")
    result = speed.Result(pixels=100, times=[4.0, 1.0, 2.0], cpu=[5.0, 2.5, 4.0], first=9.0, w1=None)
    assert result.rate == 50
    assert result.best == 100
    assert result.per_core == 40


def test_speed_compares_with_what_is_there():
    speed = benchmark_module("speed")
    results = {
        name: speed.Result(100, [seconds], [seconds], seconds, None)
        for name, seconds in {"package": 1e-5, "package, bfloat16": 5e-6, "demregpy": 0.1}.items()
    }
    measured = {name: (asked, value) for name, asked, value in speed.verdicts(results)}
    assert measured["package over demregpy"] == (3000, pytest.approx(1e4))
    assert measured["package, M pixels/s"] == (4, pytest.approx(10))
    assert measured["fastest of the package, M pixels/s (goal)"] == (10.87, pytest.approx(20))
    assert not any("utu" in name for name in measured)


def test_short_calls_are_repeated_and_their_mean_is_given():
    speed, calls = benchmark_module("speed"), []
    seconds, _, answer = speed.timed(lambda: calls.append(1) or len(calls), least=0.05)
    assert answer == len(calls) > 1
    assert 0 < seconds * len(calls) < 60
    assert seconds * len(calls) >= 0.05


def test_every_code_is_called_in_every_round_on_the_same_pixels(capsys, monkeypatch):
    speed = benchmark_module("speed")
    seen = []

    def code(name):
        def call(intensity, uncertainty):
            seen.append((name, intensity.tolist()))
            return np.ones((18, intensity.shape[1]))

        return call

    def missing(intensity, uncertainty):
        raise ImportError("no such code")

    pixels = np.arange(60.0).reshape(6, 10)
    found = {"one": speed.Code(code("one"), 3), "two": speed.Code(code("two"), 100), "three": speed.Code(missing, 3)}
    monkeypatch.setattr(speed, "_PAUSE", 0)
    monkeypatch.setattr(speed, "_LEAST_TIME", 0)
    results = speed.run(found, np.ones((18, 10)), pixels, pixels, 2, LogTBins())
    assert [name for name, _ in seen] == ["one", "two"] * 3
    assert seen[0][1] == pixels[:, :3].tolist()
    assert {name: result.pixels for name, result in results.items()} == {"one": 3, "two": 10}
    assert {len(result.times) for result in results.values()} == {2}
    assert {result.w1 for result in results.values()} == {0.0}
    assert "three: not installed (no such code)" in capsys.readouterr().out


def test_the_page_says_where_and_when_and_what(tmp_path, monkeypatch):
    page = benchmark_module("page")
    (tmp_path / "speed.json").write_text(json.dumps(speed_content()), encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["page.py", "--output", str(tmp_path), "--docs", str(tmp_path / "docs")])
    page.main()
    text = (tmp_path / "docs" / "topics" / "benchmarks.rst").read_text(encoding="utf-8")
    assert "2014-01-01 00:00 UTC, abacus, 2 cores" in text
    assert "* - demregpy\n     - 100\n     - 0.5\n     - 1\n     - 60\n     - \n     - 100\n" in text
    assert "* - package over demregpy\n     - 3000\n     - 100\n" in text
    assert "Accuracy" not in text
    assert (tmp_path / "docs" / "images" / "speed.png").stat().st_size > 1000


def test_operations_are_two_for_each_weight():
    device = benchmark_module("device")
    layers = device.chapters_layers(torch.device("cpu"), torch.float32)
    assert device.operations(layers) == 2 * (6 * 300 + 300 * 300 + 300 * 18)


def test_the_page_says_what_was_measured_on_a_gpu():
    page = benchmark_module("page")
    content = {"machine": speed_content()["machine"] | {"gpu": "abacus 2"}, "shape": 10, "copy": 4e12, "product": 5e14}
    content |= {"device": "cuda", "agreement": {"auto": [1e-3, 2e-2]}}
    content["results"] = {
        "network": {"rate": 1e9, "arithmetic": 0.125, "traffic": 0.5},
        "refinement": {"rate": 2e6, "arithmetic": None, "traffic": None},
    }
    text = page.device_section(content)
    assert "abacus 2" in text
    assert "copies 4000 GB/s and multiplies matrices at 500.0 T" in text.replace("\n", " ")
    assert "* - network\n     - 1e+09\n     - 12.5%\n     - 50.0%\n" in text
    assert "* - refinement\n     - 2e+06\n     - \n     - \n" in text
    assert "Nobody has measured it yet" in page.device_section(content | {"device": "cpu"})


def test_the_machine_is_described_in_json():
    facts = benchmark_module("machine").describe()
    assert json.loads(json.dumps(facts)) == facts
    assert {"torch", "numpy"} <= set(facts["versions"])


def test_what_cannot_be_run_is_said(tmp_path, monkeypatch, capsys):
    every = benchmark_module("__main__")
    monkeypatch.setattr("sys.argv", ["benchmarks", "--only", "real_sun", "--output", str(tmp_path)])
    with pytest.raises(SystemExit) as caught:
        every.main()
    assert caught.value.code == 0
    assert "real_sun                  needs a FOLDER of maps" in capsys.readouterr().out
    runs = json.loads((tmp_path / "benchmarks.json").read_text())["runs"]
    assert runs["real_sun"] == {"status": "needs a FOLDER of maps"}
    assert runs["speed"] == {"status": "not asked for"}


def test_a_failing_benchmark_is_reported_and_its_output_kept(tmp_path):
    every = benchmark_module("__main__")
    status, seconds = every.run([sys.executable, "-c", "print('half done'); raise SystemExit(3)"], tmp_path / "log")
    assert status == 3
    assert seconds > 0
    assert (tmp_path / "log").read_text() == "half done\n"
