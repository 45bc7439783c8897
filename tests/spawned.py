"""Functions for spawned processes, which cannot import test modules."""

import os
from pathlib import Path

import astropy.units as u
from astropy.time import Time
from helpers import true_cube

from sunpy_deepem import invert
from sunpy_deepem.io import DEMArchive
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


def append_cubes(path, numbers):
    """Append the synthetic Sun of 16 × 16 pixels, times one plus each number, that many minutes after 2014."""
    for number in numbers:
        DEMArchive(path).append(true_cube(n=16) * (1 + number), time=Time("2014-01-01") + number * u.min)


def append_forever(path):
    """Append the synthetic Sun of 16 × 16 pixels at later and later times."""
    archive, cube = DEMArchive(path), true_cube(n=16)
    time = archive.times[-1] if len(archive) else Time("2014-01-01")
    while True:
        time += 1 * u.min
        archive.append(cube, time=time)
