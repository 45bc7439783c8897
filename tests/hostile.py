"""
Tables of bad input. Each row is a test and a row of docs/topics/hostile_inputs.rst.

``python tests/hostile.py`` writes the page.
"""

import errno
import functools
import importlib.util
import inspect
import re
import sys
import traceback
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import astropy.units as u
import numpy as np
import pytest
from helpers import six, true_cube
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save

from sunpy_deepem import DeepEM, TemperatureResponse
from sunpy_deepem.training import DEMPrior, TrainingSet

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "topics" / "hostile_inputs.rst"
#: Order of the tables on the page
FOLDERS = (
    "stack",
    "calibrate",
    "series",
    ".",
    "network",
    "methods",
    "response",
    "cube",
    "analysis",
    "visualization",
    "io",
    "training",
    "sample",
)
#: Values of many types, for arguments that accept few of them
ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.lists(st.floats(), max_size=3)
)
QUICK = settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])


# ---------------------------------------------------------------------------------------------------------------------
# Tables
# ---------------------------------------------------------------------------------------------------------------------


class ExitStatus(Exception):
    """A command failed, with this status and message."""


class Table:
    """
    A table of the page. Calling it parametrizes a test by rows of the table.

    A row holds a description of the input, the input, and the outcome: an exception with a part of its message, or a
    text that describes a valid answer. The test takes the input as ``value``, unless rows have none, and the exception
    as a context ``expected``. ::

        @table("invert(maps)", ("nothing", [], ValueError("found 0 maps")))
        def test_maps(value, expected):
            with expected:
                invert(value)
    """

    def __init__(self, title):
        self.title = title
        self.rows = []

    def __call__(self, call, *rows):
        self.rows += [(call, given, outcome) for given, *_, outcome in rows]

        def decorate(test):
            names = [name for name in ("value", "expected") if name in inspect.signature(test).parameters]
            cases = []
            for given, *value, outcome in rows:
                contexts = [_Raises(outcome)] if "expected" in names else []
                cases.append(pytest.param(*value, *contexts, id=f"{call} {given}"))
            test = pytest.mark.usefixtures("folder")(test)
            return pytest.mark.parametrize(names, cases)(test) if names else test

        return decorate


class _Raises:
    """Context that expects an exception with a message, raised by this package; unlike ``raises``, it is reusable."""

    def __init__(self, expected):
        self._expected = expected

    def __enter__(self):
        self._context = pytest.raises(type(self._expected))
        self._found = self._context.__enter__()

    def __exit__(self, *exception):
        self._context.__exit__(*exception)
        self._check(self._found.value)
        return True

    def _check(self, error):
        *status, message = self._expected.args
        if status:
            assert error.args[0] == status[0], error
        assert message in " ".join(str(error.args[-1] if status else error).split())
        last = Path(traceback.extract_tb(error.__traceback__)[-1].filename).as_posix()
        assert "/torch/" not in last
        assert "/numpy/" not in last


# ---------------------------------------------------------------------------------------------------------------------
# Valid input
# ---------------------------------------------------------------------------------------------------------------------


def maps(value=200.0, dtype=float, **cards):
    """Make six maps of 8 × 8 equal pixels."""
    return six(np.full((8, 8), value, dtype=dtype), **cards)


def pixels():
    return np.tile(np.array([0.8, 4.5, 140, 170, 50, 2.7], dtype=np.float32)[:, np.newaxis], 4)


@functools.cache
def cube():
    return true_cube(n=8)


@functools.cache
def response():
    return TemperatureResponse.default()


@functools.cache
def network():
    return DeepEM.load()


@functools.cache
def training_set():
    return TrainingSet.from_prior(DEMPrior(), response(), 64, seed=0)


# ---------------------------------------------------------------------------------------------------------------------
# Damaged files
# ---------------------------------------------------------------------------------------------------------------------


def junk(content=b"hello", name="junk.fits"):
    path = Path(name).absolute()
    path.write_bytes(content)
    return path


def cube_file(change=lambda content: content):
    """Write a cube to a file and change its bytes."""
    path = Path("dem.fits").absolute()
    cube().write(path, overwrite=True)
    path.write_bytes(change(path.read_bytes()))
    return path


def weights_file(*, tensors=None, drop=(), **metadata):
    """Write weights with changed tensors or metadata."""
    meta, state = _saved_weights()
    state = state if tensors is None else {key: tensors(key, tensor) for key, tensor in state.items()}
    meta = {key: value for key, value in (meta | metadata).items() if key not in drop}
    return junk(save(state, metadata=meta), "changed.safetensors")


@functools.cache
def _saved_weights():
    path = Path("good.safetensors")
    network().save(path)
    with safe_open(path, framework="pt") as file:
        found = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    path.unlink()
    return found


