"""Networks found again by the fingerprint of their weights, as a cube needs for its posterior draws."""

from functools import lru_cache

from sunpy_deepem.network.model import DeepEM
from sunpy_deepem.network.weights import IN_USE

__all__ = ["find_network"]


def find_network(source, fingerprint):
    """
    Return the network of a fingerprint: one in use in this process, or read from its source.

    Parameters
    ----------
    source : `str` or `None`
        As for `DeepEM.load`; `None` for a network that was not read from a file.
    fingerprint : `str`
        The fingerprint of the network.

    Returns
    -------
    `DeepEM`

    Raises
    ------
    ValueError
        If there is no network with this fingerprint.
    """
    return IN_USE.get(fingerprint) or _read(source, fingerprint)


@lru_cache(maxsize=4)
def _read(source, fingerprint):
    try:
        found = None if source is None else DeepEM.load(source)
    except (OSError, ValueError):
        found = None
    if found is None or found.fingerprint != fingerprint:
        msg = (
            f"The weights {source!r} with fingerprint {fingerprint} are not found: the file is missing or has changed. "
            "Pass method=DeepEM.load(path) with the weights that made the cube."
        )
        raise ValueError(msg)
    return found
