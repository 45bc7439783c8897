"""``deepem invert --watch``."""

import signal
import sys
import threading
from contextlib import contextmanager

import click

__all__ = ["check_watch", "watch_folder"]


def check_watch(maps, out, *, given):
    """
    Check the options of ``--watch``.

    Parameters
    ----------
    maps : sequence of `pathlib.Path`
    out : `pathlib.Path` or `None`
    given : `dict`
        Whether ``--watch`` is given, and other options that exclude it.
    """
    if not given.pop("--watch"):
        msg = "--until-idle needs --watch."
        raise click.UsageError(msg)
    if len(maps) != 1 or not maps[0].is_dir() or out is None or out.is_file():
        msg = "--watch needs one existing folder MAPS, and a folder for the cubes, --out FOLDER."
        raise click.UsageError(msg)
    if excluded := [name for name, is_given in given.items() if is_given]:
        msg = f"--watch excludes {', '.join(excluded)}. Leave one of them out."
        raise click.UsageError(msg)


def watch_folder(folder, out, until_idle, extras, options):
    """Invert what arrives in a folder; exit with status one if a set failed."""
    import astropy.units as u

    from sunpy_deepem.series import watch_series

    idle, failed = None if until_idle is None else until_idle * u.min, False
    # Short idle times need more frequent looks.
    interval = 5 * u.s if idle is None else min(5 * u.s, max(0.1 * u.s, idle / 4))
    with _stop_signals() as stop:
        for result in watch_series(folder, out, idle=idle, interval=interval, stop=stop, **options):
            failed |= result.status == "failed"
            if result.status == "done":
                extras.write_beside(result.path)
    if failed:
        sys.exit(1)


@contextmanager
def _stop_signals():
    """Yield an event that Ctrl-C and SIGTERM set; the second one interrupts."""
    stop = threading.Event()

    def on_signal(number, frame):
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread may handle signals
        return
    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
