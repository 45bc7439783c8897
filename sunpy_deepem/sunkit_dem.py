"""
The network as a model of sunkit-dem, which gives methods of inversion one interface, ``sunkit_dem.Model``.

It is imported by `register_model` only. It is not on PyPI: ``pip install git+https://github.com/sunpy/sunkit-dem``.
"""

import functools
import re

import astropy.units as u
import numpy as np
from astropy.nddata import StdDevUncertainty

from sunpy_deepem.channels import CHANNELS, INTENSITY_UNIT
from sunpy_deepem.forward import EM_UNIT
from sunpy_deepem.response import RESPONSE_UNIT, TemperatureResponse

__all__ = ["register_model"]

# AIA's counts are DN, and that they are per pixel often goes without saying.
_SAME_UNITS = (u.dimensionless_unscaled, u.DN / u.ct, u.pix**-1, u.DN / u.ct / u.pix)
# A kernel taken at the centres of the bins leaves its mean over them by up to 0.05 of its channel's maximum; one
# without the normalisation to SDO/EVE by 0.2.
_KERNEL_TOLERANCE = 0.1
_EDGE_TOLERANCE = 1e-3


@functools.cache
def register_model():
    """
    Make the network known to sunkit-dem as ``model="deepem"``.

    ``fit`` of the model takes ``weights``, ``device`` and ``refine``, as `sunpy_deepem.invert` does. What
    ``sunkit_dem.Model`` needs:

    - data: six cubes in DN s^-1 pix^-1, each pixel the mean, not the sum, of AIA's native ones, with uncertainties.
      Each key holds the wavelength of its channel, as ``"94"``, ``"171.0 Angstrom"`` or ``"AIA 335"`` do. By it
      channels are told, not by the order in which sunkit-dem sorts the keys.
    - temperature_bin_edges: those of the network, ``10**LogTBins().edges * u.K`` for the default.
    - kernel: the response of the network, one value for each bin, or at ``kernel_temperatures`` that reach beyond the
      bins.

    The result holds ``dem`` in cm^-5 K^-1 with its standard deviation and ``em`` in cm^-5, with χ² in their meta.

    Returns
    -------
    `type`
        The model, a subclass of ``sunkit_dem.GenericModel``; the same one however often it is asked for.

    Raises
    ------
    ImportError
        If sunkit-dem is not installed.

    Examples
    --------
    >>> import astropy.units as u
    >>> from sunpy_deepem import CHANNELS, LogTBins, TemperatureResponse
    >>> response = TemperatureResponse.default()
    >>> kernel = {str(channel): row for channel, row in zip(CHANNELS, response.matrix)}
    >>> edges = 10**LogTBins().edges * u.K
    >>> from sunkit_dem import Model  # doctest: +SKIP
    >>> register_model()  # doctest: +SKIP
    >>> Model(data, kernel, edges, model="deepem").fit()["dem"]  # doctest: +SKIP
    """
    try:
        from sunkit_dem import GenericModel
    except ImportError as error:
        msg = "sunkit-dem is not installed; it is not on PyPI: pip install git+https://github.com/sunpy/sunkit-dem."
        raise ImportError(msg) from error

    class DeepEMModel(GenericModel):
        """sunpy_deepem's network."""

        def _model(self, *, weights="default", device="auto", refine=None):
            self._meta, results = _fit(self, weights=weights, device=device, refine=refine)
            return results

        @classmethod
        def defines_model_for(cls, *args, **kwargs):
            """Return whether this is the model that was asked for."""
            return kwargs.get("model") == "deepem"

        def _make_dem_meta(self):
            return self._meta

    return DeepEMModel


