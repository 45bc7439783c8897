"""
The ``deepem`` command, a thin layer over the Python interface.

Arguments are checked before the package's other modules are imported, which takes seconds.
"""

import signal
import sys
import threading
from contextlib import contextmanager

import click

from sunpy_deepem.cli.common import in_shell
from sunpy_deepem.cli.inversion import invert
from sunpy_deepem.cli.products import fetch, show, synthesize
from sunpy_deepem.cli.training import info, train

__all__ = ["main"]


class _Group(click.Group):
    """Prints expected errors as one line; other exceptions keep their traceback."""

    def invoke(self, ctx):
        try:
            with _clean_exit():
                return super().invoke(ctx)
        except (ValueError, TypeError, ImportError, OSError) as error:
            if ctx.params.get("traceback"):
                raise
            raise click.ClickException(in_shell(" ".join(str(error).split()))) from error


@contextmanager
def _clean_exit():
    """Exit by an exception when the system asks to, so that temporary files are removed."""

    def exit_(number, frame):
        sys.exit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return
    before = signal.signal(signal.SIGTERM, exit_)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sunpy_deepem")
@click.option("--traceback", is_flag=True, help="Show the traceback of errors.")
def main(traceback):
    """Differential emission measures from SDO/AIA maps."""


for _command in (invert, fetch, synthesize, show, train, info):
    main.add_command(_command)
