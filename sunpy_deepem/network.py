"""The network of 1×1 convolutions: `DeepEM`. Arrays in, arrays out."""

import copy
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from importlib import resources
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn
from tqdm.auto import tqdm

from sunpy_deepem._checks import plain_array, whole_number
from sunpy_deepem._files import atomic_path, checked_path
from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.consistency import ChannelConsistency
from sunpy_deepem.temperature import LogTBins

__all__ = ["ChapterNetwork", "DeepEM", "PointwiseConvolution", "PointwiseLayers", "ScaledNetwork"]

# EM inside the network is in units of 10^25 cm^-5, as in the DeepEM chapter, to stay within single precision.
EM_UNIT = 1e25
_FORMAT = "sunpy_deepem weights 2"
# Pixels worked on at a time on a CPU, whose cache they should stay in, and on a GPU, which they should fill.
_TILE = 16384
_GPU_TILE = 2**20
_GPU_STREAMS = 3
_PRECISIONS = ("float32", "bfloat16")
# Names of the folded response and of the second network among the tensors of a file.
_RESPONSE, _CONSISTENCY = "response_matrix", "consistency."
# Brightness in powers of ten, beyond which the shape of the EM does not depend on it: EM of 10^24 to 10^30 cm^-5.
_LEVELS = (-1.0, 5.0)
# Smallest output in ln, lest the EM of a bin be zero.
_LEAST_OUTPUT = -60.0
# Responses that agree to this are the same for a network; rounding in tables and versions of aiapy stays below it.
_RESPONSE_TOLERANCE = 1e-3


class PointwiseConvolution(nn.Conv2d):
    """
    A 1×1 convolution computed as the matrix product that it is, which is faster on a CPU.

    Parameters
    ----------
    in_channels, out_channels : `int`
        As for `torch.nn.Conv2d`, whose weights it has.
    """

    def __init__(self, in_channels, out_channels):
        super().__init__(in_channels, out_channels, kernel_size=1)

    def forward(self, values):
        """Return the convolution of ``values``, shape ``(batch, out_channels, ny, nx)``."""
        values = values.to(self.weight.dtype)
        weight = self.weight.flatten(1).expand(values.shape[0], -1, -1)
        return torch.baddbmm(self.bias[None, :, None], weight, values.flatten(2)).unflatten(2, values.shape[2:])


class PointwiseLayers(nn.Sequential):
    """
    1×1 convolutions with leaky ReLUs between them.

    Where no gradient is asked for, the layers are computed by oneDNN on processors for which it has kernels; the matrix
    product that PyTorch takes otherwise comes from another library, which on AMD's processors is half as fast.

    Parameters
    ----------
    widths : sequence of `int`
        Number of values per pixel: of the input, after each layer, and of the output.
    """

    def __init__(self, widths):
        layers = []
        for width, next_width in pairwise(widths):
            layers += [PointwiseConvolution(width, next_width), nn.LeakyReLU(inplace=True)]
        super().__init__(*layers[:-1])

    def forward(self, values, n_outputs=None):
        """
        Return the outputs of each pixel.

        Parameters
        ----------
        values : `~torch.Tensor`
            Shape ``(batch, widths[0], ny, nx)``.
        n_outputs : `int`, optional
            How many of the outputs are wanted, the first ones; by default all.

        Returns
        -------
        `~torch.Tensor`
            Shape ``(batch, n_outputs, ny, nx)``.
        """
        if torch.is_grad_enabled() or not _has_onednn_layers(values.device.type, self[-1].weight.dtype):
            return super().forward(values)[:, :n_outputs].to(values.dtype)
        return self._fused(values, n_outputs)

    def _fused(self, values, n_outputs):
        """Each layer with its bias and leaky ReLU in one pass."""
        layer = torch.ops.mkldnn._linear_pointwise
        *hidden, last = self
        pixels = values.movedim(1, -1).flatten(0, -2).contiguous()
        for convolution, activation in zip(hidden[::2], hidden[1::2], strict=True):
            weight, slope = convolution.weight.flatten(1), [activation.negative_slope]
            pixels = layer(pixels.to(weight.dtype), weight, convolution.bias, "leaky_relu", slope, "")
        # With weights and pixels exchanged the product comes out channels first, as it is wanted.
        weight = last.weight[:n_outputs].flatten(1)
        outputs = layer(weight, pixels.to(weight.dtype), None, "none", [], "").to(values.dtype)
        outputs += last.bias[:n_outputs, None]
        return outputs.unflatten(1, (values.shape[0], *values.shape[2:])).movedim(1, 0)