# ---------------------------------------------------------------------------------------------------------------------
# Failures of the machine
# ---------------------------------------------------------------------------------------------------------------------


@contextmanager
def full_disk():
    """Limit the size of files to some kilobytes; a write beyond it fails as on a full disk."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def interrupted():
    """Press Ctrl-C when a file is complete but does not have its final name."""
    return mock.patch("os.replace", side_effect=KeyboardInterrupt)


def read_only():
    """Make folders read-only, also for the superuser."""
    return mock.patch("os.access", return_value=False)


def offline():
    return mock.patch("socket.getaddrinfo", side_effect=OSError(errno.ENETUNREACH, "Network is unreachable"))


@contextmanager
def existing_file():
    """Assert that an existing file stays as it was, with no other file beside it."""
    path = Path("old.fits").absolute()
    path.write_bytes(b"existing content")
    try:
        yield path
    finally:
        assert path.read_bytes() == b"existing content"
        assert list(path.parent.iterdir()) == [path]


NOT_NUMBERS = "intensity must be an array of real numbers"
#: Rows for every function that takes intensities of shape (6, ...)
INTENSITIES = (
    ("``None``", None, TypeError(NOT_NUMBERS)),
    ("strings", [["a"] * 4] * 6, TypeError(NOT_NUMBERS)),
    ("complex numbers", np.full((6, 4), 1j), TypeError(NOT_NUMBERS)),
    ("rows of different lengths", [[1, 2], [3]] * 3, TypeError(NOT_NUMBERS)),
    ("in kelvin", np.ones((6, 4)) * u.K, TypeError("intensity must be a plain array, found one in K")),
    ("five channels", np.ones((5, 4)), ValueError("intensity must have")),
    ("channels last", np.ones((4, 6)), ValueError("intensity must have")),
)
#: Rows for every function that replaces a file
WRITE_FAILURES = (
    ("a disk that fills up", full_disk, OSError("could not be written")),
    ("a folder without write permission", read_only, PermissionError("cannot be written to. Choose another")),
    ("Ctrl-C meanwhile", interrupted, KeyboardInterrupt("")),
)


# ---------------------------------------------------------------------------------------------------------------------
# The page
# ---------------------------------------------------------------------------------------------------------------------

HEAD = """\
What happens with bad input
===========================

.. Written by "python tests/hostile.py" from tests/*/test_hostile.py

The package either gives a correct answer or raises an error that names the argument, the value found and what was
expected. Files are written completely or not at all, and an existing file is replaced only by a complete one. An
interrupted training resumes from its checkpoint. Each row below is a test; messages are quoted in part.

Three scripts of the repository look for more: ``tools/fuzz_headers.py`` changes header cards at random,
``tools/kill_runs.py`` kills runs at random moments and runs them again, and ``tools/stress.py`` uses a cube in threads
and processes at once. Of the 10,000 changes with seed 0, 6,765 end in an error that names the card or what it
determines, 3,032 in the same answer, and 203 in such a warning that also names the channel. No file was half-written or
left over after 100 kills, and all results equalled those of one thread.

The ``deepem`` command prints the same messages without a traceback (``deepem --traceback`` shows it). Its exit status
is 1, or 2 for a wrong command line.
"""


def page():
    """Return the text of the page."""
    tables = {}
    paths = TESTS.rglob("test_hostile.py")
    for path in sorted(paths, key=lambda path: FOLDERS.index(path.parent.relative_to(TESTS).as_posix())):
        for table in _tables(path):
            tables.setdefault(table.title, []).extend(table.rows)
    lines = [HEAD]
    for title, rows in tables.items():
        lines += [title, "-" * len(title), "", ".. list-table::", "   :header-rows: 1", "   :widths: 32 24 44", ""]
        lines += ["   * - Call", "     - Input", "     - Outcome"]
        for call, given, outcome in rows:
            lines += [f"   * - ``{call}``", f"     - {given}", f"     - {_outcome(outcome)}"]
        lines.append("")
    return "\n".join(lines)


def _tables(path):
    spec = importlib.util.spec_from_file_location(f"hostile_{path.parent.name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [value for value in vars(module).values() if isinstance(value, Table)]


def _outcome(outcome):
    if isinstance(outcome, str):
        return outcome
    *status, message = outcome.args
    kind = f"Exit status {status[0]}" if status else f"``{type(outcome).__name__}``"
    message = re.sub(r"([*_`|])", r"\\\1", message)
    return f"{kind}: {message}" if message else f"{kind}; the existing file is unchanged"


if __name__ == "__main__":
    # The tests import this module under its name
    sys.modules["hostile"] = sys.modules["__main__"]
    PAGE.write_text(page(), encoding="utf-8")
