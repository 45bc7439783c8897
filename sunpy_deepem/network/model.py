"""The network of 1×1 convolutions: `DeepEM`. Arrays in, arrays out."""

import copy
import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from threadpoolctl import threadpool_limits
from torch import nn
from tqdm.auto import tqdm

from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.network.consistency import ChannelConsistency
from sunpy_deepem.network.layers import PRECISIONS, PointwiseConvolution, PointwiseLayers, dtype_of
from sunpy_deepem.network.tiles import GPU_TILE, check_array, first_line, resolve_device, workers
from sunpy_deepem.temperature import LogTBins
from sunpy_deepem.utils.checks import whole_number
from sunpy_deepem.utils.files import atomic_path, checked_path

__all__ = ["ChapterNetwork", "DeepEM", "ScaledNetwork"]

# EM inside the network is in units of 10^25 cm^-5, as in the DeepEM chapter, to stay within single precision.
EM_UNIT = 1e25
_FORMAT = "sunpy_deepem weights 4"
# Pixels worked on at a time on a CPU, whose cache they should stay in.
_TILE = 16384
# Names of the folded response and of the second network among the tensors of a file.
_RESPONSE, _CONSISTENCY = "response_matrix", "consistency."
# Brightness in powers of ten, beyond which the shape of the EM does not depend on it: EM of 10^24 to 10^30 cm^-5.
_LEVELS = (-1.0, 5.0)
# Smallest output in ln, lest the EM of a bin be zero.
_LEAST_OUTPUT = -60.0
_LOG2_E = math.log2(math.e)
# Responses that agree to this are the same for a network; rounding in tables and versions of aiapy stays below it.
_RESPONSE_TOLERANCE = 1e-3
# By module: its tensors, in which precision and state `_reduced` copied it last, and that copy.
_REDUCED: WeakKeyDictionary = WeakKeyDictionary()


class ScaledNetwork(nn.Module):
    """
    1×1 convolutions between a division by each pixel's brightness and a multiplication by it.

    Intensities over the channels' typical response are EM-like numbers. A pixel's brightness is the mean over channels
    of their moduli plus σ; the network sees intensity and σ over brightness, and what it answers is multiplied by
    brightness. It also sees the logarithm of the brightness, as dim and bright plasma are not of the same kind: the
    corona that is as dim as a coronal hole has not the hot plasma of an active region. The outputs are made positive by
    exp(x) below and x + 1 above zero. The spread is multiplied, besides, by a power of the noise, the mean σ over
    brightness, by which `~sunpy_deepem.training.fit` makes its intervals hold at every noise.

    Parameters
    ----------
    channel_scale : array-like
        Typical response of each channel, in DN s^-1 pix^-1 for 10^25 cm^-5, shape ``(6,)``.
    n_bins : `int`
        Number of log T bins.
    hidden : sequence of `int`, optional
        Widths of the hidden layers.
    """

    name = "scaled"
    needs_uncertainty = True
    has_spread = True
    usual_precision = "auto"

    def __init__(self, channel_scale, n_bins, hidden=(64, 64)):
        super().__init__()
        scale = torch.as_tensor(np.asarray(channel_scale, dtype=np.float32)).reshape(1, -1, 1, 1)
        self.register_buffer("channel_scale", scale)
        # log2 of a factor, and the exponent of the noise.
        self.register_buffer("spread_law", torch.zeros(2))
        self.n_bins, self.hidden = int(n_bins), tuple(int(width) for width in hidden)
        self.layers = PointwiseLayers((2 * scale.numel() + 1, *self.hidden, 2 * self.n_bins))

    def forward(self, intensity, uncertainty, *, spread=True):
        """
        Return mean and spread of the EM in units of 10^25 cm^-5.

        Parameters
        ----------
        intensity, uncertainty : `~torch.Tensor`
            DN s^-1 pix^-1, shape ``(batch, 6, ny, nx)``.
        spread : `bool`, optional
            Whether to compute the spread, which is `None` otherwise.

        Returns
        -------
        em, spread : `~torch.Tensor`
            Shape ``(batch, n_bins, ny, nx)``.
        """
        intensity, uncertainty, brightness = self.relative(intensity, uncertainty)
        level = 0.25 * (torch.log10(brightness).clamp(*_LEVELS) - 2)
        inputs = intensity, uncertainty, level
        # The values of a pixel beside each other in memory, as the layers want them.
        inputs = torch.cat([values.movedim(1, -1) for values in inputs], dim=-1).movedim(-1, 1)
        outputs = self.layers(inputs, None if spread else self.n_bins)
        outputs = _positive(outputs)
        em = outputs[:, : self.n_bins] * brightness
        if not spread:
            return em, None
        noise = uncertainty.mean(dim=1, keepdim=True)
        factor = torch.exp2(self.spread_law[0] + self.spread_law[1] * torch.log2(noise))
        return em, outputs[:, self.n_bins :] * (brightness * factor)

    def relative(self, intensity, uncertainty):
        """
        Return intensity and σ over brightness, shape ``(batch, 6, ny, nx)``, and brightness, ``(batch, 1, ny, nx)``.
        """
        intensity = intensity / self.channel_scale
        uncertainty = uncertainty / self.channel_scale
        brightness = (intensity.abs() + uncertainty).mean(dim=1, keepdim=True)
        return intensity / brightness, uncertainty / brightness, brightness

    def architecture(self):
        """Return what is needed to build the network again, as a `dict` for JSON."""
        return {
            "name": self.name,
            "channel_scale": self.channel_scale.flatten().tolist(),
            "n_bins": self.n_bins,
            "hidden": list(self.hidden),
        }


