"""Training sets, loss and fit."""

import json

import numpy as np
import pytest
import torch

from sunpy_deepem import DeepEM, LogTBins, TemperatureResponse
from sunpy_deepem.network.architectures import ChapterNetwork, ScaledNetwork
from sunpy_deepem.training import (
    BasisPursuit,
    Checkpoint,
    DEMLoss,
    DEMPrior,
    PriorStream,
    SolveStatus,
    TrainingOptions,
    TrainingSet,
    fit,
)
from sunpy_deepem.training.spread import calibrate_spread

N = 400


@pytest.fixture(scope="module")
def prior_set(response):
    return TrainingSet.from_prior(DEMPrior(), response, N, seed=1)


# -- Training sets ---------------------------------------------------------------------------------------------------


def test_set_from_prior_holds_the_truth(prior_set, response):
    pull = (response.matrix.value @ prior_set.em - prior_set.intensity) / prior_set.uncertainty
    assert np.median(np.abs(pull)) == pytest.approx(0.67, abs=0.15)
    assert len(prior_set) == N


def test_set_from_maps_and_a_teacher(maps, response):
    seen = {}

    def teacher(intensity, uncertainty, response):
        seen["shape"] = intensity.shape
        status = np.where(np.isfinite(intensity).all(axis=0), 0, 12)
        return np.ones((18, *intensity.shape[1:])), status

    pixels = TrainingSet.from_maps([maps, maps], teacher, response, shape=16)
    assert seen["shape"] == (6, 512)
    assert len(pixels) == 2 * 16**2
    assert set(pixels.observation) == {0, 1}


def test_basis_pursuit_as_teacher(maps, response):
    pixels = TrainingSet.from_maps([maps], "basis-pursuit", response, shape=16)
    solved = pixels.status == SolveStatus.SOLVED
    assert solved.mean() > 0.5
    residual = (response.matrix.value @ pixels.em[:, solved] - pixels.intensity[:, solved]) / pixels.uncertainty[
        :, solved
    ]
    # The widest tolerance of the default steps.
    assert np.abs(residual).max() < 1.4 * 2.25 * 1.001


def test_teacher_replaces_the_true_em(prior_set, response):
    taught = prior_set.taught_by(BasisPursuit(), response)
    np.testing.assert_array_equal(taught.intensity, prior_set.intensity)
    assert not np.allclose(taught.em, prior_set.em)


def write_chapter(folder, names=("AIA_DEM_2011-01-27", "AIA_DEM_2011-02-22", "AIA_DEM_2011-03-20"), n=4):
    rng = np.random.default_rng(0)
    for name in names:
        np.save(folder / f"{name}.aia.npy", rng.uniform(0, 100, (6, n, n)))
        em = rng.uniform(0, 1e26, (18, n, n))
        status = np.zeros((n, n), dtype=np.float32)
        em[:, 0, 0], status[0, 0] = 0, 2
        np.save(folder / f"{name}.emcube.npy", em)
        np.save(folder / f"{name}.status.npy", status)
    return names


def test_chapter_files(tmp_path, response):
    names = write_chapter(tmp_path)
    pixels = TrainingSet.from_chapter(tmp_path)
    assert pixels.names == names
    assert len(pixels) == 3 * 16
    np.testing.assert_allclose(pixels.em[:, 17], np.load(tmp_path / f"{names[1]}.emcube.npy")[:, 0, 1], rtol=1e-6)
    assert (pixels.uncertainty > 0).all()
    assert len(pixels.usable(response)) == 3 * 15
    assert len(pixels.usable(response, keep_unsolved=True)) == 3 * 16


def test_split_by_observation(tmp_path):
    names = write_chapter(tmp_path)
    train, validation, test = TrainingSet.from_chapter(tmp_path).split(names[:1], names[1:2], names[2:])
    assert [part.names for part in (train, validation, test)] == [(name,) for name in names]
    np.testing.assert_allclose(test.intensity[:, 5], np.load(tmp_path / f"{names[2]}.aia.npy")[:, 1, 1], rtol=1e-6)
    assert set(test.observation) == {0}
    with pytest.raises(ValueError, match="no observations"):
        train.split(["2014"])
    with pytest.raises(ValueError, match="one group only"):
        train.split(names[:1], names[:1])


