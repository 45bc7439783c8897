"""Functions for spawned processes, which cannot import test modules."""

import os
from pathlib import Path

from sunpy_deepem import invert
from sunpy_deepem.sample import sample_maps
from sunpy_deepem.utils.files import atomic_path


def inverted_sample(n):
    """Return the EM of the synthetic Sun of n × n pixels."""
    return invert(sample_maps((n, n))).data


def write_exclusively(path):
    """Write the number of the process once another process has also started to write; return it, and any error."""
    try:
        with atomic_path(path, overwrite=False) as partial:
            partial.write_text(str(os.getpid()))
            Path(f"{path}.{os.getpid()}.started").touch()
            while len(list(Path(path).parent.glob("*.started"))) < 2:
                pass
    except FileExistsError as error:
        return f"{os.getpid()} {error}"
    return str(os.getpid())
