"""The network of 1×1 convolutions: `DeepEM`. Arrays in, arrays out."""

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn
from tqdm.auto import tqdm

from sunpy_deepem._files import atomic_path
from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.temperature import LogTBins

__all__ = ["ChapterNetwork", "DeepEM", "PointwiseConvolution", "ScaledNetwork"]

# EM inside the network is in units of 10^25 cm^-5, as in the DeepEM chapter, to stay within single precision.
EM_UNIT = 1e25
_FORMAT = "sunpy_deepem weights 1"
_TILE = 8192
# Name of the folded response among the tensors of a file.
_RESPONSE = "response_matrix"
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
        weight = self.weight.flatten(1).expand(values.shape[0], -1, -1)
        return torch.baddbmm(self.bias[None, :, None], weight, values.flatten(2)).unflatten(2, values.shape[2:])


class ScaledNetwork(nn.Module):
    """
    1×1 convolutions between a division by each pixel's brightness and a multiplication by it.

    Intensities over the channels' typical response are EM-like numbers. A pixel's brightness is the mean over channels
    of their moduli plus σ; the network sees intensity and σ over brightness, and what it answers is multiplied by
    brightness. So an intensity and σ twice as large give exactly twice the EM. The outputs pass through a softplus,
    which is never negative.

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
        layers, width = [], 2 * scale.numel()
        for next_width in self.hidden:
            layers += [PointwiseConvolution(width, next_width), nn.LeakyReLU(inplace=True)]
            width = next_width
        self.layers = nn.Sequential(*layers, PointwiseConvolution(width, 2 * self.n_bins))

    def forward(self, intensity, uncertainty):
        """
        Return mean and spread of the EM in units of 10^25 cm^-5.

        Parameters
        ----------
        intensity, uncertainty : `~torch.Tensor`
            DN s^-1 pix^-1, shape ``(batch, 6, ny, nx)``.

        Returns
        -------
        em, spread : `~torch.Tensor`
            Shape ``(batch, n_bins, ny, nx)``.
        """
        intensity = intensity / self.channel_scale
        uncertainty = uncertainty / self.channel_scale
        brightness = (intensity.abs() + uncertainty).mean(dim=1, keepdim=True)
        inputs = torch.cat([intensity, uncertainty], dim=1) / brightness
        outputs = nn.functional.softplus(self.layers(inputs)) * brightness
        return outputs[:, : self.n_bins], outputs[:, self.n_bins :]

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
        layers, width = [], len(CHANNELS)
        for next_width in self.hidden:
            layers += [PointwiseConvolution(width, next_width), nn.LeakyReLU(inplace=True)]
            width = next_width
        self.layers = nn.Sequential(*layers, PointwiseConvolution(width, self.n_bins))

    def forward(self, intensity, uncertainty=None):
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

    def __init__(self, module, *, bins, response=None, meta=None):
        self.module = module.eval()
        self.bins = bins
        self.response_fingerprint = None if response is None else response.fingerprint
        self.response_matrix = None if response is None else np.array(response.matrix.value)
        self.meta = dict(meta or {})

    @classmethod
    def load(cls, source="default"):
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
        path = Path(source)
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
        if meta.pop("format", None) != _FORMAT:
            msg = f"{path} holds no weights of this package: its metadata lacks format={_FORMAT!r}. Use 'deepem train'."
            raise ValueError(msg)
        try:
            matrix = state.pop(_RESPONSE, None)
            architecture = json.loads(meta.pop("architecture"))
            bins = LogTBins(**json.loads(meta.pop("bins")))
            module = _ARCHITECTURES[architecture.pop("name")](**architecture)
            module.load_state_dict(state)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            msg = f"{path} holds weights that do not fit their own description ({error}). Train or download it again."
            raise ValueError(msg) from error
        network = cls(module, bins=bins)
        network.response_fingerprint = meta.pop("response_fingerprint", None)
        network.response_matrix = None if matrix is None else matrix.numpy()
        network.meta = meta
        return network

    @classmethod
    def from_helioml(cls, path):
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
        path = Path(path)
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

    def save(self, path, *, overwrite=False):
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
        state = {key: value.detach().cpu().contiguous() for key, value in self.module.state_dict().items()}
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

    def predict(self, intensity, uncertainty=None, *, device="auto", tile=_TILE, progress=False):
        """
        Return the emission measure of every pixel.

        Parameters
        ----------
        intensity : array-like
            DN s^-1 pix^-1, channels as in `sunpy_deepem.CHANNELS` along the first axis, shape ``(6, ...)``. A pixel in
            which a channel is not finite comes back as NaN.
        uncertainty : array-like
            σ of the intensity, positive, of the same shape and unit. Only the chapter's network does without.
        device : `str` or `torch.device`, optional
            ``"auto"`` for a GPU where there is one and else the CPU.
        tile : `int`, optional
            Pixels worked on at a time; the default stays in a CPU's cache.
        progress : `bool`, optional
            Whether to show a progress bar.

        Returns
        -------
        em, em_std : `~numpy.ndarray`
            Mean and standard deviation of the EM per bin in cm^-5, `~numpy.float32`, shape ``(18, ...)``. The latter is
            `None` for the chapter's network, which does not state it.

        Raises
        ------
        TypeError
            If an argument carries a unit.
        ValueError
            If shapes do not fit, or σ is not positive where the intensity is finite.
        """
        intensity, uncertainty = self._check_inputs(intensity, uncertainty)
        device = resolve_device(device)
        tile = tile if device.type == "cpu" else max(tile, 2**20)
        shape = intensity.shape[1:]
        intensity = torch.from_numpy(intensity.reshape(len(CHANNELS), -1))
        uncertainty = torch.from_numpy(uncertainty.reshape(len(CHANNELS), -1))
        n_pixels = intensity.shape[1]
        em = np.empty((len(self.bins), n_pixels), dtype=np.float32)
        std = np.empty_like(em) if self.module.has_spread else None
        module = self.module.to(device).eval()

        def run(start):
            part = slice(start, start + tile)
            with torch.inference_mode():
                results = module(*(array[None, :, None, part].to(device) for array in (intensity, uncertainty)))
                for out, result in zip((em, std), results, strict=True):
                    if out is not None:
                        np.multiply(result[0, :, 0].cpu().numpy(), np.float32(EM_UNIT), out=out[:, part])

        starts = range(0, n_pixels, tile)
        with _tile_threads(device) as map_tiles:
            for _ in tqdm(map_tiles(run, starts), total=len(starts), desc="DEM", unit="tile", disable=not progress):
                pass
        em, std = (None if array is None else array.reshape(len(self.bins), *shape) for array in (em, std))
        return em, std

    def _check_inputs(self, intensity, uncertainty):
        if uncertainty is not None:
            return _check_inputs(intensity, uncertainty)
        if self.module.needs_uncertainty:
            msg = (
                "uncertainty is missing: this network weighs the channels by σ. ChannelStack gives one for every pixel."
            )
            raise ValueError(msg)
        return _check_inputs(intensity, np.ones_like(intensity, dtype=np.float32))

    def __repr__(self):
        convolutions = [layer for layer in self.module.layers if isinstance(layer, PointwiseConvolution)]
        widths = [convolutions[0].in_channels, *(layer.out_channels for layer in convolutions)]
        shape = "→".join(str(width) for width in widths)
        return f"<DeepEM {self.module.name} {shape}, {self.bins!r}, response {self.response_fingerprint}>"


def _check_inputs(intensity, uncertainty):
    arrays = {}
    for name, values in (("intensity", intensity), ("uncertainty", uncertainty)):
        if getattr(values, "unit", None) is not None:
            msg = f"{name} must be a plain array, found one in {values.unit}. Pass .to_value('DN / (s pix)')."
            raise TypeError(msg)
        try:
            arrays[name] = np.ascontiguousarray(values, dtype=np.float32)
        except (TypeError, ValueError):
            msg = f"{name} must be an array of real numbers of shape (6, ...), found {type(values).__name__}."
            raise TypeError(msg) from None
    intensity, uncertainty = arrays["intensity"], arrays["uncertainty"]
    if intensity.ndim < 1 or intensity.shape[0] != len(CHANNELS):
        msg = f"intensity must have the six channels {CHANNELS} along its first axis, found shape {intensity.shape}."
        raise ValueError(msg)
    if uncertainty.shape != intensity.shape:
        msg = f"uncertainty must have the shape of intensity, {intensity.shape}, found {uncertainty.shape}."
        raise ValueError(msg)
    wrong = np.isfinite(intensity) & ~(uncertainty > 0)
    if wrong.any():
        msg = (
            f"uncertainty must be positive wherever intensity is finite; it is not in {np.count_nonzero(wrong)} of "
            f"{wrong.size} values. ChannelStack gives a σ for every pixel; mask a pixel by making its intensity NaN."
        )
        raise ValueError(msg)
    # A pixel needs all six channels; what is not finite in one would not reach every output by itself.
    bad = ~(np.isfinite(intensity) & np.isfinite(uncertainty)).all(axis=0)
    if bad.any():
        intensity = np.where(bad, np.float32(np.nan), intensity)
    return intensity, uncertainty


@contextmanager
def _tile_threads(device):
    """
    Give a ``map`` that works on several tiles at once, one thread to a tile.

    A tile is too small to be shared out among threads: they would mostly wait for each other, the more so where the
    machine has other work to do.
    """
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


def _first_line(error):
    """Return the kind and the first line of an error; torch's run to pages."""
    return ": ".join([type(error).__name__, *str(error).splitlines()[:1]])


def resolve_device(device):
    """Return the `torch.device` of a name, ``"auto"`` being a GPU where there is one; raise if it is not to be had."""
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        msg = f"device must be 'auto', 'cpu', 'cuda' or another that torch has here, found {device!r} ({error})."
        raise ValueError(msg) from None
    return device
