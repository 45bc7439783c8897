"""Archives of AIA files: what they hold, and the names of their files."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import astropy.units as u
from sunpy.net import Fido
from sunpy.net import attrs as a
from sunpy.net.dataretriever.sources.aia_synopsis import AIASynopsisClient
from sunpy.net.scraper import Scraper
from sunpy.time import TimeRange

from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.stack.headers import header_channel, observation_time
from sunpy_deepem.utils.fits import check_complete, headers

__all__ = ["ARCHIVES", "Archive", "Record", "iso"]


@dataclass(frozen=True, eq=False)
class Record:
    """A file of an archive, with its row in sunpy's table of results, or a file on disk, with its path."""

    channel: int
    seconds: float
    row: Any = None
    path: Path | None = None


@dataclass(frozen=True)
class Archive:
    """
    An archive.

    Attributes
    ----------
    name : `str`
        Name for messages.
    level : `float`
        LVL_NUM of its files.
    cadence : `float`
        Seconds between its images, the largest distance from the requested time.
    time_format : `str`
        Format of the time in the names of files.
    search : callable
        Takes start and end, `~astropy.time.Time`, and returns pairs of channel and row.
    """

    name: str
    level: float
    cadence: float
    time_format: str
    search: Callable

    def path(self, folder, record):
        """Return the path of a record in the folder."""
        stamp = datetime.fromtimestamp(round(record.seconds), UTC).strftime(self.time_format)
        return folder / f"AIA{stamp}_{record.channel:04d}.fits"

    def files(self, folder):
        """Return the records of the files in the folder, by their names."""
        records = []
        for path in folder.glob("AIA*_*_*.fits"):
            stamp, _, channel = path.stem.removeprefix("AIA").rpartition("_")
            try:
                seconds = datetime.strptime(stamp, self.time_format).replace(tzinfo=UTC).timestamp()
                record = Record(int(channel), seconds, path=path)
            except ValueError:
                continue
            if record.channel in CHANNELS and self.path(folder, record) == path:
                records.append(record)
        return records

    def check(self, path, records):
        """Return the record to which a file belongs, or raise `ValueError`."""
        channel, seconds, level = _content(path)
        for record in records:
            if (channel, level) == (record.channel, self.level) and abs(seconds - record.seconds) <= self.cadence / 2:
                return record
        msg = f"it holds {channel} Å of {iso(seconds)}, level {level:g}, which was not asked for"
        raise ValueError(msg)


def _search_synoptic(start, end):
    # With a wavelength, Fido.search does not find this client; without one, it also asks the VSO.
    client, query = AIASynopsisClient(), (a.Time(start, end), a.Instrument.aia, a.Level("1.5s"))
    found = client.search(*query)
    listings = Scraper(format=client.pattern).range(TimeRange(start, end))
    empty = [listing for listing in listings if not any(row["url"].startswith(listing) for row in found)]
    # sunpy takes a folder for empty if the server fails.
    if any(map(_exists, empty)):
        found = client.search(*query)
    return [(int(row["Wavelength"]), row) for row in found]


def _exists(url):
    """Whether a server has a folder; raise `OSError` if it does not say."""
    try:
        urlopen(url).close()
    except HTTPError as error:
        if error.code == HTTPStatus.NOT_FOUND:
            return False
        raise
    return True


def _search_vso(start, end):
    wavelengths = a.Wavelength(min(CHANNELS) * u.angstrom, max(CHANNELS) * u.angstrom)
    found = Fido.search(a.Time(start, end), a.Instrument.aia, a.Provider("JSOC"), wavelengths)
    rows = []
    for table in found:
        # The VSO client collects errors instead of raising them.
        if table.errors:
            msg = f"{type(table.errors[0]).__name__}: {table.errors[0]}"
            raise ConnectionError(msg)
        rows += [(round(row["Wavelength"][0].to_value(u.angstrom)), row) for row in table]
    return rows


def _content(path):
    """Return channel, start in seconds and level of a file, or raise `ValueError` if it is damaged."""
    try:
        with path.open("rb") as file:
            # Checksums of compressed files are often those of the image.
            check_complete(file, sums=False)
        header = next(header for header in headers(path) if "WAVELNTH" in header)
        channel, at = header_channel(header, path.name), observation_time(header, path.name)
        level = float(header["LVL_NUM"])
    except (ValueError, StopIteration, KeyError) as error:
        msg = f"{path.name} cannot be read as a map of AIA ({type(error).__name__}: {error})"
        raise ValueError(msg) from error
    return channel, at.unix, level


def iso(seconds):
    """Return a time in seconds as ISO text."""
    return datetime.fromtimestamp(round(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%S")


#: Archives by the level of their files.
ARCHIVES = {
    "1.5s": Archive("JSOC's synoptic archive", 1.5, 120.0, "%Y%m%d_%H%M", _search_synoptic),
    "1": Archive("the VSO", 1.0, 12.0, "%Y%m%d_%H%M%S", _search_vso),
}
