"""Bad priors, training sets and options of a training, and interrupted training."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hostile import (
    INTENSITIES,
    WRITE_FAILURES,
    Table,
    existing_file,
    full_disk,
    junk,
    pixels,
    response,
    training_set,
    weights_file,
)

from sunpy_deepem.training import Checkpoint, DEMLoss, DEMPrior, PriorStream, TrainingSet, fit, simulate_observation

table = Table("Training")
pixels_table = Table("Pixels")
reading_table = Table("Reading files")
writing_table = Table("Writing files")
SHORT = {"epochs": 1, "consistency_epochs": 0, "network": (4,)}


# ---------------------------------------------------------------------------------------------------------------------
# Prior
# ---------------------------------------------------------------------------------------------------------------------


@table(
    "DEMPrior(weights=)",
    ("an unknown family", {"x": 1}, ValueError("do not exist: ['x']")),
    ("a list", [1], TypeError("weights must be a dict")),
    ("NaN", {"flare": np.nan}, ValueError("weights must be finite")),
)
def test_prior_weights(value, expected):
    with expected:
        DEMPrior(weights=value)


@table(
    "DEMPrior.sample(n)",
    ("-1", -1, ValueError("n must be a whole number")),
    ("2.5", 2.5, ValueError("n must be a whole number")),
    ("a string", "a", ValueError("n must be a whole number")),
)
def test_sample_size(value, expected):
    with expected:
        DEMPrior().sample(value, seed=0)


@table("DEMPrior.sample(n, seed=)", ("-1", ValueError("seed must be a whole")))
def test_sample_seed(expected):
    with expected:
        DEMPrior().sample(2, seed=-1)


@table("DEMPrior.sample_family(name)", ("unknown", ValueError("name must")))
def test_family(expected):
    with expected:
        DEMPrior().sample_family("x", 1, seed=0)


@table("PriorStream(n=)", ("0", ValueError("n must be a positive whole")))
def test_stream_size(expected):
    with expected:
        PriorStream(DEMPrior(), response(), 0)


@table("simulate_observation(em, …)", ("five bins", ValueError("em must have shape (18, n)")))
def test_simulate_observation(expected):
    with expected:
        simulate_observation(np.ones((5, 3)), response(), seed=0)


# ---------------------------------------------------------------------------------------------------------------------
# Training sets
# ---------------------------------------------------------------------------------------------------------------------


@pixels_table("TrainingSet(intensity, σ)", *INTENSITIES)
def test_intensity(value, expected):
    with expected:
        TrainingSet(value, np.ones((6, 4)), np.ones((18, 4)))


@table("TrainingSet(…, em)", ("a number", ValueError("intensity must have")))
def test_em(expected):
    with expected:
        TrainingSet(pixels(), pixels(), 3)


@table("TrainingSet(…, status=)", ("NaN", ValueError("status must hold whole numbers")))
def test_status(expected):
    with expected:
        TrainingSet(pixels(), pixels(), np.ones((18, 4)), status=[np.nan] * 4)


@table("TrainingSet.from_maps(…)", ("nothing", ValueError("empty")))
def test_from_maps(expected):
    with expected:
        TrainingSet.from_maps([], "demregpy", response())


@reading_table("TrainingSet.load(path)", ("a file of another kind", ValueError("is not a readable training set")))
def test_load_file_of_another_kind(expected):
    path = junk()
    with expected:
        TrainingSet.load(path)


@reading_table("TrainingSet.load(path)", ("weights", ValueError("holds no training set")))
def test_load_weights(expected):
    path = weights_file()
    with expected:
        TrainingSet.load(path)


@reading_table("TrainingSet.from_chapter(folder)", ("empty", FileNotFoundError("folder")))
def test_from_chapter(folder, expected):
    with expected:
        TrainingSet.from_chapter(folder)


@writing_table("TrainingSet.save(path)", *WRITE_FAILURES)
def test_save_fails(value, expected):
    with expected, existing_file() as path, value():
        training_set().save(path, overwrite=True)


# ---------------------------------------------------------------------------------------------------------------------
# Fits
# ---------------------------------------------------------------------------------------------------------------------


@table("DEMLoss(distribution=)", ("NaN", ValueError("The weights of DEMLoss must be finite")))
def test_loss(expected):
    with expected:
        DEMLoss(np.nan)


@table("fit(…, training=)", ("``None``", TypeError("training must be a TrainingSet or PriorStream")))
def test_training(expected):
    with expected:
        fit(None, response(), **SHORT)


@table("fit(…, response=)", ("``None``", TypeError("response must be a TemperatureResponse")))
def test_response(expected):
    with expected:
        fit(training_set(), None, **SHORT)


@table(
    "fit(…, epochs=)",
    ("0", 0, ValueError("epochs must be a positive whole number, found 0")),
    ("infinite", np.inf, ValueError("epochs must be a positive whole number, found inf")),
)
def test_epochs(value, expected):
    with expected:
        fit(training_set(), response(), **SHORT | {"epochs": value})


@table(
    "fit(…, batch_size=)",
    ("a string", ValueError("batch_size must be a positive whole number, found 'a'")),
)
def test_batch_size(expected):
    with expected:
        fit(training_set(), response(), batch_size="a", **SHORT)


@table(
    "fit(…, learning_rate=)",
    ("infinite", np.inf, ValueError("learning_rate must be positive")),
    ("a string", "a", ValueError("learning_rate must be a number")),
)
def test_learning_rate(value, expected):
    with expected:
        fit(training_set(), response(), learning_rate=value, **SHORT)


@table("fit(…, max_gradient=)", ("-1", ValueError("max_gradient must be positive")))
def test_max_gradient(expected):
    with expected:
        fit(training_set(), response(), max_gradient=-1, **SHORT)


@table(
    "fit(…, network=)",
    ("a number", 3, TypeError("widths of hidden layers")),
    ("0", (0,), ValueError("network: each width must be a positive whole number")),
)
def test_network(value, expected):
    with expected:
        fit(training_set(), response(), **SHORT | {"network": value})


@table("fit(…, seed=)", ("-1", ValueError("seed must be a whole number, not negative")))
def test_seed(expected):
    with expected:
        fit(training_set(), response(), seed=-1, **SHORT)


@table("fit(…, consistency_epochs=)", ("1.5", ValueError("consistency_epochs must be a whole number")))
def test_consistency_epochs(expected):
    with expected:
        fit(training_set(), response(), **SHORT | {"consistency_epochs": 1.5})


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@table(
    "fit(…, device=)",
    ('``"cuda"`` without a GPU', ValueError("device must be 'auto', 'cpu', 'cuda'")),
)
def test_device(expected):
    with expected:
        fit(training_set(), response(), device="cuda", **SHORT)


@table(
    "fit(…, checkpoint=)",
    ("a number", 3, TypeError("checkpoint must be a str or pathlib.Path")),
    ("a folder", Path(), OSError("is a folder, not a file")),
)
def test_checkpoint(value, expected):
    with expected:
        fit(training_set(), response(), checkpoint=value, **SHORT)


@table(
    "fit(…, checkpoint=Checkpoint(path, resume=True))",
    ("a checkpoint of another kind", ValueError("cannot be read")),
)
def test_checkpoint_of_another_kind(expected):
    path = junk()
    with expected:
        fit(training_set(), response(), checkpoint=Checkpoint(path, resume=True), **SHORT)


@table("fit(…, checkpoint=)", ("a disk that fills up", OSError("could not be written")))
def test_checkpoint_on_a_full_disk(folder, expected):
    with expected, full_disk():
        fit(training_set(), response(), checkpoint=folder / "run", **SHORT)


@table("fit(training)", ("only NaN", ValueError("No pixel")))
def test_no_valid_pixel(expected):
    with expected:
        fit(training_set().take(slice(0)), response(), **SHORT)


class InterruptedSet(TrainingSet):
    """A training set that raises KeyboardInterrupt after the first epoch."""

    def epoch(self, number):
        if number == 1:
            raise KeyboardInterrupt
        return super().epoch(number)


@table("fit(…, checkpoint=)", ("Ctrl-C after an epoch", "resume=True leads to the same weights."))
def test_interrupted_training_resumes(folder):
    options = {"epochs": 3, "consistency_epochs": 0, "network": (4,), "batch_size": 32}
    whole, path = training_set(), folder / "run"
    columns = {name: getattr(whole, name) for name in ("intensity", "uncertainty", "em", "status", "observation")}
    with pytest.raises(KeyboardInterrupt):
        fit(InterruptedSet(**columns, names=whole.names), response(), checkpoint=path, **options)
    resumed = fit(whole, response(), checkpoint=Checkpoint(path, resume=True), **options)
    uninterrupted = fit(whole, response(), **options)
    for one, other in zip(resumed.module.parameters(), uninterrupted.module.parameters(), strict=True):
        assert torch.equal(one, other)