@pytest.mark.parametrize("kind", ["aia", "emcube", "status"])
def test_invalid_chapter_files(tmp_path, kind):
    (name,) = write_chapter(tmp_path, names=("day",))
    path = tmp_path / f"{name}.{kind}.npy"
    np.save(path, np.zeros((5, 3, 3)))
    with pytest.raises(ValueError, match="must be of shapes"):
        TrainingSet.from_chapter(tmp_path)
    path.write_bytes(b"no array")
    with pytest.raises(ValueError, match="cannot be read as an array"):
        TrainingSet.from_chapter(tmp_path)
    np.save(path, np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(ValueError, match="cannot be read as an array"):
        TrainingSet.from_chapter(tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"is missing|holds no file"):
        TrainingSet.from_chapter(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"intensity": np.ones((5, N))}, "intensity must have shape"),
        ({"uncertainty": np.ones((6, N - 1))}, "uncertainty must have shape"),
        ({"em": np.ones((17, N))}, "em must have shape"),
        ({"status": np.zeros(3)}, "status must have shape"),
        ({"observation": np.ones(N)}, "observation must index names"),
    ],
)
def test_shapes_of_a_set(change, message):
    arrays = {"intensity": np.ones((6, N)), "uncertainty": np.ones((6, N)), "em": np.ones((18, N))} | change
    with pytest.raises(ValueError, match=message):
        TrainingSet(**arrays)


def test_unusable_sets(response):
    ones, em = np.ones((6, 3)), np.ones((18, 3))
    with pytest.raises(ValueError, match="not finite in 1 pixels of status 0"):
        TrainingSet(ones, ones, np.where(np.arange(3) == 1, np.nan, em)).usable(response)
    with pytest.raises(ValueError, match="No pixel of 3 is left"):
        TrainingSet(ones, ones, em, status=[2, 2, 3]).usable(response)
    with pytest.raises(ValueError, match="No pixel of 3 is left"):
        TrainingSet(ones * np.nan, ones, em).usable(response)
    with pytest.raises(ValueError, match="training set is on"):
        TrainingSet(ones, ones, em).usable(TemperatureResponse.default(bins=LogTBins(5.6, 0.1, 17)))


