"""Reading, writing and checking files of weights."""

import hashlib
import json
from dataclasses import dataclass, field
from importlib import resources
from weakref import WeakValueDictionary

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.network.architectures import ARCHITECTURES, ChapterNetwork
from sunpy_deepem.network.consistency import ChannelConsistency
from sunpy_deepem.network.posterior import PosteriorNetwork
from sunpy_deepem.network.tiles import first_line, with_own_settings
from sunpy_deepem.temperature import LogTBins
from sunpy_deepem.utils.files import atomic_path, checked_path

__all__ = ["IN_USE", "PACKAGED", "Weights", "fingerprint", "read_helioml", "read_weights", "write_weights"]

#: Networks that made cubes in this process, by the fingerprint of their weights.
IN_USE: WeakValueDictionary = WeakValueDictionary()
_FORMAT = "sunpy_deepem weights 7"
#: Weights that come with the package.
PACKAGED = ("default", "neutral")
# Names of the folded response, the prior's moments and the other networks among the tensors of a file.
_RESPONSE, _PRIOR_LOG_STD, _WIDENING = "response_matrix", "prior_log_std", "posterior_widening"
_CONSISTENCY, _POSTERIOR = "consistency.", "posterior."


@dataclass
class Weights:
    """
    Contents of a weights file.

    Attributes
    ----------
    module : `~torch.nn.Module`
        The network, as `~sunpy_deepem.network.ScaledNetwork`.
    bins : `LogTBins`
        Bins of its log T axis.
    consistency : `~sunpy_deepem.network.ChannelConsistency` or `None`
        Network that predicts each channel from the others.
    response_matrix : `~numpy.ndarray` or `None`
        Folded response of the training, shape ``(number of channels, number of bins)``.
    response_fingerprint : `str` or `None`
        Fingerprint of that response.
    meta : `dict`
        How the weights were made.
    posterior : `~sunpy_deepem.network.PosteriorNetwork` or `None`
        Network from which draws are taken.
    prior : `dict`
        Families of the prior and their relative frequencies; empty if unknown.
    prior_log_std : `~numpy.ndarray` or `None`
        Standard deviation over the prior of ln(EM of a bin / total EM + ``TRACE``), shape ``(number of bins,)``.
    channels : `tuple`
        Names of the channels.
    """

    module: nn.Module
    bins: LogTBins
    consistency: ChannelConsistency | None = None
    response_matrix: np.ndarray | None = None
    response_fingerprint: str | None = None
    meta: dict = field(default_factory=dict)
    posterior: PosteriorNetwork | None = None
    prior: dict = field(default_factory=dict)
    prior_log_std: np.ndarray | None = None
    channels: tuple = CHANNELS


def read_weights(source="default") -> Weights:
    """
    Read a weights file.

    Parameters
    ----------
    source : `str` or `pathlib.Path`, optional
        ``"default"`` or ``"neutral"`` for the weights in the package, or the path of a ``.safetensors`` file.

    Returns
    -------
    `Weights`

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is truncated, not of safetensors, or not written by this package.
    """
    if str(source) in PACKAGED:
        with resources.as_file(resources.files("sunpy_deepem.data") / f"{source}.safetensors") as path:
            return _read(path)
    path = checked_path(source, "weights")
    if not path.is_file():
        msg = f"weights must be one of {PACKAGED} or the path of a .safetensors file; there is no file {path}."
        raise FileNotFoundError(msg)
    return _read(path)


