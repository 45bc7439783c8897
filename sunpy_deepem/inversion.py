"""From six maps to a cube: `invert`."""

import numpy as np

from sunpy_deepem.cube import DEMCube
from sunpy_deepem.refinement import UPDATES
from sunpy_deepem.refinement import refine as refine_em
from sunpy_deepem.response import TemperatureResponse
from sunpy_deepem.stack import ChannelStack

__all__ = ["invert"]


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
        The response that the network was trained for, by default the packaged one.
    device : `str`, optional
        ``"auto"`` for a GPU where there is one, else the CPU.
    refine : `int`, optional
        The most updates by which `sunpy_deepem.refinement.refine` may move pixels of high χ² towards what was observed;
        zero leaves the network's answer as it is. If given, ``response`` may differ from the network's own.
    progress : `bool`, optional
        Whether to show a progress bar.
    **stack_options
        Passed to `ChannelStack.from_maps`: ``shape`` (default 512), ``systematic`` (0.1), ``degradation`` (`True`),
        ``correction_table``, ``epoch`` (by default the time for which the response holds), ``max_time_span``.

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
    response = TemperatureResponse.default(bins=network.bins) if response is None else response
    if not refine:
        network.check_response(response)
    stack = _stack(maps, stack_options, response.meta.get("obstime"))
    intensity = np.where(stack.mask, np.float32(np.nan), stack.intensity.value)
    em, em_std = network.predict(intensity, stack.uncertainty.value, device=device, progress=progress)
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
        quality=stack.quality,
        meta=stack.meta | {"method": "network", "network": network.meta, "refine": updates},
    )


def _stack(maps, options, epoch):
    """Return the stack of ``maps``, corrected for degradation to ``epoch``, that of the response."""
    if not isinstance(maps, ChannelStack):
        return ChannelStack.from_maps(maps, **({"epoch": epoch} | options))
    if options:
        msg = f"maps is a ChannelStack already; {sorted(options)} must be given to ChannelStack.from_maps instead."
        raise TypeError(msg)
    if maps.meta.get("degradation") and maps.meta.get("epoch") != epoch:
        msg = (
            f"maps is a ChannelStack corrected for degradation to {maps.meta.get('epoch') or 'launch'}, but response "
            f"holds for {epoch or 'launch'}. Pass epoch={epoch!r} to ChannelStack.from_maps."
        )
        raise ValueError(msg)
    return maps
