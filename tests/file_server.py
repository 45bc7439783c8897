"""An archive on the loopback interface with the layout of JSOC's synoptic archive, which can fail in many ways."""

import io
import threading
from collections import defaultdict
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources

from astropy.io import fits
from astropy.time import Time

from sunpy_deepem import CHANNELS

_ROOT = "/data/aia/synoptic/"
#: Path below an archive's URL, as in `sunpy.net.dataretriever.sources.aia_synopsis.AIASynopsisClient`
PATTERN = (
    _ROOT[1:] + "{{year:4d}}/{{month:2d}}/{{day:2d}}/H{{hour:2d}}00/"
    "AIA{{year:4d}}{{month:2d}}{{day:2d}}_{{hour:2d}}{{minute:2d}}_{{Wavelength:04d}}.fits"
)


@cache
def aia_file(channel, start, level=1.5):
    """Return the bytes of a file of the packaged sample with another start of the exposure."""
    source = resources.files("sunpy_deepem.data") / "aia_20140101" / f"AIA20140101_0000_{channel:04d}.fits"
    with (
        resources.as_file(source) as path,
        fits.open(path, disable_image_compression=True) as hdus,
        io.BytesIO() as buffer,
    ):
        header = hdus[1].header
        header["DATE-OBS"], header["T_OBS"], header["LVL_NUM"] = start, f"{start}Z", level
        hdus.writeto(buffer)
        return buffer.getvalue()


class Archive:
    """
    A web server with files and faults.

    Attributes
    ----------
    files : `dict`
        Content by path.
    faults : `dict`
        Faults of a path, one for each of its next requests: a status, ``"stall"``, ``"cut"`` (the connection breaks
        half-way) or the bytes of another answer.
    requests : `list` of `str`
        Paths that were requested with GET.
    """

    def __init__(self):
        self.files, self.faults, self.requests = {}, defaultdict(list), []
        self.released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self._server.server_port}/"

    def add(self, slot, channels=CHANNELS):
        """Add synoptic files of a time, such as "2014-01-01T00:02"."""
        for channel in channels:
            self.files[self.path(slot, channel)] = aia_file(channel, f"{slot}:01.12")

    @staticmethod
    def path(slot, channel):
        when = Time(slot)
        return f"{_ROOT}{when.strftime('%Y/%m/%d/H%H00/AIA%Y%m%d_%H%M')}_{channel:04d}.fits"

    def downloads(self):
        """Return the names of the files that were requested, not the listings of folders."""
        return [path.rpartition("/")[2] for path in self.requests if path.endswith(".fits")]

    def close(self):
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def _listing(self, folder):
        names = sorted({path[len(folder) :].partition("/")[0] for path in self.files if path.startswith(folder)})
        links = "".join(f'<a href="{name}">{name}</a>\n' for name in names)
        return f'<html><a href="?C=N;O=D">Name</a><a href="/data/">Parent Directory</a>\n{links}</html>'.encode()

    def _handler(self):
        archive = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self):
                self.answer(fault=None)

            def do_GET(self):
                archive.requests.append(self.path)
                faults = archive.faults[self.path]
                self.answer(faults.pop(0) if faults else None)

            def answer(self, fault):
                if fault == "stall":
                    archive.released.wait(30)
                    self.close_connection = True
                    return
                known = any(path.startswith(self.path) for path in archive.files)
                if isinstance(fault, int) or not known:
                    self.send_error(fault if isinstance(fault, int) else 404)
                    return
                listing = self.path.endswith("/")
                content = archive._listing(self.path) if listing else archive.files[self.path]
                content = fault if isinstance(fault, bytes) else content
                self.send_response(200)
                self.send_header("Content-Type", "text/html" if listing else "application/fits")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command == "HEAD":
                    return
                if fault == "cut":
                    content = content[: len(content) // 2]
                    self.close_connection = True
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        return Handler


@contextmanager
def open_archive():
    archive = Archive()
    try:
        yield archive
    finally:
        archive.close()
