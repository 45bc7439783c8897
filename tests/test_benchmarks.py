"""The test pixels of the benchmarks, their measures, and the programs' tables and pages."""

import importlib.util
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch

from sunpy_deepem import CHANNELS, LogTBins, invert

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import calibration
import conditions
import diagnostics
import exact
import loops
import mcmc
from families import CASES, FAMILIES, SimulatedNoise, covered, observe, wasserstein
from helpers import changed

from sunpy_deepem.methods import Importance
from sunpy_deepem.sample import sample_maps
from sunpy_deepem.training import DEMPrior

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SHARED = Path(os.environ.get("SUNPY_DEEPEM_SHARED", Path(__file__).parents[2] / "shared"))
INSTRUMENT = SHARED / "reference" / "aia_V9_instrument_emissivity.sav"


def one_bin(*indices):
    return np.eye(18)[:, indices]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_simulated_noise_is_that_of_the_simulation(response, case):
    truth, intensity, _ = observe("prior", case, 4000, response, seed=2)
    truth = response.matrix.value @ truth
    scatter = ((intensity - truth) / np.sqrt(SimulatedNoise(*case)(truth))).std(axis=1)
    np.testing.assert_allclose(scatter, 1, atol=0.05)


def test_exact_interval_covers_the_prior_as_often_as_it_says(response):
    truth, intensity, uncertainty = observe("prior", CASES[4], 80, response, seed=3)
    result = Importance(DEMPrior(), draws=10000, seed=5, noise=SimulatedNoise(*CASES[4])).solve(
        intensity, uncertainty, response
    )
    known = result.status == 0
    assert known.sum() > 50
    low, high = result.quantiles[1][:, known], result.quantiles[3][:, known]
    assert covered(low, high, result.em[:, known], truth[:, known]) == pytest.approx(0.68, abs=0.08)


@pytest.mark.parametrize("name", FAMILIES)
def test_families_are_distributions_on_the_bins(name):
    em = FAMILIES[name](50, np.random.default_rng(0), LogTBins())
    assert em.shape == (18, 50)
    assert (em >= 0).all()
    assert ((em.sum(axis=0) > 1e24) & (em.sum(axis=0) < 2e30)).all()


def test_steadily_heated_loop_stays_in_equilibrium():
    # The scaling law of static loops: conduction carries two thirds of the heating down, T_apex ~ (Q L^2)^(2/7).
    length, heating = np.array([2e9, 5e9]), np.array([1e-4, 1e-3])
    *_, (_, pressure, density, flux) = loops.evolve(length, lambda time: heating)
    apex = pressure / (2 * 1.380649e-16 * density) / 0.9
    np.testing.assert_allclose(apex, (7 * heating * length**2 / (3 * 8.12e-7)) ** (2 / 7), rtol=0.02)
    np.testing.assert_allclose(density**2 * loops.losses(0.9 * apex) * 3, heating, rtol=0.05)
    # Upward and downward mass fluxes cancel: small against the free-streaming flux of particles.
    assert np.abs(flux / (density * 1e7)).max() < 1e-3


def test_heated_loop_evaporates_then_cools_and_drains():
    def heating(time):
        return np.array([2e-5 + 0.01 * (100 < time < 300)])

    history = np.array(
        [[p[0] / (2 * 1.380649e-16 * n[0]), n[0]] for _, p, n, _ in loops.evolve(np.array([3e9]), heating)]
    )
    hottest, densest = history.argmax(axis=0)
    assert 100 <= hottest <= 305
    assert densest > hottest + 100
    assert history[hottest, 0] > 5e6
    assert history[densest:, 1][-1] < 0.5 * history[densest, 1]
    # The energy put in is 3/2 p at most: 2 erg cm^-3 in this pulse.
    assert 3 * 1.380649e-16 * history.prod(axis=1).max() < 2.1


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
    """Content of ``speed.json`` with invented times."""
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


def test_rates_are_those_of_the_median_and_the_fastest_round():
    speed = benchmark_module("speed")
    result = speed.Result(pixels=100, times=[4.0, 1.0, 2.0], cpu=[5.0, 2.5, 4.0], first=9.0, w1=None)
    assert result.rate == 50
    assert result.best == 100
    assert result.per_core == 40