@with_own_settings
def _read(path):
    try:
        with safe_open(path, framework="pt") as file:
            meta = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except SafetensorError as error:
        msg = (
            f"{path} is not a readable safetensors file ({error}). It may be truncated or of another kind; weights "
            "are written by DeepEM.save or 'deepem train'."
        )
        raise ValueError(msg) from None
    if (found := meta.pop("format", None)) != _FORMAT:
        msg = (
            f"{path} holds no weights that this version of the package reads: format must be {_FORMAT!r}, found "
            f"{found!r}. Train them again with 'deepem train', or use the version that wrote them."
        )
        raise ValueError(msg)
    try:
        _check_finite(state)
        matrix, log_std = (None if key not in state else state.pop(key).numpy() for key in (_RESPONSE, _PRIOR_LOG_STD))
        posterior = _posterior_of(state, meta)
        consistency = _consistency_of(state)
        architecture = json.loads(meta.pop("architecture"))
        bins = LogTBins(**json.loads(meta.pop("bins")))
        channels = tuple(json.loads(meta.pop("channels", json.dumps(CHANNELS))))
        module = ARCHITECTURES[architecture.pop("name")](**architecture).float()
        module.load_state_dict(state)
        _check_shapes(module, matrix, bins, channels)
    except (LookupError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        msg = f"{path} holds weights that do not fit their own description ({error}). Train or download it again."
        raise ValueError(msg) from error
    return Weights(
        module,
        bins,
        consistency=consistency,
        response_matrix=matrix,
        response_fingerprint=meta.pop("response_fingerprint", None),
        posterior=posterior,
        prior=json.loads(meta.pop("prior", "{}")),
        prior_log_std=log_std,
        channels=channels,
        meta=meta,
    )


@with_own_settings
def read_helioml(path) -> Weights:
    """
    Read the weights that the DeepEM chapter of HelioML published.

    Parameters
    ----------
    path : `str` or `pathlib.Path`
        ``DeepEM_CNN_HelioML.pth``, or weights of the chapter's architecture. Only tensors are read; code in the file
        does not run.

    Returns
    -------
    `Weights`

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file holds anything but tensors, is truncated, or is of another architecture.
    """
    path = checked_path(path)
    if not path.is_file():
        msg = f"There is no file {path}."
        raise FileNotFoundError(msg)
    if path.suffix.lower() == ".safetensors":
        msg = f"{path} is a safetensors file, which DeepEM.load reads; from_helioml reads the chapter's own .pth."
        raise ValueError(msg)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the type depends on the kind of damage
        msg = f"{path} is no file of weights alone, and nothing else is read ({first_line(error)})."
        raise ValueError(msg) from None
    module = ChapterNetwork().float()
    try:
        module.layers.load_state_dict(state)
        _check_finite(state)
    except (RuntimeError, TypeError, AttributeError, ValueError) as error:
        msg = f"{path} does not hold the chapter's network, 6→300→300→18 ({first_line(error)})."
        raise ValueError(msg) from None
    return Weights(module, LogTBins(), meta={"source": f"HelioML, {path.name}"})


def write_weights(weights, path, *, overwrite=False):
    """
    Write a weights file atomically.

    Parameters
    ----------
    weights : `Weights` or `~sunpy_deepem.DeepEM`
    path : `str` or `pathlib.Path`
    overwrite : `bool`, optional
        Whether to replace an existing file.

    Raises
    ------
    FileExistsError
        If the file exists and ``overwrite`` is `False`.
    """
    state, description = _contents(weights)
    meta = {key: str(value) for key, value in weights.meta.items()} | description | {"format": _FORMAT}
    with atomic_path(path, overwrite=overwrite) as partial:
        partial.write_bytes(save(state, metadata=meta))


def fingerprint(weights) -> str:
    """
    Return a hash of all tensors and their description; equal networks have equal fingerprints.

    Parameters
    ----------
    weights : `Weights` or `~sunpy_deepem.DeepEM`
    """
    state, description = _contents(weights)
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name in sorted(state):
        digest.update(name.encode() + state[name].numpy().tobytes())
    return digest.hexdigest()[:16]


def _contents(weights):
    """Return the tensors of a file, and their description."""
    bins = weights.bins
    description = {
        "architecture": json.dumps(weights.module.architecture()),
        "bins": json.dumps({"first": bins.first, "step": bins.step, "n": bins.n}),
    }
    tensors = dict(weights.module.state_dict())
    for prefix, module in ((_CONSISTENCY, weights.consistency), (_POSTERIOR, weights.posterior)):
        if module is not None:
            tensors |= {prefix + key: value for key, value in module.state_dict().items()}
    if weights.posterior is not None:
        description["posterior"] = json.dumps(weights.posterior.architecture())
        tensors[_WIDENING] = torch.tensor(weights.posterior.widening, dtype=torch.float64, device="cpu")
    if weights.channels != CHANNELS:
        description["channels"] = json.dumps(weights.channels)
    if weights.prior:
        description["prior"] = json.dumps(weights.prior)
    state = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    if weights.response_matrix is not None:
        description["response_fingerprint"] = weights.response_fingerprint
        state[_RESPONSE] = torch.from_numpy(weights.response_matrix)
    if weights.prior_log_std is not None:
        state[_PRIOR_LOG_STD] = torch.from_numpy(weights.prior_log_std)
    return state, description


def _take(state, prefix):
    """Remove the tensors with a prefix from ``state`` and return them without it."""
    return {key.removeprefix(prefix): state.pop(key) for key in list(state) if key.startswith(prefix)}


def _consistency_of(state):
    """Remove the tensors of a `ChannelConsistency` from ``state`` and return it, or `None` if there are no such."""
    if not (tensors := _take(state, _CONSISTENCY)):
        return None
    module = ChannelConsistency(
        tensors["channel_scale"], width=tensors["layers.0.bias"].numel() // len(tensors["channel_scale"])
    ).float()
    module.load_state_dict(tensors)
    return module


def _posterior_of(state, meta):
    """Remove the tensors of a `PosteriorNetwork` from ``state`` and return it, or `None` if there are no such."""
    if not (tensors := _take(state, _POSTERIOR)):
        return None
    module = PosteriorNetwork(**json.loads(meta.pop("posterior"))).float()
    module.load_state_dict(tensors)
    module.widening = tuple(state.pop(_WIDENING).tolist())
    return module


def _check_finite(state):
    if wrong := [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]:
        msg = f"tensors that are not finite: {', '.join(wrong)}"
        raise ValueError(msg)


def _check_shapes(module, matrix, bins, channels):
    if module.n_bins != len(bins):
        msg = f"{module.n_bins} outputs for {bins!r}"
        raise ValueError(msg)
    inputs = module.channel_scale.numel() if hasattr(module, "channel_scale") else len(CHANNELS)
    if inputs != len(channels):
        msg = f"{inputs} inputs for the channels {channels}"
        raise ValueError(msg)
    if matrix is not None and matrix.shape != (inputs, len(bins)):
        msg = f"{_RESPONSE} of shape {matrix.shape} for {inputs} channels and {bins!r}"
        raise ValueError(msg)