class ChapterNetwork(nn.Module):
    """
    The network of the DeepEM chapter: √ of the intensities in, √ of the EM out, no σ.

    Negative intensities count as zero, and the output is squared whatever its sign, as in the chapter. While training
    it keeps its sign, so that the loss on √EM sees what the chapter's saw.

    Parameters
    ----------
    n_bins : `int`, optional
        Number of log T bins.
    hidden : sequence of `int`, optional
        Widths of the hidden layers.

    References
    ----------
    Wright et al., "DeepEM: A Deep Learning Approach for DEM Inversion", in HelioML, https://doi.org/10.5281/zenodo.3572099
    """

    name = "chapter"
    needs_uncertainty = False
    has_spread = False
    usual_precision = "float32"

    def __init__(self, n_bins=18, hidden=(300, 300)):
        super().__init__()
        self.n_bins, self.hidden = int(n_bins), tuple(int(width) for width in hidden)
        self.layers = PointwiseLayers((len(CHANNELS), *self.hidden, self.n_bins))

    def forward(self, intensity, uncertainty=None, *, spread=False):
        """
        Return the EM in units of 10^25 cm^-5, shape ``(batch, n_bins, ny, nx)``, and `None` for its spread.
        """
        root = self.layers(intensity.clamp_min(0).sqrt())
        return (root * root.abs() if self.training else root**2), None

    def architecture(self):
        """Return what is needed to build the network again, as a `dict` for JSON."""
        return {"name": self.name, "n_bins": self.n_bins, "hidden": list(self.hidden)}


_ARCHITECTURES = {network.name: network for network in (ScaledNetwork, ChapterNetwork)}


