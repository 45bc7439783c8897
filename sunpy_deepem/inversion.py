"""From six maps to a cube: `invert`."""

import astropy.units as u
import numpy as np
from astropy.time import Time

from sunpy_deepem.cube import DEMCube
from sunpy_deepem.forward import EM_UNIT, chi_squared
from sunpy_deepem.quality import HIGH_CHI2, Quality
from sunpy_deepem.refinement import UPDATES
from sunpy_deepem.refinement import refine as refine_em
from sunpy_deepem.response import TemperatureResponse
from sunpy_deepem.stack import ChannelStack

__all__ = ["invert"]

# Degradation does not change noticeably within this time.
_SAME_EPOCH = 1 * u.day


def invert(maps, *, weights="default", response=None, device="auto", refine=None, progress=False, **stack_options):
    """
    Return the emission measure of the corona from six AIA maps.

    Parameters
    ----------
    maps : `~sunpy.map.MapSequence`, path of a folder, iterable of `~sunpy.map.GenericMap` or paths, or `ChannelStack`
        One map of each of 94, 131, 171, 193, 211 and 335 Å, in any order.
    weights : `str`, `pathlib.Path` or `DeepEM`, optional
        ``"default"``, the path of a weights file, or a network.
    response : `TemperatureResponse`, optional
        The response that the network was trained for, by default the packaged one; with ``degradation="response"`` that
        of the date of the observation.
    device : `str`, optional
        ``"auto"`` for a GPU where there is one, else the CPU.
    refine : `int`, optional
        The most updates by which `sunpy_deepem.refinement.refine` may move pixels of high χ² towards what was observed;
        zero leaves the network's answer as it is. If given, ``response`` may differ from the network's own.
    progress : `bool`, optional
        Whether to show a progress bar.
    **stack_options
        Passed to `ChannelStack.from_maps`: ``shape`` (default 512), ``systematic`` (0.1), ``degradation`` (``"data"``),
        ``correction_table``, ``epoch`` (by default the time for which the response holds), ``max_time_span``, ...

    Returns
    -------
    `DEMCube`
        EM per bin of log T in cm^-5, with uncertainty, mask, χ² and quality. Pixels that miss a channel or are
        saturated are NaN and masked.

    Raises
    ------
    TypeError, ValueError, FileNotFoundError
        If the maps, weights, response or options do not fit; the message says what was found and expected.

    References
    ----------
    Wright et al., "DeepEM: A Deep Learning Approach for DEM Inversion", in HelioML, https://doi.org/10.5281/zenodo.3572099

    Examples
    --------
    >>> from sunpy_deepem import invert
    >>> from sunpy_deepem.sample import sample_maps
    >>> dem = invert(sample_maps((64, 64)))
    >>> dem.shape
    (18, 64, 64)
    """
    from sunpy_deepem.network import DeepEM  # torch is imported when it is needed

    network = weights if isinstance(weights, DeepEM) else DeepEM.load(weights)
    stack, response = _stack_and_response(maps, response, stack_options, network.bins)
    network.check_response(response, exact=not refine)
    intensity = np.where(stack.mask, np.float32(np.nan), stack.intensity.value)
    em, em_std = network.predict(intensity, stack.uncertainty.value, device=device, progress=progress)
    first_chi2 = chi_squared(em.astype(float) * EM_UNIT, stack.intensity, stack.uncertainty, response)
    unusual = np.where(first_chi2 > HIGH_CHI2, Quality.UNUSUAL, 0).astype(np.uint16)
    updates = UPDATES if refine is None else refine
    em = refine_em(em, intensity, stack.uncertainty.value, response.matrix.value, updates=updates)
    return DEMCube.from_arrays(
        em,
        em_std,
        response,
        stack.header,
        stack.inputs,
        intensity=stack.intensity,
        uncertainty=stack.uncertainty,
        quality=stack.quality | unusual,
        saturation=stack.saturation,
        meta=stack.meta | {"method": "network", "network": network.meta, "refine": updates},
    )


def _stack_and_response(maps, response, options, bins):
    """Return the stack and the response that holds for it: degradation is corrected in one of the two, and once."""
    given = isinstance(maps, ChannelStack)
    if given and options:
        msg = f"maps is a ChannelStack already; {sorted(options)} must be given to ChannelStack.from_maps instead."
        raise TypeError(msg)
    by_response = (maps.meta if given else options).get("degradation") == "response"
    if response is None and not by_response:
        response = TemperatureResponse.default(bins=bins)
    epoch = None if response is None else response.meta.get("obstime")
    options = options if by_response else {"epoch": epoch} | options
    stack = maps if given else ChannelStack.from_maps(maps, **options)
    if response is None:
        return stack, TemperatureResponse.default(bins=bins, obstime=stack.header["date-obs"])
    _check_epoch(stack, epoch)
    return stack, response


def _check_epoch(stack, epoch):
    """Raise if degradation is corrected twice, or not at all."""
    how, corrected_to = stack.meta.get("degradation"), stack.meta.get("epoch")
    if how == "data" and corrected_to != epoch:
        msg = (
            f"The intensities are corrected for degradation to {corrected_to or 'launch'}, but response holds for "
            f"{epoch or 'launch'}. Pass epoch={epoch!r} to ChannelStack.from_maps, or another response."
        )
        raise ValueError(msg)
    if how != "response":
        return
    observed = Time(stack.header["date-obs"])
    if epoch is None or abs(Time(epoch) - observed) > _SAME_EPOCH:
        msg = (
            f"With degradation='response' the intensities are not corrected, but response holds for "
            f"{epoch or 'launch'}, not for the observation of {observed.isot}. Pass "
            f"TemperatureResponse.default(obstime={observed.isot!r})."
        )
        raise ValueError(msg)