def _fit(model, *, weights, device, refine):
    """Return the meta and the results of a fit of ``model``, a ``sunkit_dem.GenericModel``."""
    # torch is imported when it is needed
    from sunpy_deepem import refinement
    from sunpy_deepem.network import DeepEM

    network = weights if isinstance(weights, DeepEM) else DeepEM.load(weights)
    keys = _keys(model.kernel)
    _check_edges(model.temperature_bin_edges, network.bins)
    matrix = _matrix([model.kernel[key] for key in keys], model.kernel_temperatures, network.bins)
    if network.response_matrix is not None and not refine:
        _check_kernel(matrix, network.response_matrix)
        matrix = network.response_matrix
    cubes = [model.data[key] for key in keys]
    intensity, sigma = _arrays(keys, cubes)
    em, em_std = network.predict(intensity, sigma, device=device)
    updates = refinement.UPDATES if refine is None else refine
    em = refinement.refine(em, intensity, sigma, matrix, em_std=em_std, updates=updates)
    widths = network.bins.widths.reshape(-1, *[1] * (em.ndim - 1))
    em = em.astype(float) << EM_UNIT
    residual = (np.tensordot(matrix, em.value, axes=1) - intensity) / sigma
    meta = {"method": "sunpy_deepem", "network": network.meta, "chi_squared": np.mean(residual**2, axis=0)}
    std = None if em_std is None else (em_std.astype(float) << EM_UNIT) / widths
    return meta, {"dem": em / widths, "uncertainty": std, "em": em}


def _keys(keys):
    """Return the keys in channel order, each told by the wavelength in it."""
    found = {}
    for key in keys:
        channels = {float(number) for number in re.findall(r"\d+(?:\.\d+)?", str(key))} & set(CHANNELS)
        if len(channels) != 1 or channels & found.keys():
            break
        found[channels.pop()] = key
    if len(found) != len(keys) or found.keys() != set(CHANNELS):
        msg = f"kernel must have one key for each of {CHANNELS} Å, with the wavelength in it, found {list(keys)}."
        raise ValueError(msg)
    return [found[channel] for channel in CHANNELS]


def _check_edges(edges, bins):
    edges = np.log10(edges.to_value(u.K))
    if edges.shape != bins.edges.shape or not np.allclose(edges, bins.edges, rtol=0, atol=_EDGE_TOLERANCE):
        msg = (
            f"temperature_bin_edges must be those of the network, log T {bins.edges[0]} to {bins.edges[-1]} in "
            f"{len(bins)} bins, found {edges.round(3).tolist()}. Pass 10**LogTBins().edges * u.K."
        )
        raise ValueError(msg)


def _matrix(kernels, temperatures, bins):
    """Return the kernels folded onto the bins, shape ``(6, number of bins)``; one value per bin is taken as that."""
    kernels = u.Quantity([_converted(kernel, RESPONSE_UNIT, "kernel") for kernel in kernels])
    temperatures = u.Quantity(temperatures).to(u.K)
    one_per_bin = np.array_equal(np.searchsorted(10**bins.edges, temperatures.value), np.arange(len(bins)) + 1)
    return kernels.value if one_per_bin else TemperatureResponse(temperatures, kernels, bins=bins).matrix.value


def _check_kernel(matrix, expected):
    difference = (np.abs(matrix - expected) / expected.max(axis=1, keepdims=True)).max(axis=1)
    if not difference.max() <= _KERNEL_TOLERANCE:
        worst = int(np.argmax(difference))
        msg = (
            f"kernel is not the response for which the network was trained: that of {CHANNELS[worst]} Å differs by "
            f"{difference[worst]:.0%} of its maximum. Pass TemperatureResponse.default().matrix, or, if they are "
            "close, fit(refine=100), which moves the network's answer until it explains the data by the kernel."
        )
        raise ValueError(msg)


def _arrays(keys, cubes):
    """Return intensities and σ as arrays in DN s^-1 pix^-1, channels along the first axis, NaN where masked."""
    intensity, sigma = [], []
    for key, cube in zip(keys, cubes, strict=True):
        if cube.uncertainty is None:
            msg = f"data[{key!r}] has no uncertainty. Set it, for instance from aiapy.calibrate.estimate_error."
            raise ValueError(msg)
        std = cube.uncertainty.represent_as(StdDevUncertainty).array * (cube.uncertainty.unit or cube.unit)
        values = _converted(cube.data * cube.unit, INTENSITY_UNIT, f"data[{key!r}]").value
        intensity.append(values if cube.mask is None else np.where(cube.mask, np.nan, values))
        sigma.append(_converted(std, INTENSITY_UNIT, f"data[{key!r}].uncertainty").value)
    return np.stack(intensity), np.stack(sigma)


def _converted(quantity, unit, name):
    for factor in _SAME_UNITS:
        if (quantity.unit * factor).is_equivalent(unit):
            return (quantity * factor).to(unit)
    msg = f"{name} must be in {unit}, found {quantity.unit}. Divide counts by their exposure time."
    raise u.UnitConversionError(msg)