class DeepEM:
    """
    A trained network that turns intensities into emission measures.

    Parameters
    ----------
    module : `~torch.nn.Module`
        The network, as `ScaledNetwork`.
    bins : `LogTBins`
        Bins of its log T axis.
    response : `TemperatureResponse` or `None`
        The response it was trained for; `None` where that is not known.
    consistency : `~sunpy_deepem.network.ChannelConsistency`, optional
        What tells channels that do not fit the others.
    meta : `dict`, optional
        How it was made: training command, seed, package version. Values are strings.

    References
    ----------
    Wright et al., "DeepEM: A Deep Learning Approach for DEM Inversion", in HelioML, https://doi.org/10.5281/zenodo.3572099

    Examples
    --------
    >>> from sunpy_deepem import DeepEM
    >>> intensity = np.array([0.8, 4.5, 140.0, 170.0, 50.0, 2.7])
    >>> em, em_std = DeepEM.load("default").predict(intensity, 0.1 * intensity)
    >>> em.shape
    (18,)
    """

    def __init__(self, module, *, bins, response=None, consistency=None, meta=None):
        self.module = module.eval()
        self.consistency = None if consistency is None else consistency.eval()
        self.bins = bins
        self.response_fingerprint = None if response is None else response.fingerprint
        self.response_matrix = None if response is None else np.array(response.matrix.value)
        self.meta = dict(meta or {})

    @classmethod
    def load(cls, source: str | Path = "default") -> "DeepEM":
        """
        Read weights.

        Parameters
        ----------
        source : `str` or `pathlib.Path`, optional
            ``"default"`` for the weights that come with the package, or the path of a ``.safetensors`` file.

        Returns
        -------
        `DeepEM`

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is truncated, not of safetensors, or not written by this package.
        """
        if str(source) == "default":
            with resources.as_file(resources.files("sunpy_deepem.data") / "default.safetensors") as path:
                return cls._read(path)
        path = checked_path(source, "weights")
        if not path.is_file():
            msg = f"weights must be 'default' or the path of a .safetensors file; there is no file {path}."
            raise FileNotFoundError(msg)
        return cls._read(path)

    @classmethod
    def _read(cls, path):
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
            matrix = state.pop(_RESPONSE, None)
            consistency = _consistency_of(state)
            architecture = json.loads(meta.pop("architecture"))
            bins = LogTBins(**json.loads(meta.pop("bins")))
            module = _ARCHITECTURES[architecture.pop("name")](**architecture)
            module.load_state_dict(state)
            _check_tensors(state, matrix, bins)
        except (LookupError, AttributeError, TypeError, ValueError, RuntimeError) as error:
            msg = f"{path} holds weights that do not fit their own description ({error}). Train or download it again."
            raise ValueError(msg) from error
        network = cls(module, bins=bins, consistency=consistency)
        network.response_fingerprint = meta.pop("response_fingerprint", None)
        network.response_matrix = None if matrix is None else matrix.numpy()
        network.meta = meta
        return network

    @classmethod
    def from_helioml(cls, path) -> "DeepEM":
        """
        Read the weights that the DeepEM chapter of HelioML published.

        They are PyTorch's own kind of file, of which only tensors are read; nothing in it can run. The network has the
        chapter's scaling and bins and knows no σ. It was trained on one image, for another response than the package's.

        Parameters
        ----------
        path : `str` or `pathlib.Path`
            ``DeepEM_CNN_HelioML.pth``, or weights of the chapter's architecture.

        Returns
        -------
        `DeepEM`

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
        except Exception as error:  # what is raised depends on what is wrong with the file
            msg = f"{path} is no file of weights alone, and nothing else is read ({first_line(error)})."
            raise ValueError(msg) from None
        module = ChapterNetwork()
        try:
            module.layers.load_state_dict(state)
        except (RuntimeError, TypeError, AttributeError) as error:
            msg = f"{path} does not hold the chapter's network, 6→300→300→18 ({first_line(error)})."
            raise ValueError(msg) from None
        meta = {"source": f"HelioML, {path.name}"}
        return cls(module, bins=LogTBins(), meta=meta)

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """
        Write the weights and how they were made, atomically.

        Parameters
        ----------
        path : `str` or `pathlib.Path`
            Where to; usually ends in ``.safetensors``.
        overwrite : `bool`, optional
            Whether a file that is there may be replaced.

        Raises
        ------
        FileExistsError
            If there is a file and ``overwrite`` is `False`.
        """
        meta = {key: str(value) for key, value in self.meta.items()} | {
            "format": _FORMAT,
            "architecture": json.dumps(self.module.architecture()),
            "bins": json.dumps({"first": self.bins.first, "step": self.bins.step, "n": self.bins.n}),
        }
        tensors = self.module.state_dict()
        if self.consistency is not None:
            tensors |= {_CONSISTENCY + key: value for key, value in self.consistency.state_dict().items()}
        state = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        if self.response_matrix is not None:
            meta["response_fingerprint"] = self.response_fingerprint
            state[_RESPONSE] = torch.from_numpy(self.response_matrix)
        with atomic_path(path, overwrite=overwrite) as partial:
            partial.write_bytes(save(state, metadata=meta))

    def check_response(self, response, *, exact=True):
        """
        Raise unless the network was trained for ``response``.

        Parameters
        ----------
        response : `TemperatureResponse`
        exact : `bool`, optional
            Whether the folded response has to agree; channels and bins always have to.

        Raises
        ------
        ValueError
            If the channels or bins are others, or the folded response differs by more than a thousandth.
        """
        if response.channels != CHANNELS:
            msg = f"response must be that of all six channels {CHANNELS}, found {response.channels}."
            raise ValueError(msg)
        if response.bins != self.bins:
            msg = f"response is folded onto {response.bins!r}, but the network answers on {self.bins!r}."
            raise ValueError(msg)
        if self.response_matrix is None or not exact:
            return
        difference = np.abs(response.matrix.value / self.response_matrix - 1).max()
        if not difference <= _RESPONSE_TOLERANCE:
            msg = (
                f"response {response.fingerprint} is not the one this network was trained for "
                f"({self.response_fingerprint}); they differ by up to {difference:.1%}. Use the network's own, train "
                "weights for this one with 'deepem train', or, if they are close, pass refine=."
            )
            raise ValueError(msg)

    def predict(
        self,
        intensity,
        uncertainty=None,
        *,
        std: bool = True,
        device: str | torch.device = "auto",
        precision: str = "auto",
        tile: int = _TILE,
        progress: bool = False,
    ):
        """
        Return the emission measure of every pixel.

        Parameters
        ----------
        intensity : array-like or `torch.Tensor`
            DN s^-1 pix^-1, channels as in `sunpy_deepem.CHANNELS` along the first axis, shape ``(6, ...)``. A pixel in
            which a channel is not finite comes back as NaN.
        uncertainty : array-like or `torch.Tensor`
            σ of the intensity, positive, of the same shape and unit. Only the chapter's network does without.
        std : `bool`, optional
            Whether to compute ``em_std``; without it the EM comes sooner.
        device : `str` or `torch.device`, optional
            ``"auto"`` for a GPU where there is one, else the CPU; for a tensor its own device.
        precision : {"auto", "float32", "bfloat16"}, optional
            What all layers but the first are computed in. ``"bfloat16"`` is faster where the processor has it, and
            changes the EM by less than a percent in the median, far less than it is known to. ``"auto"`` takes it
            there, and ``"float32"`` elsewhere and for the chapter's network, whose answers were published.
        tile : `int`, optional
            Pixels worked on at a time; the default stays in a CPU's cache.
        progress : `bool`, optional
            Whether to show a progress bar.

        Returns
        -------
        em, em_std : `~numpy.ndarray`
            EM per bin in cm^-5 and half the width of the interval about it that holds the truth in 68 % of all cases,
            `~numpy.float32`, shape ``(18, ...)``. The latter is `None` without ``std``, and for the chapter's network,
            which does not state it. Both are tensors, on its device, if ``intensity`` is one.

        Raises
        ------
        TypeError
            If an argument carries a unit.
        ValueError
            If shapes do not fit, σ is not positive where the intensity is finite, or there is no such device or
            precision.
        """
        inputs = self._check_inputs(intensity, uncertainty)
        on_tensors = isinstance(intensity, torch.Tensor)
        device = intensity.device if on_tensors and str(device) == "auto" else resolve_device(device)
        tile = whole_number(tile, "tile")
        tile = tile if device.type == "cpu" else max(tile, GPU_TILE)
        sky = inputs[0].shape[1:]
        inputs = [None if values is None else values.reshape(len(CHANNELS), -1) for values in inputs]
        std = std and self.module.has_spread
        shape = (len(self.bins), inputs[0].shape[1])
        outputs = [_empty(shape, intensity.device if on_tensors else "cpu") for _ in range(1 + std)]
        module = self._module_in(precision, device).to(device).eval()

        def run(start):
            part = slice(start, start + tile)
            with torch.inference_mode():
                arrays, wrong = _usable(*(_tile_of(values, part, device) for values in inputs))
                for output, result in zip(outputs, module(*arrays, spread=std), strict=False):
                    _store(result[0, :, 0], output[:, part])
            return wrong

        starts = range(0, shape[1], tile)
        with workers(device) as map_tiles:
            results = map_tiles(run, starts)
            wrong = sum(tqdm(results, total=len(starts), desc="DEM", unit="tile", disable=not progress))
        if wrong:
            msg = (
                f"uncertainty must be positive wherever intensity is finite; it is not in {wrong} of {inputs[0].size} "
                "values. ChannelStack gives a σ for every pixel; mask a pixel by making its intensity NaN."
            )
            raise ValueError(msg)
        outputs = [array.reshape(len(self.bins), *sky) for array in outputs]
        em, *rest = outputs if on_tensors else [array.numpy() for array in outputs]
        return em, rest[0] if rest else None

    @contextmanager
    def workers(self, device: str | torch.device = "auto"):
        """
        Give, as a context, a ``map`` over parts of an image, several of which are worked on at once.

        Within it `predict` and `deviation` keep to the thread that calls them, where they work on a CPU, and so does
        NumPy's linear algebra. What is to be done with each part, besides, is then shared out among the CPU's cores,
        too.

        Parameters
        ----------
        device : `str` or `torch.device`, optional
            As for `predict`.

        Raises
        ------
        ValueError
            As `predict`.
        """
        device = resolve_device(device)
        with threadpool_limits(limits=1, user_api="blas"):
            if device.type == "cpu":
                with workers(device) as map_parts:
                    yield map_parts
            else:
                with ThreadPoolExecutor(os.cpu_count()) as pool:
                    yield pool.map

    def deviation(self, intensity, uncertainty):
        """
        Return how far each channel is from what the other five foretell.

        Parameters
        ----------
        intensity, uncertainty : array-like or `torch.Tensor`
            DN s^-1 pix^-1, as for `predict`.

        Returns
        -------
        `~numpy.ndarray`, `torch.Tensor` or `None`
            In units of the spread of what is foretold and observed, `~numpy.float32`, of the shape of ``intensity``;
            NaN where a channel is not finite. A tensor, on its device, if ``intensity`` is one. `None` if the weights
            cannot tell.

        Raises
        ------
        TypeError, ValueError
            As `predict`.
        """
        if self.consistency is None:
            return None
        inputs = self._check_inputs(intensity, uncertainty)
        on_tensors = isinstance(intensity, torch.Tensor)
        device = intensity.device if on_tensors else torch.device("cpu")
        tile = _TILE if device.type == "cpu" else GPU_TILE
        shape = inputs[0].shape
        inputs = [values.reshape(len(CHANNELS), -1) for values in inputs]
        result = _empty(inputs[0].shape, device)
        consistency = _reduced(self.consistency, dtype_of("auto", device)).to(device)

        def run(start):
            part = slice(start, start + tile)
            with torch.inference_mode():
                arrays, _ = _usable(*(_tile_of(values, part, device) for values in inputs))
                result[:, part] = consistency.deviation(*(values[0, :, 0] for values in arrays))

        with workers(device) as map_tiles:
            list(map_tiles(run, range(0, result.shape[1], tile)))
        result = result.reshape(shape)
        return result if on_tensors else result.numpy()

    def _module_in(self, precision, device):
        """Return the network with all layers but the first, whose inputs are the measured ones, in ``precision``."""
        if precision not in PRECISIONS:
            msg = f"precision must be one of {PRECISIONS}, found {precision!r}."
            raise ValueError(msg)
        precision = self.module.usual_precision if precision == "auto" else precision
        return _reduced(self.module, dtype_of(precision, device))

    def _check_inputs(self, intensity, uncertainty):
        """Return both as arrays or tensors of the same shape, without copying them."""
        intensity = check_array(intensity, "intensity")
        if uncertainty is None and self.module.needs_uncertainty:
            msg = (
                "uncertainty is missing: this network weighs the channels by σ. ChannelStack gives one for every pixel."
            )
            raise ValueError(msg)
        uncertainty = None if uncertainty is None else check_array(uncertainty, "uncertainty")
        if intensity.ndim < 1 or intensity.shape[0] != len(CHANNELS):
            msg = (
                f"intensity must have the six channels {CHANNELS} along its first axis, found shape "
                f"{tuple(intensity.shape)}."
            )
            raise ValueError(msg)
        if uncertainty is not None and uncertainty.shape != intensity.shape:
            msg = (
                f"uncertainty must have the shape of intensity, {tuple(intensity.shape)}, found "
                f"{tuple(uncertainty.shape)}."
            )
            raise ValueError(msg)
        return intensity, uncertainty

    def __repr__(self):
        convolutions = [layer for layer in self.module.layers if isinstance(layer, PointwiseConvolution)]
        widths = [convolutions[0].in_channels, *(layer.out_channels for layer in convolutions)]
        shape = "→".join(str(width) for width in widths)
        return f"<DeepEM {self.module.name} {shape}, {self.bins!r}, response {self.response_fingerprint}>"


def _positive(values):
    """Return exp(x) below and x + 1 above zero; ``values`` are overwritten where no gradient is asked for."""
    # Powers of two are quicker than those of e.
    below = values.clamp(_LEAST_OUTPUT, 0)
    if torch.is_grad_enabled():
        return nn.functional.relu(values) + torch.exp2(_LOG2_E * below)
    return values.clamp_min_(0).add_(below.mul_(_LOG2_E).exp2_())


def _reduced(module, dtype):
    """
    Return a module with all of its layers but the first in ``dtype``.

    It is kept until the weights of the module change, since copying one takes as long as inverting thousands of pixels.
    """
    if dtype == torch.float32:
        return module
    tensors = [*module.parameters(), *module.buffers()]
    versions = [dtype, *(None if tensor.is_inference() else tensor._version for tensor in tensors)]
    known = _REDUCED.get(module)
    # The tensors themselves are kept, as another may come to lie where one was.
    if known is None or known[1] != versions or any(a is not b for a, b in zip(known[0], tensors, strict=True)):
        reduced = copy.deepcopy(module)
        for layer in list(reduced.layers)[1:]:
            layer.to(dtype)
        known = _REDUCED[module] = tensors, versions, reduced
    return known[-1]


def _consistency_of(state):
    """Take the tensors of a `ChannelConsistency` out of ``state`` and return it, or `None` if there is none."""
    tensors = {key: state.pop(key) for key in list(state) if key.startswith(_CONSISTENCY)}
    if not tensors:
        return None
    tensors = {key.removeprefix(_CONSISTENCY): value for key, value in tensors.items()}
    module = ChannelConsistency(tensors["channel_scale"], width=tensors["layers.0.bias"].numel() // len(CHANNELS))
    module.load_state_dict(tensors)
    return module


def _check_tensors(state, matrix, bins):
    if wrong := [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]:
        msg = f"tensors that are not finite: {', '.join(wrong)}"
        raise ValueError(msg)
    if matrix is not None and matrix.shape != (len(CHANNELS), len(bins)):
        msg = f"{_RESPONSE} of shape {tuple(matrix.shape)} for {bins!r}"
        raise ValueError(msg)


def _empty(shape, device):
    """Return a tensor; on the CPU NumPy makes it, who asks for large memory pages, which are had sooner."""
    if torch.device(device).type == "cpu":
        return torch.from_numpy(np.empty(shape, np.float32))
    return torch.empty(shape, device=device)


def _tile_of(values, part, device):
    """Return pixels of an array or tensor ``(6, n)`` as a batch of one row, ``(1, 6, 1, pixels)``."""
    if values is None:
        return None
    if not isinstance(values, torch.Tensor):
        # A copy, since arrays may be read-only, of another byte order, or on disk.
        # What single precision cannot hold becomes infinite, and so a channel that is missing.
        with np.errstate(over="ignore"):
            values = torch.from_numpy(np.array(values[:, part], dtype=np.float32, order="C"))
        part = slice(None)
        if device.type == "cuda":
            values = values.pin_memory()
    return values[None, :, None, part].to(device, torch.float32, non_blocking=True)


def _usable(intensity, uncertainty):
    """
    Make the whole pixel NaN where a channel is missing, and count values whose σ cannot be.

    A pixel needs all six channels; what is not finite in one would not reach every output by itself.
    """
    # Sums and the least σ are quick to find, and show what is not finite anywhere.
    if not intensity.numel() or (
        math.isfinite(intensity.sum())
        and (uncertainty is None or (math.isfinite(uncertainty.sum()) and uncertainty.amin().item() > 0))
    ):
        return (intensity, uncertainty), 0
    finite = good = torch.isfinite(intensity)
    wrong = 0
    if uncertainty is not None:
        wrong = int((finite & ~(uncertainty > 0)).sum())
        good = finite & torch.isfinite(uncertainty)
    return (intensity.where(good.all(dim=1, keepdim=True), torch.nan), uncertainty), wrong


def _store(result, output):
    """Write EM in the network's unit to ``output`` in cm^-5, which may be on another device."""
    if result.device == output.device:
        torch.mul(result, EM_UNIT, out=output)
    else:
        output.copy_(result * EM_UNIT)