def test_speed_is_compared_with_installed_codes():
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


def test_short_calls_are_repeated_and_averaged():
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


def test_page_names_machine_date_and_results(tmp_path, monkeypatch):
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


def test_layers_count_two_operations_per_weight():
    device = benchmark_module("device")
    layers = device.chapters_layers(torch.device("cpu"), torch.float32)
    assert device.operations(layers) == 2 * (6 * 300 + 300 * 300 + 300 * 18)


def test_page_keeps_calibration_for_other_pages(tmp_path, monkeypatch):
    page = benchmark_module("page")
    card = {"weights": "default", "truths": 123, "draws": 45, "date": "2014-01-01", "version": "1", "fingerprint": "ab"}
    (tmp_path / "calibration.json").write_text(json.dumps(card), encoding="utf-8")
    (tmp_path / "calibration.rst").write_text(".. list-table:: Measured\n", encoding="utf-8")
    (tmp_path / "calibration_ecdf.png").write_bytes(b"figure")
    docs = tmp_path / "docs"
    monkeypatch.setattr("sys.argv", ["page", "--output", str(tmp_path), "--docs", str(docs), "--only", "calibration"])
    page.main()
    assert not (docs / "topics" / "accuracy.inc").exists()
    text = (docs / "topics" / "calibration.inc").read_text(encoding="utf-8")
    assert "2014-01-01, sunpy_deepem 1, weights default (ab): 123\ntrue EM" in text
    assert "list-table:: Measured" in text
    assert (docs / "images" / "calibration_ecdf.png").read_bytes() == b"figure"
    assert not (docs / "topics" / "benchmarks.rst").exists()


def test_page_copies_tables_of_how_tos(tmp_path, monkeypatch):
    page, docs = benchmark_module("page"), tmp_path / "docs"
    (tmp_path / "flare.rst").write_text(".. list-table::\n", encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["page", "--output", str(tmp_path), "--docs", str(docs), "--only", "flare"])
    page.main()
    assert (docs / "howto" / "flare.inc").read_text(encoding="utf-8") == ".. list-table::\n"


def test_tables_of_calibration_separate_kinds_of_pixels():
    line = {"pixels": "some", "Holm p": "0.1", "hot EM": "", "χ²": "1.00"}
    kinds = [
        calibration.Condition("prior"),
        calibration.Condition("top hat"),
        calibration.Condition("prior", missing=2),
        calibration.Condition("prior", response="94 Å +25 %"),
    ]
    text = calibration.tables(kinds, [line] * 4, [{"what": "χ²", "met": "yes"}])
    assert text.count("list-table::") == 5
    # Columns without a value are left out.
    assert "hot EM" not in text
    assert calibration.tables(kinds[:1], [line], [{"what": "χ²", "met": "yes"}]).count("list-table::") == 2


def test_page_has_a_section_on_gpus():
    page = benchmark_module("page")
    content = {"machine": speed_content()["machine"] | {"gpu": "abacus 2"}, "shape": 10, "copy": 4e12, "product": 5e14}
    content |= {"device": "cuda", "agreement": {"auto": [1e-3, 2e-2]}}
    content["results"] = {
        "network": {"rate": 1e9, "arithmetic": 0.125, "traffic": 0.5},
        "invert a stack": {"rate": 2e6, "arithmetic": None, "traffic": None},
    }
    text = page.device_section(content)
    assert "abacus 2" in text
    assert "copies 4000 GB/s and multiplies matrices at 500.0 T" in text.replace("\n", " ")
    assert "* - network\n     - 1e+09\n     - 12.5%\n     - 50.0%\n" in text
    assert "* - invert a stack\n     - 2e+06\n     - \n     - \n" in text
    assert "Not measured yet" in page.device_section(content | {"device": "cpu"})


def test_machine_is_described_in_json():
    facts = benchmark_module("machine").describe()
    assert json.loads(json.dumps(facts)) == facts
    assert {"torch", "numpy"} <= set(facts["versions"])


