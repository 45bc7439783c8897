"""Bad weights, and bad pixels for a network."""

import functools

import numpy as np
import pytest
import torch
from hostile import (
    INTENSITIES,
    QUICK,
    WRITE_FAILURES,
    Table,
    existing_file,
    junk,
    network,
    pixels,
    training_set,
    weights_file,
)
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sunpy_deepem import DeepEM
from sunpy_deepem.network.architectures import ChapterNetwork

weights_table = Table("Networks and weights")
pixels_table = Table("Pixels")
writing_table = Table("Writing files")


@weights_table(
    "DeepEM.load(source)",
    ("``None``", None, TypeError("weights must be a str or pathlib.Path")),
    ("no file", "no", FileNotFoundError("there is no file no")),
    ("a folder", ".", FileNotFoundError("there is no file")),
)
def test_path(value, expected):
    with expected:
        DeepEM.load(value)


@weights_table(
    "DeepEM.load(source)",
    ("an empty file", b"", ValueError("not a readable safetensors")),
    ("a text file", b"hello", ValueError("not a readable safetensors")),
)
def test_file_of_another_kind(value, expected):
    path = junk(value)
    with expected:
        DeepEM.load(path)


def one_value(name, value, key, tensor):
    """Replace one number of a tensor of the given name."""
    if key != name:
        return tensor
    changed = tensor.clone()
    changed.reshape(-1)[-1] = value
    return changed


DESCRIPTION = "do not fit their own description"
FORMAT = "format must be 'sunpy_deepem weights 7', found 'sunpy_deepem weights"


@weights_table(
    "DeepEM.load(source)",
    ("weights of an older version", {"format": "sunpy_deepem weights 3"}, ValueError(f"{FORMAT} 3'")),
    ("weights of a later version", {"format": "sunpy_deepem weights 8"}, ValueError(f"{FORMAT} 8'")),
    ("weights without a description", {"drop": ["architecture"]}, ValueError(DESCRIPTION)),
    ("a description of another kind", {"architecture": '"scaled"'}, ValueError(DESCRIPTION)),
    (
        "weights that are NaN",
        {"tensors": lambda key, tensor: tensor * torch.nan},
        ValueError("tensors that are not finite"),
    ),
    *(
        (
            f"{name} with one {value}",
            {"tensors": functools.partial(one_value, name, value)},
            ValueError("tensors that are not finite"),
        )
        for name in ("response_matrix", "prior_log_std", "consistency.layers.0.weight", "consistency.channel_scale")
        for value in (np.nan, np.inf)
    ),
    (
        "a response of another shape",
        {"tensors": lambda key, tensor: tensor[:3] if key == "response_matrix" else tensor},
        ValueError("response_matrix of shape (3, 18)"),
    ),
)
def test_changed_weights(value, expected):
    path = weights_file(**value)
    with expected:
        DeepEM.load(path)


@weights_table("DeepEM.load(source)", ("a training set", ValueError("found 'sunpy_deepem training set 1'")))
def test_training_set_is_no_network(expected):
    training_set().save("set")
    with expected:
        DeepEM.load("set")


@weights_table(
    "DeepEM.from_helioml(path)",
    ("weights of the package", ValueError("is a safetensors file, which DeepEM.load reads")),
)
def test_from_helioml(expected):
    path = weights_file()
    with expected:
        DeepEM.from_helioml(path)


@weights_table("DeepEM.from_helioml(path)", ("weights that are NaN", ValueError("that are not finite: 0.weight")))
def test_from_helioml_with_nan(expected):
    state = ChapterNetwork().layers.state_dict()
    state["0.weight"][0] = torch.nan
    torch.save(state, "chapter.pth")
    with expected:
        DeepEM.from_helioml("chapter.pth")


@QUICK
@given(fraction=st.floats(0, 1, exclude_max=True))
def test_truncated_weights_are_rejected(folder, fraction):
    content = weights_file().read_bytes()
    path = junk(content[: int(fraction * len(content))])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        DeepEM.load(path)


@writing_table("DeepEM.save(path)", *WRITE_FAILURES)
def test_save_fails(value, expected):
    with expected, existing_file() as path, value():
        network().save(path, overwrite=True)


@writing_table(
    "DeepEM.save(path, overwrite=True)",
    ("a folder", ".", OSError("folder")),
    ("a device", "/dev/null", OSError("/dev/null is a device, not a file")),
)
def test_save_to_something_else(value, expected):
    with expected:
        network().save(value, overwrite=True)


# ---------------------------------------------------------------------------------------------------------------------
# Pixels
# ---------------------------------------------------------------------------------------------------------------------


@pixels_table("DeepEM.predict(intensity, σ)", *INTENSITIES)
def test_predict_intensity(value, expected):
    with expected:
        network().predict(value, np.ones((6, 4)))


@pixels_table("DeepEM.predict(intensity)", ("no σ", ValueError("uncertainty is missing")))
def test_predict_without_uncertainty(expected):
    with expected:
        network().predict(pixels())


NOT_POSITIVE = "uncertainty must be positive wherever intensity is finite; it is not in 24 of 24"


@pixels_table(
    "DeepEM.predict(intensity, σ)",
    ("σ of 0", 0, ValueError(NOT_POSITIVE)),
    ("negative σ", -1, ValueError(NOT_POSITIVE)),
    ("σ of NaN", np.nan, ValueError(NOT_POSITIVE)),
)
def test_predict_uncertainty(value, expected):
    with expected:
        network().predict(pixels(), value * pixels())


@pixels_table(
    "DeepEM.predict(intensity, σ)",
    ("NaN", pixels() * np.nan, "NaN."),
    ("infinite", pixels() * np.inf, "NaN."),
    ("1e300 DN/s", pixels().astype(float) * 1e300, "NaN."),
    ("masked", np.ma.masked_less(pixels(), 1e9), "NaN."),
)
def test_predict_invalid_pixels(value):
    assert np.isnan(network().predict(value, 0.1 * pixels())[0]).all()


@pixels_table("DeepEM.predict(intensity, σ)", ("no pixel", "No pixel."))
def test_predict_no_pixel():
    assert network().predict(np.ones((6, 0)), np.ones((6, 0)))[0].shape == (18, 0)


@pixels_table(
    "DeepEM.predict(…, tile=)",
    ("0", 0, ValueError("tile must be a positive whole number")),
    ("-1", -1, ValueError("tile must be a positive whole number")),
    ("2.5", 2.5, ValueError("tile must be a positive whole number")),
)
def test_tile(value, expected):
    with expected:
        network().predict(pixels(), pixels(), tile=value)


@pixels_table("DeepEM.predict(…, precision=)", ('``"float16"``', ValueError("precision must be one of")))
def test_precision(expected):
    with expected:
        network().predict(pixels(), pixels(), precision="float16")


NUMBERS = st.floats(width=32)


@QUICK
@given(intensity=arrays(np.float32, (6, 3), elements=NUMBERS), sigma=arrays(np.float32, (6, 3), elements=NUMBERS))
def test_any_pixel_is_predicted_or_rejected(intensity, sigma):
    try:
        em, _ = network().predict(intensity, sigma)
    except ValueError as error:
        assert "uncertainty must be positive" in str(error)  # noqa: PT017
        assert (np.isfinite(intensity) & ~(sigma > 0)).any()
        return
    known = (np.isfinite(intensity) & np.isfinite(sigma)).sum(axis=0) >= 3
    assert np.isnan(em[:, ~known]).all()
    assert not (em[:, known] < 0).any()
