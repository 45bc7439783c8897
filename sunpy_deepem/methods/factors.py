"""Unknown constant factors of the channels' responses, as nuisance parameters."""

from collections.abc import Mapping

import numpy as np

from sunpy_deepem.utils.checks import real_number

__all__ = ["checked_factors", "draw_factors"]


def checked_factors(factors):
    """
    Return widths of factors by channel as a `dict` of `float`, empty for `None`.

    Raises
    ------
    TypeError
        If ``factors`` is no `dict`.
    ValueError
        If a width is negative or not finite.
    """
    if not isinstance(factors, Mapping | None):
        msg = f"factors must be a dict with a standard deviation of ln(factor) by channel, found {factors!r}."
        raise TypeError(msg)
    widths = {channel: real_number(width, f"factors[{channel!r}]") for channel, width in (factors or {}).items()}
    if bad := {channel: width for channel, width in widths.items() if not 0 <= width < np.inf}:
        msg = f"factors must be standard deviations of ln(factor), such as 0.2 for about 20 %, found {bad}."
        raise ValueError(msg)
    return widths


def draw_factors(factors, channels, n, seed):
    """
    Draw log-normal factors with median one.

    Parameters
    ----------
    factors : `dict`
        Standard deviation of ln(factor) by channel; the factor of other channels is one.
    channels : `tuple`
        Channels of the response.
    n : `int`
        Number of draws.
    seed : `int`, sequence of `int` or `~numpy.random.Generator`
        Source of randomness.

    Returns
    -------
    `~numpy.ndarray`
        ``float32``, shape ``(channels, n)``.

    Raises
    ------
    ValueError
        If ``factors`` names a channel that is not among ``channels``.
    """
    if unknown := [channel for channel in factors if channel not in channels]:
        msg = f"factors must be of the channels {channels}, found {unknown}."
        raise ValueError(msg)
    if not factors:
        return np.broadcast_to(np.float32(1), (len(channels), n))
    rng, result = np.random.default_rng(seed), np.ones((len(channels), n), dtype=np.float32)
    for channel, width in factors.items():
        result[channels.index(channel)] = np.exp(width * rng.standard_normal(n))
    return result
