"""Conversions of arrays and facts for files."""

import json

import numpy as np

__all__ = ["compact", "json_facts"]


def compact(data):
    """Return double precision as single if that is lossless, as in a cube from the network."""
    if data.dtype != np.float64:
        return data
    with np.errstate(over="ignore"):
        single = data.astype(np.float32)
    changed = data[single != data]
    return single if np.isnan(changed).all() else data


def json_facts(facts):
    """Return ``facts`` as JSON would return them: lists, texts and Python numbers."""
    return json.loads(json.dumps(facts, default=_jsonable))


def _jsonable(value):
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)