def test_save_and_load_sets(tmp_path, prior_set):
    prior_set.save(tmp_path / "set.safetensors")
    again = TrainingSet.load(tmp_path / "set.safetensors")
    for name in ("intensity", "uncertainty", "em", "status", "observation"):
        np.testing.assert_array_equal(getattr(again, name), getattr(prior_set, name))
    assert again.names == prior_set.names
    assert again.bins == prior_set.bins
    with pytest.raises(FileExistsError):
        prior_set.save(tmp_path / "set.safetensors")
    content = (tmp_path / "set.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="not a readable training set"):
        TrainingSet.load(tmp_path / "cut.safetensors")
    with pytest.raises(FileNotFoundError):
        TrainingSet.load(tmp_path / "none.safetensors")


# -- Loss ------------------------------------------------------------------------------------------------------------


def batch(response, n=200):
    pixels = TrainingSet.from_prior(DEMPrior(), response, n, seed=2)
    arrays = (pixels.em / 1e25, pixels.intensity, pixels.uncertainty)
    truth, intensity, sigma = (torch.tensor(a, dtype=torch.float32)[None, :, None] for a in arrays)
    return truth, intensity, sigma, torch.tensor(response.matrix.value * 1e25, dtype=torch.float32)


def test_distribution_loss_of_the_truth_is_zero(response):
    truth, *rest = batch(response)
    loss = DEMLoss(distribution=1, forward=0, spread=0)
    assert float(loss(truth, None, truth, *rest)) == 0
    assert float(loss(1.1 * truth, None, truth, *rest)) > 0


def test_chapter_loss(response):
    truth, *rest = batch(response)
    em = truth * torch.rand(truth.shape, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.MSELoss()(em.sqrt(), truth.sqrt())
    assert float(DEMLoss.from_helioml()(em, None, truth, *rest)) == pytest.approx(float(expected), rel=1e-4)


def test_forward_loss_is_in_units_of_sigma(response):
    truth, _, sigma, matrix = batch(response)
    model = torch.einsum("ij,bjyx->biyx", matrix, truth)
    loss = DEMLoss(distribution=0, forward=1, spread=0)
    assert float(loss(truth, None, truth, model, sigma, matrix)) == pytest.approx(0, abs=1e-6)
    # Half the square of two σ.
    assert float(loss(truth, None, truth, model + 2 * sigma, sigma, matrix)) == pytest.approx(2, rel=1e-3)


def test_spread_loss_is_smallest_at_the_true_spread(response):
    rng = torch.Generator().manual_seed(0)
    truth, *rest = batch(response, 4000)
    total = truth.sum(dim=1, keepdim=True)
    noisy = truth + 0.05 * total * torch.randn(truth.shape, generator=rng)
    loss = DEMLoss(distribution=0, forward=0, spread=1)
    scores = [float(loss(noisy, (width * total).expand_as(truth), truth, *rest)) for width in (0.03, 0.05, 0.08)]
    assert scores[1] < min(scores[0], scores[2])


@pytest.mark.parametrize(
    "weights", [{"forward": -1}, {"distribution": 0, "forward": 0, "spread": 0}, {"spread": np.inf}]
)
def test_bad_loss_weights(weights):
    with pytest.raises(ValueError, match="weights of DEMLoss"):
        DEMLoss(**weights)


# -- Fit -------------------------------------------------------------------------------------------------------------

QUICK = {"network": (8, 8), "epochs": 4, "batch_size": 100, "seed": 5, "device": "cpu"}


def same(a, b):
    return all(
        torch.equal(x, y) for x, y in zip(a.module.state_dict().values(), b.module.state_dict().values(), strict=True)
    )


def test_fit_learns_and_keeps_its_history(prior_set, response):
    network = fit(prior_set, response, validation=prior_set, learning_rate=1e-2, **(QUICK | {"epochs": 60}))
    history = json.loads(network.meta["history"])
    assert [row["epoch"] for row in history] == list(range(60))
    assert history[-1]["train"] < 0.7 * history[0]["train"]
    assert history[-1]["validation"] < 0.7 * history[0]["validation"]
    network.check_response(response)


def test_fit_is_seeded(prior_set, response):
    assert same(fit(prior_set, response, **QUICK), fit(prior_set, response, **QUICK))
    assert not same(fit(prior_set, response, **QUICK), fit(prior_set, response, **(QUICK | {"seed": 6})))


class KilledError(Exception):
    pass


class Killing:
    """A training set that is killed while an epoch is drawn."""

    def __init__(self, source, at):
        self.source, self.at, self.identity = source, at, source.identity

    def epoch(self, number):
        if number == self.at:
            raise KilledError
        return self.source.epoch(number)


@pytest.mark.slow
@pytest.mark.parametrize("make", [lambda s, r: s, lambda s, r: PriorStream(DEMPrior(), r, 200, seed=3)])
def test_killed_run_resumes_exactly(prior_set, response, tmp_path, make):
    source = make(prior_set, response)
    whole = fit(source, response, validation=prior_set, **QUICK)
    checkpoint = tmp_path / "run.checkpoint"
    with pytest.raises(KilledError):
        fit(Killing(source, 2), response, validation=prior_set, checkpoint=checkpoint, **QUICK)
    assert [path.name for path in tmp_path.iterdir()] == ["run.checkpoint"]
    resumed = fit(source, response, validation=prior_set, checkpoint=Checkpoint(checkpoint, resume=True), **QUICK)
    assert same(whole, resumed)
    assert json.loads(whole.meta["history"]) == json.loads(resumed.meta["history"])


@pytest.mark.slow
def test_checkpoint_of_another_run_raises(prior_set, response, tmp_path):
    checkpoint = tmp_path / "run.checkpoint"
    fit(prior_set, response, checkpoint=checkpoint, **QUICK)
    with pytest.raises(ValueError, match="is of another run"):
        fit(prior_set, response, checkpoint=Checkpoint(checkpoint, resume=True), **(QUICK | {"seed": 6}))
    checkpoint.write_bytes(checkpoint.read_bytes()[:200])
    with pytest.raises(ValueError, match="cannot be read"):
        fit(prior_set, response, checkpoint=Checkpoint(checkpoint, resume=True), **QUICK)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_diverging_training_raises(prior_set, response, value):
    with pytest.raises(ValueError, match="Lower learning_rate"):
        fit(prior_set, response, loss=lambda em, *others: em.sum() * value, epochs=2, network=(4,))


def test_step_to_infinite_weights_raises(prior_set, response):
    """The loss before the step is finite."""

    def loss(em, *others):
        em.register_hook(lambda gradient: gradient * np.nan)
        return em.sum()

    with pytest.raises(ValueError, match="weights are no longer finite"):
        fit(prior_set, response, loss=loss, epochs=1, batch_size=None, network=(4,))


def test_early_stopping_keeps_the_best_weights(prior_set, response):
    train, validation = prior_set.take(np.arange(30)), prior_set.take(np.arange(30, N))
    options = QUICK | {"epochs": 60, "learning_rate": 0.05, "schedule": "constant", "batch_size": None}
    network = fit(train, response, validation=validation, patience=5, **options)
    history = json.loads(network.meta["history"])
    losses = [row["validation"] for row in history]
    assert len(history) < 60
    assert len(history) - 1 - int(np.argmin(losses)) == 5


def test_chapter_network_keeps_its_sign_in_training():
    torch.manual_seed(0)
    network, intensity = ChapterNetwork(hidden=(8,)), torch.rand(1, 6, 1, 50) * 100
    learning, answer = network.train()(intensity)[0], network.eval()(intensity)[0]
    assert (learning < 0).any()
    torch.testing.assert_close(learning.abs(), answer)


def test_chapter_network_with_one_batch(prior_set, response):
    network = fit(
        prior_set,
        response,
        network=ChapterNetwork(hidden=(12, 12)),
        loss=DEMLoss.from_helioml(),
        batch_size=None,
        learning_rate=1e-2,
        weight_decay=1e-9,
        schedule="constant",
        max_gradient=None,
        epochs=20,
    )
    history = json.loads(network.meta["history"])
    assert history[-1]["train"] < history[0]["train"]
    em, std = network.predict(prior_set.intensity)
    assert std is None
    assert em.min() >= 0


def test_keep_unsolved(response):
    ones, em = np.ones((6, 20)), np.full((18, 20), 1e26)
    status = np.where(np.arange(20) < 10, 0, 2)
    em[:, 10:] = np.nan
    left_out = fit(TrainingSet(ones, ones, em, status=status), response, **QUICK)
    kept = fit(TrainingSet(ones, ones, em, status=status), response, keep_unsolved=True, **QUICK)
    first = json.loads(left_out.meta["history"])[-1]["train"], json.loads(kept.meta["history"])[-1]["train"]
    assert np.isfinite(first).all()
    assert not same(left_out, kept)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "gpu"}, "device must be 'auto'"),
        ({"epochs": 0}, "epochs must be a positive"),
        ({"batch_size": -1}, "batch_size must be a positive"),
        ({"learning_rate": 0}, "learning_rate must be positive"),
        ({"weight_decay": -1}, "learning_rate must be positive"),
        ({"schedule": "linear"}, "schedule must be"),
        ({"patience": 3}, "patience needs a validation set"),
        ({"checkpoint": "no/such/folder/c"}, "folder that does not exist"),
    ],
)
def test_bad_options(prior_set, response, options, message):
    with pytest.raises(ValueError, match=message):
        fit(prior_set, response, **options)