def test_reasons_for_leaving_out_are_printed(tmp_path, monkeypatch, capsys):
    every = benchmark_module("__main__")
    monkeypatch.setattr("sys.argv", ["benchmarks", "--only", "real_sun", "--output", str(tmp_path)])
    with pytest.raises(SystemExit) as caught:
        every.main()
    assert caught.value.code == 0
    assert "real_sun                  needs a FOLDER of maps" in capsys.readouterr().out
    runs = json.loads((tmp_path / "benchmarks.json").read_text())["runs"]
    assert runs["real_sun"] == {"status": "needs a FOLDER of maps"}
    assert runs["speed"] == {"status": "not asked for"}


def test_failing_benchmark_is_reported_and_its_output_kept(tmp_path):
    every = benchmark_module("__main__")
    status, seconds = every.run([sys.executable, "-c", "print('half done'); raise SystemExit(3)"], tmp_path / "log")
    assert status == 3
    assert seconds > 0
    assert (tmp_path / "log").read_text() == "half done\n"


def toy_posterior(width=1.0, shift=0.0, n=1000, dimensions=3):
    """Draws and truths of a conjugate Gaussian with a posterior of wrong width or mean: prior N(0, 1), noise 0.5."""
    rng = np.random.default_rng(5)
    truth = rng.standard_normal((dimensions, n))
    data = truth + 0.5 * rng.standard_normal((dimensions, n))
    std = np.sqrt(0.2)
    draws = 0.8 * data + std * (shift + width * rng.standard_normal((400, dimensions, n)))
    return draws, truth, rng


def test_simulation_based_calibration_of_an_exact_posterior_passes():
    draws, truth, rng = toy_posterior()
    transform = diagnostics.probability_transform(draws, truth, rng)
    assert diagnostics.holm(diagnostics.uniformity(transform)).min() > 0.05
    for level, held in zip(diagnostics.LEVELS, diagnostics.coverage(transform), strict=True):
        low, high = diagnostics.binomial_band(level, 1000, confidence=0.999)
        assert ((held > low) & (held < high)).all()
    values = diagnostics.tarp(draws, truth, (-3, 3), rng)
    assert diagnostics.tarp_area(values) < 0.03
    assert diagnostics.contraction(draws, np.ones(3)).mean() == pytest.approx(0.8, abs=0.01)
    z = diagnostics.z_score(draws, truth)
    assert abs(z.mean()) < 0.1
    assert z.std() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(("width", "shift", "held"), [(0.7, 0, 0.51), (1.5, 0, 0.86), (1, 0.4, 0.64)])
def test_simulation_based_calibration_notices_a_wrong_posterior(width, shift, held):
    draws, truth, rng = toy_posterior(width, shift)
    transform = diagnostics.probability_transform(draws, truth, rng)
    assert diagnostics.holm(diagnostics.uniformity(transform)).max() < 1e-4
    assert diagnostics.coverage(transform, (0.68,)) == pytest.approx(held, abs=0.05)
    # Points on all sides do not see a common shift.
    assert shift or diagnostics.tarp_area(diagnostics.tarp(draws, truth, (-3, 3), rng)) > 0.03


def test_ties_are_ranked_at_random():
    rng = np.random.default_rng(0)
    transform = diagnostics.probability_transform(np.zeros((50, 2000)), np.zeros(2000), rng)
    assert diagnostics.uniformity(transform) > 0.01


def test_holm_adjusts_in_order():
    np.testing.assert_allclose(diagnostics.holm([0.04, 0.01, 0.03, 0.005]), [0.06, 0.03, 0.06, 0.02])


def test_band_of_the_ecdf_holds_as_many_as_it_says():
    z, low, high = diagnostics.ecdf_band(200, points=30, trials=500)
    values = np.sort(np.random.default_rng(1).random((500, 200)), axis=1)
    ecdf = np.stack([np.searchsorted(row, z, side="right") for row in values]) / 200
    inside = ((ecdf >= low) & (ecdf <= high)).all(axis=1).mean()
    assert 0.91 < inside < 0.99


