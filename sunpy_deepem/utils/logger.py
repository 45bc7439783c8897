"""The package's logger, with the habits of sunpy's."""

import logging
import sys
import threading
from contextlib import contextmanager

from astropy.logger import AstropyLogger, conf
from tqdm import tqdm

__all__ = ["console", "explained_wait", "log"]


class _Console(logging.Handler):
    """Writes records to standard error, above progress bars; standard output is for results."""

    def emit(self, record):
        try:
            tqdm.write(self.format(record), file=sys.stderr)
        except Exception:
            self.handleError(record)


def _init_log():
    """Return the logger, at astropy's default level unless its level is set already."""
    logger_class = logging.getLoggerClass()
    logging.setLoggerClass(AstropyLogger)
    try:
        logger = logging.getLogger("sunpy_deepem")
    finally:
        logging.setLoggerClass(logger_class)
    if logger.level == logging.NOTSET:
        logger.setLevel(conf.log_level)
    # A logger that was made before this import is not astropy's, whose records have an origin.
    console.setFormatter(
        logging.Formatter("%(levelname)s: %(message)s [%(origin)s]", defaults={"origin": "sunpy_deepem"})
    )
    logger.addHandler(console)
    # drms, which aiapy imports, adds a handler to the root logger, which would print every record again.
    logger.propagate = False
    return logger


# Waits that were explained; several threads may wait for the same.
_EXPLAINED: set[str] = set()

#: Handler that prints its records.
console = _Console()
#: Logger of this package, an `astropy.logger.AstropyLogger`.
log = _init_log()


@contextmanager
def explained_wait(message, seconds=3.0):
    """Log ``message``, once in a process, if the block takes longer than ``seconds``, as a context."""

    def explain():
        if message not in _EXPLAINED:
            _EXPLAINED.add(message)
            log.info(message)

    timer = threading.Timer(seconds, explain)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