def test_train_and_invert_from_the_shell(tmp_path, monkeypatch):
    from click.testing import CliRunner

    from sunpy_deepem.cli import main
    from sunpy_deepem.sample import sample_maps

    monkeypatch.chdir(tmp_path)
    for day in ("a", "b"):
        (tmp_path / "maps" / day).mkdir(parents=True)
        for smap in sample_maps((32, 32), seed=ord(day)):
            smap.save(tmp_path / "maps" / day / f"{smap.wavelength.value:.0f}.fits")
    run = CliRunner().invoke
    train = ["train", "--maps", "maps", "--teacher", "basis-pursuit", "--out", "own.safetensors", "--epochs", "3"]
    result = run(main, [*train, "--hidden", "8,8", "-q"])
    assert result.exit_code == 0, result.output
    history = json.loads(DeepEM.load("own.safetensors").meta["history"])
    # The second of the two observations validates.
    assert "validation" in history[0]
    # A named folder validates as well; a single observation leaves none to validate with.
    one = ["train", "--maps", "maps/a", *train[3:], "--hidden", "4", "--overwrite", "-q"]
    for more, validates in (([], False), (["--validation", "maps/b"], True)):
        result = run(main, [*one[:-1], "-q", "--out", "one.safetensors", *more])
        assert result.exit_code == 0, result.output
        assert ("validation" in json.loads(DeepEM.load("one.safetensors").meta["history"])[0]) is validates
    result = run(main, ["invert", "maps/a", "--weights", "own.safetensors", "-o", "dem.fits", "-q"])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "dem.fits").is_file()
    assert run(main, train).exit_code == 1
    assert "exists" in run(main, train).output