def test_quantities_are_those_of_the_package(response):
    bins, em = response.bins, DEMPrior().sample(20, seed=2)
    values = dict(zip(calibration.names_of(bins), calibration.quantities(em, bins), strict=True))
    np.testing.assert_allclose(values["EM 6.1"], np.log10(np.maximum(em[6], 1e10)), atol=1e-5)
    np.testing.assert_allclose(
        values["6.3-6.6"], np.log10(0.5 * em[8] + em[9:11].sum(axis=0) + 0.5 * em[11]), atol=1e-4
    )
    np.testing.assert_allclose(values["log T"], bins.centers @ em / em.sum(axis=0), atol=1e-4)
    one = one_bin(7) * 1e27
    alone = dict(zip(calibration.names_of(bins), calibration.quantities(one, bins)[:, 0], strict=True))
    assert alone["width"] == pytest.approx(0.1 / np.sqrt(12), rel=1e-3)


def test_posterior_that_ignores_the_data_is_calibrated_but_does_not_contract(response):
    prior = DEMPrior()

    def sample(intensity, uncertainty, n, seed, *, lower_limit):
        em = prior.sample(n * intensity.shape[1], seed=seed)
        return np.moveaxis(em.reshape(18, n, -1), 1, 0)

    condition = calibration.Condition("prior")
    observed = calibration.pixels(condition, 300, prior, response, seed=3)
    result = calibration.evaluate(sample, observed, response, draws=200)
    assert diagnostics.holm(diagnostics.uniformity(result.transform)).min() > 0.01
    values = calibration.quantities(prior.sample(5000, seed=8), response.bins)
    variance = calibration.relative(values, response.bins).var(axis=1)
    rows = calibration.table_rows(condition, result, variance)
    assert {row["brightness"].split()[0] for row in rows} == {"all", "dim", "medium", "bright"}
    assert abs(next(row for row in rows if row["quantity"] == "log T")["contraction"]) < 0.1
    results = {condition: result}
    assert calibration.summary(condition, result)["pixels"] == "prior, 64 px, 10 %"
    assert "own pixels, TARP area" in {line["what"] for line in calibration.verdicts(results).lines}
    # Compared with itself as the exact posterior:
    line = exact.summary(condition, result, result)
    assert line["bands (dex)"] == "0.000 (0.000)"
    assert line["compared"] == 300
    asked = {line["what"]: line for line in exact.verdicts({condition: (result, result)}).lines}
    assert asked["χ² of draws over that of exact ones"]["met"] == "yes"
    assert asked["quantiles, dex: median"]["met"] == "yes"


def test_saturated_channels_exceed_their_limits(response):
    whole = calibration.pixels(calibration.Condition("prior"), 200, DEMPrior(), response, seed=3)
    observed = calibration.pixels(calibration.Condition("prior", saturated=2), 200, DEMPrior(), response, seed=3)
    lower = observed.lower_limit
    assert 0.1 < lower.mean() < 1 / 3
    assert (observed.intensity[lower] <= whole.intensity[lower]).all()
    np.testing.assert_array_equal(observed.intensity[~lower], whole.intensity[~lower])
    missing = calibration.pixels(calibration.Condition("prior", missing=3), 200, DEMPrior(), response, seed=3)
    assert (np.isnan(missing.intensity).sum(axis=0) == 3).all()


def test_draws_of_the_truth_are_above_limits(response):
    observed = calibration.pixels(calibration.Condition("prior", saturated=2), 100, DEMPrior(), response, seed=3)

    def sample(intensity, uncertainty, n, seed, *, lower_limit):
        # The seed of a batch is the index of its first pixel.
        return np.repeat(observed.truth[np.newaxis, :, seed : seed + intensity.shape[1]], n, axis=0)

    result = calibration.evaluate(sample, observed, response, draws=2)
    limited = observed.lower_limit.any(axis=0)
    np.testing.assert_array_equal(np.isfinite(result.above), limited)
    # The noise of limits is small, and limits are mostly far below the intensity.
    assert result.above[limited].mean() > 0.9


def test_wrong_responses_change_one_channel(response):
    wrong = conditions.wrong_responses(response)
    assert len(wrong) == 12
    ratio = wrong["193 Å −25 %"].matrix.value / response.matrix.value
    np.testing.assert_allclose(ratio[3], 0.75)
    np.testing.assert_allclose(np.delete(ratio, 3, axis=0), 1)
    name = calibration.Condition("prior", response="193 Å −25 %").name
    assert name == "prior, 64 px, 10 %, 193 Å −25 %"


