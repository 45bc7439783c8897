"""A trained network: `DeepEM`. Arrays in, arrays out."""

import copy
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.methods.base import Solution, SolveStatus
from sunpy_deepem.network.draws import PosteriorDraws
from sunpy_deepem.network.layers import PRECISIONS, PointwiseConvolution, dtype_of
from sunpy_deepem.network.tiles import (
    CPU_TILE,
    GPU_TILE,
    check_array,
    empty_array,
    in_precision,
    pixel_tile,
    resolve_device,
    to_tensor,
    with_own_settings,
)
from sunpy_deepem.network.weights import (
    IN_USE,
    PACKAGED,
    Weights,
    fingerprint,
    read_helioml,
    read_weights,
    write_weights,
)
from sunpy_deepem.units import EM_SCALE
from sunpy_deepem.utils.checks import whole_number
from sunpy_deepem.utils.parallel import part_map, tile_map

__all__ = ["DeepEM"]

# Largest relative difference between responses that count as equal; rounding in tables and versions of aiapy is below.
_RESPONSE_TOLERANCE = 1e-3


class DeepEM(PosteriorDraws):
    """
    A trained network that turns intensities into emission measures.

    Parameters
    ----------
    module : `~torch.nn.Module`
        The network, as `ScaledNetwork`.
    bins : `LogTBins`
        Bins of its log T axis.
    response : `TemperatureResponse` or `None`
        The response of its training; `None` if unknown.
    consistency : `~sunpy_deepem.network.ChannelConsistency`, optional
        Network that finds channels that are inconsistent with the others.
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

    name = "network"
    # Options of `solve`, see `with_options`.
    _device, _progress = "auto", False

    def __init__(self, module, *, bins, response=None, consistency=None, meta=None):
        self._fill(
            Weights(
                module,
                bins,
                consistency=consistency,
                response_matrix=None if response is None else np.array(response.matrix.value),
                response_fingerprint=None if response is None else response.fingerprint,
                channels=CHANNELS if response is None else response.channels,
                meta=dict(meta or {}),
            )
        )

    def _fill(self, weights):
        self.module = weights.module.eval()
        self.consistency = None if weights.consistency is None else weights.consistency.eval()
        #: Names of the channels, in the order of the first axis of intensities.
        self.channels = weights.channels
        self.bins = weights.bins
        self.response_fingerprint, self.response_matrix = weights.response_fingerprint, weights.response_matrix
        self.meta = weights.meta
        self.posterior = None if weights.posterior is None else weights.posterior.eval()
        self.prior, self.prior_log_std = weights.prior, weights.prior_log_std

    #: Packaged name or path of the weights; `None` for a network made in this process.
    source: str | None = None
    # The network of which this is a copy with other options.
    _original: "DeepEM | None" = None

    @classmethod
    def from_weights(cls, weights) -> "DeepEM":
        """Return the network of a `~sunpy_deepem.network.weights.Weights`."""
        network = cls.__new__(cls)
        network._fill(weights)
        return network

    @classmethod
    def load(cls, source: str | Path = "default") -> "DeepEM":
        """
        Read weights.

        Parameters
        ----------
        source : `str` or `pathlib.Path`, optional
            ``"default"`` for the weights in the package, or the path of a ``.safetensors`` file.

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
        network = cls.from_weights(read_weights(source))
        # An absolute path, so that a cube finds its weights from another folder.
        network.source = str(source) if str(source) in PACKAGED else str(Path(source).absolute())
        return network

    @classmethod
    def from_helioml(cls, path) -> "DeepEM":
        """
        Read the weights that the DeepEM chapter of HelioML published.

        The network has the chapter's scaling and bins and does not use σ. It was trained on one image, for another
        response than the package's. Only tensors are read from the file; code in it does not run.

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
        return cls.from_weights(read_helioml(path))

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """
        Write the weights and how they were made, atomically.

        Parameters
        ----------
        path : `str` or `pathlib.Path`
            Where to write; usually ends in ``.safetensors``.
        overwrite : `bool`, optional
            Whether to replace an existing file.

        Raises
        ------
        FileExistsError
            If the file exists and ``overwrite`` is `False`.
        """
        write_weights(self, path, overwrite=overwrite)

    def with_options(self, *, device="auto", progress=False) -> "DeepEM":
        """
        Return the same network with other options of `solve`.

        Parameters
        ----------
        device : `str` or `torch.device`, optional
            As for `predict`.
        progress : `bool`, optional
            Whether to show a progress bar.

        Returns
        -------
        `DeepEM`
            It shares the weights with this one.
        """
        network = copy.copy(self)
        network._original = self._original or self
        network._device, network._progress = device, progress
        return network

    @property
    def provenance(self):
        """The weights and options of `solve`, for the provenance of a cube."""
        # The losses of each epoch are found with the weights.
        origin = {key: value for key, value in self.meta.items() if key != "history"}
        found = self.fingerprint
        # The original is alive as long as the user holds it.
        IN_USE[found] = self._original or self
        return {"network": origin, "weights": self.source, "fingerprint": found}

    @with_own_settings
    def solve(self, intensity, uncertainty, response, *, lower_limit=None):
        """
        Predict the EM and compare the channels.

        Parameters
        ----------
        intensity, uncertainty : array-like or `torch.Tensor`
            As for `predict`.
        response : `TemperatureResponse`
        lower_limit : array-like or `torch.Tensor` of `bool`, optional
            As for `predict`. Such a channel is not compared with the others.

        Returns
        -------
        `~sunpy_deepem.methods.Solution`
            Arrays of `~numpy.float32`.

        Raises
        ------
        TypeError, ValueError
            As of `predict` and `check_response`.
        """
        self.check_response(response)
        *inputs, lower_limit = self._check_inputs(intensity, uncertainty, lower_limit)
        # Inputs are copied to the device once, and results back once.
        device = resolve_device(self._device)
        intensity, uncertainty = (to_tensor(values, device) for values in inputs)
        em, em_std = self.predict(intensity, uncertainty, lower_limit=lower_limit, progress=self._progress)
        measured = intensity
        if lower_limit is not None:
            limited = torch.as_tensor(lower_limit, device=device)
            measured = intensity.masked_fill(limited, torch.nan)
        deviation = self.deviation(measured, uncertainty)
        em, em_std, deviation = (None if values is None else values.cpu().numpy() for values in (em, em_std, deviation))
        status = np.where(np.isnan(em[0]), SolveStatus.INVALID, SolveStatus.SOLVED).astype(np.int8)
        return Solution(em, em_std, status, deviation)

    def check_response(self, response):
        """
        Raise unless the network was trained for ``response``.

        Parameters
        ----------
        response : `TemperatureResponse`

        Raises
        ------
        ValueError
            If channels or bins differ, or the folded response differs by more than a thousandth.
        """
        if response.channels != self.channels:
            msg = f"response must have the channels of the network, {self.channels}, found {response.channels}."
            raise ValueError(msg)
        if response.bins != self.bins:
            msg = f"response is folded onto {response.bins!r}, but the network answers on {self.bins!r}."
            raise ValueError(msg)
        if self.response_matrix is None:
            return
        difference = np.abs(response.matrix.value / self.response_matrix - 1).max()
        if not difference <= _RESPONSE_TOLERANCE:
            msg = (
                f"response {response.fingerprint} is not the one this network was trained for "
                f"({self.response_fingerprint}); they differ by up to {difference:.1%}. Use the network's own, pass "
                "method='basis-pursuit', or train weights for this one with sunpy_deepem.training.train_on_prior."
            )
            raise ValueError(msg)

    @with_own_settings
    def predict(
        self,
        intensity,
        uncertainty=None,
        *,
        lower_limit=None,
        std: bool = True,
        device: str | torch.device = "auto",
        precision: str = "auto",
        tile: int = CPU_TILE,
        progress: bool = False,
    ):
        """
        Return the emission measure of every pixel.

        The network answers where σ is more than about 8 % of every intensity, in all usual cases. Where σ is less than
        4 % of an intensity, the answer is the mean of 64 draws as of `sample`, which fit such data and take far longer.
        The same applies to pixels with missing channels, often in flares, where the network does not fit the others (χ²
        above 2) but the draws do. In between, the answer changes gradually. In pixels with saturated channels it is
        always that of the draws.

        Parameters
        ----------
        intensity : array-like or `torch.Tensor`
            DN s^-1 pix^-1, channels of the network along the first axis, shape ``(channels, ...)``. A channel that is
            not finite in a pixel is left out there; pixels with fewer than three channels give NaN.
        uncertainty : array-like or `torch.Tensor`
            σ of the intensity, positive, of the same shape and unit; a channel with infinite σ is left out. Optional
            for the chapter's network only.
        lower_limit : array-like or `torch.Tensor` of `bool`, optional
            Where the intensity is a lower limit, as in saturated pixels, of the same shape.
        std : `bool`, optional
            Whether to compute ``em_std``; the EM alone is faster.
        device : `str` or `torch.device`, optional
            ``"auto"`` for a GPU where there is one, else the CPU; for a tensor its own device.
        precision : {"auto", "float32", "bfloat16"}, optional
            Precision of all layers but the first. ``"bfloat16"`` is faster on processors that support it and changes
            the EM by less than a percent in the median, far less than its uncertainty. ``"auto"`` uses it there,
            and ``"float32"`` elsewhere and for the chapter's network, to reproduce its published answers.
        tile : `int`, optional
            Pixels per tile; the default stays in a CPU's cache.
        progress : `bool`, optional
            Whether to show a progress bar.

        Returns
        -------
        em, em_std : `~numpy.ndarray`
            Posterior mean of the EM per bin in cm^-5, and half the width of its 68 % interval,
            `~numpy.float32`, shape ``(18, ...)``. ``em_std`` is `None` without ``std`` and for the chapter's network.
            Both are tensors on the device of ``intensity`` if that is a tensor.

        Raises
        ------
        TypeError
            If an argument carries a unit.
        ValueError
            If shapes do not fit, σ is not positive where the intensity is finite, or there is no such device or
            precision.
        """
        inputs = self._check_inputs(intensity, uncertainty, lower_limit)
        on_tensors = isinstance(intensity, torch.Tensor)
        device = intensity.device if on_tensors and str(device) == "auto" else resolve_device(device)
        tile = whole_number(tile, "tile")
        tile = tile if device.type == "cpu" else max(tile, GPU_TILE)
        sky = inputs[0].shape[1:]
        inputs = _flat(inputs)
        std = std and self.module.has_spread
        shape = (len(self.bins), inputs[0].shape[1])
        outputs = [empty_array(shape, intensity.device if on_tensors else "cpu") for _ in range(1 + std)]
        module = self._module_in(precision, device).to(device).eval()

        def run(start):
            part = slice(start, start + tile)
            with torch.inference_mode():
                arrays = pixel_tile(inputs, part, device)
                here = outputs[0].device == device
                out = (*outputs, None)[:2] if here else (None, None)
                results = module(*arrays, spread=std, scale=EM_SCALE, out=out, start=start)
                self._sharpen(results, arrays)
                if not here:
                    for output, result in zip(outputs, results, strict=False):
                        output[:, part] = result[0, :, 0]

        starts = range(0, shape[1], tile)
        with tile_map(device) as map_tiles:
            list(tqdm(map_tiles(run, starts), total=len(starts), desc="DEM", unit="tile", disable=not progress))
        outputs = [array.reshape(len(self.bins), *sky) for array in outputs]
        em, *rest = outputs if on_tensors else [array.numpy() for array in outputs]
        return em, rest[0] if rest else None

    @contextmanager
    def workers(self, device: str | torch.device | None = None):
        """
        Yield a ``map`` over parts of an image that works on several parts at once.

        On a CPU, `predict`, `deviation` and NumPy's linear algebra then stay on the thread that calls them, so that the
        cores share the parts.

        Parameters
        ----------
        device : `str` or `torch.device`, optional
            As for `predict`, by default that of `with_options`.

        Raises
        ------
        ValueError
            As `predict`.
        """
        with part_map(resolve_device(self._device if device is None else device)) as map_parts:
            yield map_parts

    @with_own_settings
    def deviation(self, intensity, uncertainty):
        """
        Return the deviation of each channel from the value that the other five predict.

        Parameters
        ----------
        intensity, uncertainty : array-like or `torch.Tensor`
            DN s^-1 pix^-1, as for `predict`.

        Returns
        -------
        `~numpy.ndarray`, `torch.Tensor` or `None`
            In units of the combined spread of prediction and observation, `~numpy.float32`, of the shape of
            ``intensity``; NaN where a channel is not finite. A tensor on the device of ``intensity`` if that is one.
            `None` if the weights include no consistency network.

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
        tile = CPU_TILE if device.type == "cpu" else GPU_TILE
        shape = inputs[0].shape
        inputs = _flat(inputs)
        result = empty_array(inputs[0].shape, device)
        consistency = in_precision(self.consistency, dtype_of("auto", device)).to(device)

        def run(start):
            part = slice(start, start + tile)
            with torch.inference_mode():
                *arrays, flags = pixel_tile(inputs, part, device)
                deviation = consistency.deviation(*(values[0, :, 0] for values in arrays))
                if flags is not None:
                    deviation.masked_fill_(flags.any(dim=1)[0], torch.nan)
                result[:, part] = deviation

        with tile_map(device) as map_tiles:
            list(map_tiles(run, range(0, result.shape[1], tile)))
        result = result.reshape(shape)
        return result if on_tensors else result.numpy()

    def _module_in(self, precision, device):
        """Return the network with ``precision`` in all layers but the first, which takes the measured values."""
        if precision not in PRECISIONS:
            msg = f"precision must be one of {PRECISIONS}, found {precision!r}."
            raise ValueError(msg)
        precision = self.module.usual_precision if precision == "auto" else precision
        return in_precision(self.module, dtype_of(precision, device))

    def _check_inputs(self, intensity, uncertainty, lower_limit=None):
        """Return the three as arrays or tensors of the same shape, without copying them."""
        intensity = check_array(intensity, "intensity")
        if uncertainty is None and self.module.needs_uncertainty:
            msg = (
                "uncertainty is missing: this network weighs the channels by σ. ChannelStack gives one for every pixel."
            )
            raise ValueError(msg)
        channels = self.n_channels
        if intensity.ndim < 1 or intensity.shape[0] != channels:
            msg = (
                f"intensity must have the {channels} channels of the network along its first axis, found shape "
                f"{tuple(intensity.shape)}."
            )
            raise ValueError(msg)
        others = []
        for name, values in (("uncertainty", uncertainty), ("lower_limit", lower_limit)):
            others.append(None if values is None else check_array(values, name))
            if values is not None and others[-1].shape != intensity.shape:
                msg = (
                    f"{name} must have the shape of intensity, {tuple(intensity.shape)}, found "
                    f"{tuple(others[-1].shape)}."
                )
                raise ValueError(msg)
        return intensity, *others

    @property
    def fingerprint(self) -> str:
        """Hash of all weights and their description."""
        return fingerprint(self)

    @property
    def n_channels(self) -> int:
        """Number of channels."""
        return len(self.channels)

    @property
    def widths(self) -> str:
        """Number of inputs, of features of each layer and of outputs, as ``"25→64→36"``."""
        convolutions = [layer for layer in self.module.layers if isinstance(layer, PointwiseConvolution)]
        widths = [convolutions[0].in_channels, *(layer.out_channels for layer in convolutions)]
        return "→".join(str(width) for width in widths)

    def __repr__(self):
        return f"<DeepEM {self.module.name} {self.widths}, {self.bins!r}, response {self.response_fingerprint}>"


def _flat(arrays):
    """Return arrays, or `None`, with all axes but the first in one."""
    return [None if values is None else values.reshape(len(values), -1) for values in arrays]