def test_cli_train_names_missing_arguments(tmp_path):
    from click.testing import CliRunner

    from sunpy_deepem.cli import main

    out = ["--out", str(tmp_path / "w.safetensors")]
    assert "either --prior or --maps" in CliRunner().invoke(main, ["train", *out]).output
    assert "no folder" in CliRunner().invoke(main, ["train", "--maps", str(tmp_path / "none"), *out]).output
    bad = CliRunner().invoke(main, ["train", "--prior", "--hidden", "a", *out])
    assert "--hidden must be widths" in bad.output


# -- Intervals -------------------------------------------------------------------------------------------------------


def pixels_with_errors(law, n=40_000):
    """Return intensity, σ and a truth that differs from the network by ``law(noise)`` times its spread."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    module = ScaledNetwork(np.ones(6), 18, hidden=(8,))
    noise = 10 ** rng.uniform(-2, -0.5, n)
    intensity = torch.tensor(rng.uniform(1, 10, (6, n)), dtype=torch.float32)
    uncertainty = intensity * torch.tensor(noise, dtype=torch.float32)
    with torch.no_grad():
        em, spread = (values[0, :, 0] for values in module(intensity[None, :, None], uncertainty[None, :, None]))
    relative = noise / (1 + noise)  # σ over the mean of intensity plus σ
    error = torch.tensor(law(relative) * rng.normal(size=(18, n)), dtype=torch.float32)
    return module, [intensity, uncertainty, em + error * spread, torch.zeros(12, n, dtype=torch.bool)]


@pytest.mark.parametrize("exponent", [0.0, 0.3, -0.2])
def test_calibrate_spread(exponent):
    module, data = pixels_with_errors(lambda noise: 2 * noise**exponent)
    calibrate_spread(module, data)
    np.testing.assert_allclose(module.spread_law.numpy(), [1, exponent], atol=0.03)
    with torch.no_grad():
        em, spread = (v[0, :, 0] for v in module(*(array[None, :, None] for array in data[:2])))
    covered = (em - data[2]).abs() <= spread
    assert covered.float().mean() == pytest.approx(0.6827, abs=0.01)


def test_options_are_replaced_by_name(prior_set, response):
    options = TrainingOptions(**{key: value for key, value in QUICK.items() if key not in ("network", "device")})
    network = fit(prior_set, response, options=options, epochs=2, network=(8, 8), device="cpu")
    assert same(network, fit(prior_set, response, **(QUICK | {"epochs": 2})))
    assert len(json.loads(network.meta["history"])) == 2
    with pytest.raises(TypeError, match="hidden"):
        fit(prior_set, response, hidden=(8, 8))


def test_custom_loss_is_not_calibrated(prior_set, response):
    network = fit(prior_set, response, loss=lambda em, *others: em.mean(), epochs=1, network=(4,), consistency_epochs=0)
    assert network.module.spread_law.tolist() == [0, 0]


def test_few_pixels_are_not_calibrated():
    module, data = pixels_with_errors(lambda noise: 3.0, n=200)
    calibrate_spread(module, data)
    assert module.spread_law.tolist() == [0, 0]