@pytest.mark.skipif(not INSTRUMENT.exists(), reason="needs an instrument file: set SUNPY_DEEPEM_SHARED")
def test_photospheric_abundances_weaken_iron_against_continuum(response):
    pytest.importorskip("xrtpy")
    wrong = conditions.wrong_responses(response, INSTRUMENT)["photospheric abundances"]
    log_t, ratio = np.log10(response.temperature.value), wrong.curves.value / response.curves.value
    # The iron line of 171 Å is the unit. At log T 7.5, 171 Å shows mostly continuum, which iron does not emit.
    assert ratio[2, np.argmin(abs(log_t - 5.9))] == pytest.approx(1, abs=0.1)
    assert 2 < ratio[2, np.argmin(abs(log_t - 7.5))] < 5


def test_flare_table_counts_channels_and_answers():
    flare = benchmark_module("flare")
    maps = list(sample_maps((32, 32)))
    for index in range(4):
        counts = maps[index].data.copy()
        # Row 10: four channels are saturated in one half and three in the other. Row 20: one channel is.
        counts[10, : 32 if index else 16], counts[20] = 16383, np.where(index, counts[20], 16383)
        maps[index] = changed(maps[index], data=counts)
    line = flare.measure(maps, invert(maps, shape=None), n=8)
    assert line["six"] == pytest.approx(30 / 32)
    assert line["three"] == pytest.approx(1 - 16 / 1024)
    assert line["answered"] == line["three"]
    assert line["chi2"] < 0.5
    assert all(line[channel] == pytest.approx(1, abs=0.05) for channel in ("171", "193", "211"))
    assert 0 <= line["above limit"] <= 1
    assert flare.shown(line)["six"] == "93.8"
    cells = flare.for_pages(line | {"94": 0.5})
    assert cells["Re-synthesis"] == "0.50 (94 Å)"
    assert cells["Six channels"] == "93.8 %"


def test_flare_verdicts_stop_at_the_times_of_the_issue():
    flare = benchmark_module("flare")
    line = {"three": 0.9, "answered": 0.95, "chi2": 0.1, "above limit": np.nan, "Fe XVIII": 0.95}
    line |= {str(channel): 1.0 for channel in CHANNELS}
    later = line | {"time": "02:00", "335": 3.0, "chi2": 50.0, "Fe XVIII": 0.1}
    asked = {each["what"]: each for each in flare.verdicts([line | {"time": "01:46"}, later]).lines}
    assert {each["met"] for each in asked.values()} == {"yes"}
    assert not any("limits" in what for what in asked)
    fewer = flare.verdicts([line | {"time": "02:00", "answered": 0.8}]).lines
    assert [each["met"] for each in fewer] == ["NO (1 of 1)"]


@pytest.mark.filterwarnings("ignore::sunpy.util.exceptions.SunpyUserWarning")
def test_onset_of_a_real_flare(flare_folder):
    maps = sorted(flare_folder.glob("*T01-48*.fits"))
    line = benchmark_module("flare").measure(maps, invert(maps, shape=None), n=8)
    assert line["six"] < 0.9
    assert line["answered"] >= line["three"] > 0.99
    assert line["Fe XVIII"] >= 0.9
    assert max(abs(line[str(channel)] - 1) for channel in CHANNELS) <= 0.05


def test_density_of_chains_is_that_of_the_data_and_the_prior(response):
    density = mcmc.Density(response, DEMPrior())
    states = np.log(DEMPrior().sample(5, seed=1, trace=True)).T
    data, sigma = response.matrix.value @ np.exp(states[0]), np.full(6, 2.0)
    off = np.exp(states) @ response.matrix.value.T - data
    prior = scipy.stats.multivariate_normal(density.mean, np.linalg.inv(density.inverse)).logpdf(states)
    expected = prior + scipy.stats.norm(scale=sigma).logpdf(off).sum(axis=1)
    found = density.of_pixel(data, sigma)(states)
    np.testing.assert_allclose(found - found[0], expected - expected[0], rtol=1e-3, atol=1e-3)
