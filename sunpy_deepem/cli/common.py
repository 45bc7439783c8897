"""What several subcommands need."""

import logging
import re
import textwrap
from pathlib import Path

import click

from sunpy_deepem.utils.files import atomic_path, check_target

__all__ = ["check_output", "check_weights", "draw", "in_shell", "prepare_logs"]


def in_shell(text):
    """Return a message with options as they are given in the shell: ``--overwrite`` for ``overwrite=True``."""
    return re.sub(r"\b(overwrite|recursive)=True\b", r"--\1", text)


def prepare_logs(*, quiet=False):
    """
    Set what is logged, and how, until the command ends.

    Records of sunpy of single maps and, with ``quiet``, this package's progress are hidden. Warnings are plain text,
    and printed once: the package drms gives the root logger a handler of its own.
    """
    import sunpy  # whose logger must not be named before
    from astropy.logger import StreamHandler

    from sunpy_deepem.utils.logger import console, log

    levels, formatter = {each: each.level for each in (sunpy.log, log)}, console.formatter
    handlers, propagates = sunpy.log.handlers, sunpy.log.propagate

    def restore():
        sunpy.log.handlers, sunpy.log.propagate = handlers, propagates
        console.setFormatter(formatter)
        for each, level in levels.items():
            each.setLevel(level)

    click.get_current_context().call_on_close(restore)
    sunpy.log.setLevel(logging.WARNING)
    sunpy.log.handlers = [console, *(each for each in handlers if not isinstance(each, StreamHandler))]
    sunpy.log.propagate = False
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    console.setFormatter(_ShellFormatter())


class _ShellFormatter(logging.Formatter):
    """Formats records as plain text, as wide as a usual terminal."""

    def format(self, record):
        # sunpy's records begin with the class of a warning.
        text = re.sub(r"^\w+Warning: ", "", in_shell(record.getMessage()))
        lines = (text if record.levelno < logging.WARNING else f"Warning: {text}").splitlines()
        return "\n".join(textwrap.fill(line, 80, subsequent_indent="  ", break_long_words=False) for line in lines)


def check_weights(weights):
    """Raise if a weights file does not exist."""
    if weights.endswith(".safetensors") and not Path(weights).is_file():
        msg = f"There is no file {weights}."
        raise click.ClickException(msg)


def check_output(path, overwrite):
    """Raise if a file exists that may not be replaced, or its folder does not exist or cannot be written to."""
    try:
        check_target(path, overwrite=overwrite)
    except OSError as error:
        raise click.ClickException(in_shell(str(error))) from error


def draw(cube, path, *, overwrite):
    """Write the summary plot of a cube."""
    import matplotlib as mpl

    mpl.use("agg")
    with atomic_path(path, overwrite=overwrite) as partial:
        cube.plot_summary().savefig(partial, format="png", dpi=100)