class ScaledNetwork(nn.Module):
    """
    1×1 convolutions between a division by each pixel's brightness and a multiplication by it.

    Intensities over the channels' typical response are EM-like numbers. A pixel's brightness is the mean over channels
    of their moduli plus σ; the network sees intensity and σ over brightness, and what it answers is multiplied by
    brightness. It also sees the logarithm of the brightness, as dim and bright plasma are not of the same kind: the
    corona that is as dim as a coronal hole has not the hot plasma of an active region. The outputs are made positive by
    exp(x) below and x + 1 above zero.

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

    def __init__(self, channel_scale, n_bins, hidden=(64, 64)):
        super().__init__()
        scale = torch.as_tensor(np.asarray(channel_scale, dtype=np.float32)).reshape(1, -1, 1, 1)
        self.register_buffer("channel_scale", scale)
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
        intensity = intensity / self.channel_scale
        uncertainty = uncertainty / self.channel_scale
        brightness = (intensity.abs() + uncertainty).mean(dim=1, keepdim=True)
        level = 0.25 * (torch.log10(brightness).clamp(*_LEVELS) - 2)
        inputs = torch.cat([intensity / brightness, uncertainty / brightness, level], dim=1)
        outputs = self.layers(inputs, None if spread else self.n_bins)
        outputs = (torch.exp(outputs.clamp(_LEAST_OUTPUT, 0)) + outputs.clamp_min(0)) * brightness
        return outputs[:, : self.n_bins], outputs[:, self.n_bins :] if spread else None

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
    consistency : `~sunpy_deepem.consistency.ChannelConsistency`, optional
        What tells channels that do not fit the others.
    meta : `dict`, optional
        How it was made: training command, seed, package version. Values are strings.

    References
    ----------
    Wright et al., "DeepEM: A Deep Learning Approach for DEM Inversion", in HelioML, https://doi.org/10.5281/zenodo.3572099

    Examples
    --------
    >>> import numpy as np
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
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # what is raised depends on what is wrong with the file
            msg = f"{path} is no file of weights alone, and nothing else is read ({_first_line(error)})."
            raise ValueError(msg) from None
        module = ChapterNetwork()
        try:
            module.layers.load_state_dict(state)
        except (RuntimeError, TypeError, AttributeError) as error:
            msg = f"{path} does not hold the chapter's network, 6→300→300→18 ({_first_line(error)})."
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
        precision: str = "float32",
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
        precision : {"float32", "bfloat16"}, optional
            What all layers but the first are computed in. ``"bfloat16"`` is faster where the processor has it, and
            changes the EM by less than a percent in the median, far less than it is known to.
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
        tile = tile if device.type == "cpu" else max(tile, _GPU_TILE)
        sky = inputs[0].shape[1:]
        inputs = [None if values is None else values.reshape(len(CHANNELS), -1) for values in inputs]
        std = std and self.module.has_spread
        shape = (len(self.bins), inputs[0].shape[1])
        # NumPy asks for large memory pages, which are had sooner.
        outputs = [
            torch.empty(shape, device=intensity.device) if on_tensors else torch.from_numpy(np.empty(shape, np.float32))
            for _ in range(1 + std)
        ]
        module = self._module_in(precision).to(device).eval()

        def run(start):
            part = slice(start, start + tile)
            with torch.inference_mode():
                arrays, wrong = _usable(*(_tile_of(values, part, device) for values in inputs))
                for output, result in zip(outputs, module(*arrays, spread=std), strict=False):
                    _store(result[0, :, 0], output[:, part])
            return wrong

        starts = range(0, shape[1], tile)
        with _workers(device) as map_tiles:
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

    def deviation(self, intensity, uncertainty):
        """
        Return how far each channel is from what the other five foretell.

        Parameters
        ----------
        intensity, uncertainty : array-like
            DN s^-1 pix^-1, as for `predict`.

        Returns
        -------
        `~numpy.ndarray` or `None`
            In units of the spread of what is foretold and observed, `~numpy.float32`, of the shape of ``intensity``;
            NaN where a channel is not finite. `None` if the weights cannot tell.

        Raises
        ------
        TypeError, ValueError
            As `predict`.
        """
        if self.consistency is None:
            return None
        inputs = self._check_inputs(intensity, uncertainty)
        inputs = [np.asarray(values).reshape(len(CHANNELS), -1) for values in inputs]
        result = np.empty(inputs[0].shape, dtype=np.float32)
        device = torch.device("cpu")

        def run(start):
            part = slice(start, start + _TILE)
            with torch.inference_mode():
                arrays, _ = _usable(*(_tile_of(values, part, device) for values in inputs))
                result[:, part] = self.consistency.deviation(*(values[0, :, 0] for values in arrays)).numpy()

        with _workers(device) as map_tiles:
            list(map_tiles(run, range(0, result.shape[1], _TILE)))
        return result.reshape(np.shape(intensity))

    def _module_in(self, precision):
        """Return the network with all layers but the first, whose inputs are the measured ones, in ``precision``."""
        if precision not in _PRECISIONS:
            msg = f"precision must be one of {_PRECISIONS}, found {precision!r}."
            raise ValueError(msg)
        if precision == "float32":
            return self.module
        module = copy.deepcopy(self.module)
        for layer in list(module.layers)[1:]:
            layer.to(getattr(torch, precision))
        return module

    def _check_inputs(self, intensity, uncertainty):
        """Return both as arrays or tensors of the same shape, without copying them."""
        intensity = _check_array("intensity", intensity)
        if uncertainty is None and self.module.needs_uncertainty:
            msg = (
                "uncertainty is missing: this network weighs the channels by σ. ChannelStack gives one for every pixel."
            )
            raise ValueError(msg)
        uncertainty = None if uncertainty is None else _check_array("uncertainty", uncertainty)
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


def _consistency_of(state):
    """Take the tensors of a `ChannelConsistency` out of ``state`` and return it, or `None` if there is none."""
    tensors = {key: state.pop(key) for key in list(state) if key.startswith(_CONSISTENCY)}
    if not tensors:
        return None
    tensors = {key.removeprefix(_CONSISTENCY): value for key, value in tensors.items()}
    module = ChannelConsistency(tensors["channel_scale"], width=tensors["layers.0.bias"].shape[1])
    module.load_state_dict(tensors)
    return module


def _check_tensors(state, matrix, bins):
    if wrong := [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]:
        msg = f"tensors that are not finite: {', '.join(wrong)}"
        raise ValueError(msg)
    if matrix is not None and matrix.shape != (len(CHANNELS), len(bins)):
        msg = f"{_RESPONSE} of shape {tuple(matrix.shape)} for {bins!r}"
        raise ValueError(msg)


def _check_array(name, values):
    """Return ``values`` as an array or a tensor of real numbers."""
    if isinstance(values, torch.Tensor):
        if not values.is_complex():
            return values
        msg = f"{name} must be an array of real numbers, found {values.dtype}."
        raise TypeError(msg)
    return plain_array(values, name)


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
    given = [values for values in (intensity, uncertainty) if values is not None and values.numel()]
    # Sums and the least σ are quick to find, and show what is not finite anywhere.
    if all(torch.isfinite(values.sum()) for values in given) and (len(given) < 2 or uncertainty.amin() > 0):
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


@contextmanager
def _workers(device):
    """
    Give a ``map`` that works on several tiles at once, one thread to a tile.

    On a CPU a tile is too small to be shared out among threads: they would mostly wait for each other, the more so
    where the machine has other work to do. On a GPU each thread has a stream of its own, so that one tile is computed
    while others are copied.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        with ThreadPoolExecutor(_GPU_STREAMS, initializer=_use_stream, initargs=(device,)) as pool:
            yield pool.map
        torch.cuda.synchronize(device)
        return
    if device.type != "cpu":
        yield map
        return
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool.map
    finally:
        # Part of torch counts its threads for all of the process.
        torch.set_num_threads(threads)


def _use_stream(device):
    torch.cuda.set_stream(torch.cuda.Stream(device))


@cache
def _has_onednn_layers(device_type, dtype):
    """
    Whether PyTorch has oneDNN's linear layer with bias and activation for this processor.

    It is not of PyTorch's public interface, though what `torch.compile` makes rests on it.
    """
    if device_type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if "AVX" not in torch.backends.cpu.get_cpu_capability() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _first_line(error):
    """Return the kind and the first line of an error; torch's run to pages."""
    return ": ".join([type(error).__name__, *str(error).splitlines()[:1]])


def resolve_device(device):
    """Return the `torch.device` of a name, ``"auto"`` being a GPU where there is one; raise if it is not to be had."""
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        # One that cannot give a number back, as torch's 'meta', is of no use.
        torch.zeros(1, device=found).item()
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        msg = (
            f"device must be 'auto', 'cpu', 'cuda' or another that torch has here, found {str(device)!r} "
            f"({_first_line(error)}). Use 'auto' for a GPU where there is one."
        )
        raise ValueError(msg) from None
    return found
