"""``deepem invert``."""

import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from glob import has_magic
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import click

from sunpy_deepem.cli.common import check_output, check_weights, draw, prepare_logs
from sunpy_deepem.cli.watching import check_watch, watch_folder
from sunpy_deepem.utils.files import ARCHIVE_SUFFIX, atomic_path, check_distinct, cube_name, is_archive

__all__ = ["METHODS", "invert"]

# As in sunpy_deepem.methods, whose import takes longer than the help of this command.
METHODS = ("network", "basis-pursuit", "demregpy")
# Names of the files of samples.
_SAMPLES = {"real": "sample", "synthetic": "synthetic"}
# Suffixes of the files of cubes; other names are those of folders.
_CUBES = (".fits", ".fit", ".fts", ".fits.gz", ".asdf")


def _date(context, parameter, text):
    """Return a date in UTC as ISO text."""
    if text is None:
        return None
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        msg = f"must be a date such as 2014-01-01 or 2014-01-01T00:00, found {text!r}."
        raise click.BadParameter(msg) from None
    return (date if date.tzinfo is None else date.astimezone(UTC).replace(tzinfo=None)).isoformat()


def _part(context, parameter, text):
    """Return the two numbers of K/N."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not (found and 1 <= int(found[1]) <= int(found[2])):
        msg = f"must be K/N with 1 <= K <= N, such as 3/40, found {text!r}."
        raise click.BadParameter(msg)
    return int(found[1]), int(found[2])


def _channels(context, parameter, text):
    """Return channels in Å."""
    if text is None:
        return None
    if not re.fullmatch(r"\d+(,\d+)*", text):
        msg = f"must be wavelengths in Å such as 94,131,171,193,211, found {text!r}."
        raise click.BadParameter(msg)
    return tuple(map(int, text.split(",")))


def _quantiles(context, parameter, text):
    """Return numbers between 0 and 1."""
    if text is None:
        return ()
    try:
        found = tuple(map(float, text.split(",")))
    except ValueError:
        found = ()
    if not found or not all(0 <= one <= 1 for one in found):
        msg = f"must be numbers between 0 and 1 such as 0.16,0.5,0.84, found {text!r}."
        raise click.BadParameter(msg)
    return found


@click.command(short_help="Invert AIA maps or a sample.")
@click.argument("maps", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--sample",
    type=click.Choice(tuple(_SAMPLES)),
    is_flag=False,
    flag_value="real",
    help="Invert the packaged Sun of 2014-01-01 or a synthetic Sun instead of files.  [--sample alone: real]",
)
@click.option(
    "--date",
    callback=_date,
    metavar="DATE",
    help="Download and invert the six files nearest to a time, such as 2014-01-01T00:00.",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="FITS file to write; for maps of many times a folder, or an archive that ends in .zarr.  "
    "[default: deepem_DATE.fits]",
)
@click.option("--recursive", is_flag=True, help="Search subfolders for maps.")
@click.option(
    "--scheduler", help="Invert many times in 'threads', 'processes' or on a dask cluster at 'tcp://HOST:PORT'."
)
@click.option("--since", callback=_date, metavar="DATE", help="Leave out earlier maps, such as of 2014-01-01T00:00.")
@click.option(
    "--part", callback=_part, metavar="K/N", help="Invert every Nth set from the Kth on, as task K of N of a job array."
)
@click.option("--watch", is_flag=True, help="Invert sets of maps as they arrive in the folder MAPS, until Ctrl-C.")
@click.option(
    "--until-idle",
    type=click.FloatRange(min=0),
    metavar="MINUTES",
    help="With --watch: end when no map has arrived for so long.",
)
@click.option("--plot", is_flag=True, help="Also write a summary plot (PNG) beside each FITS file.")
@click.option(
    "--quantiles",
    callback=_quantiles,
    metavar="Q,...",
    help="Also write maps of these quantiles of the EM in four bands, such as 0.16,0.5,0.84, beside each FITS file.",
)
@click.option(
    "--region",
    nargs=4,
    type=float,
    metavar="LEFT BOTTOM RIGHT TOP",
    help="Part of the field, in arcsec from disk center.",
)
@click.option(
    "--channels",
    callback=_channels,
    metavar="Å,...",
    help="Use only these channels, at least three, such as 94,131,171,193,211.",
)
@click.option("--shape", default="512", show_default=True, help="Pixels along the longer side, or 'native'.")
@click.option("--systematic", default=0.1, show_default=True, help="Systematic error, as a fraction of intensity.")
@click.option("--degradation/--no-degradation", default=True, show_default=True, help="Correct for degradation.")
@click.option(
    "--method", type=click.Choice(METHODS), default="network", show_default=True, help="Method of the inversion."
)
@click.option("--weights", default="default", show_default=True, help="'default' or a weights file.")
@click.option("--device", default="auto", show_default=True, help="'auto', 'cpu' or 'cuda'.")
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
@click.option("-q", "--quiet", is_flag=True, help="Print no progress.")
def invert(maps, sample, date, out, plot, quantiles, shape, region, degradation, overwrite, quiet, **options):
    """
    Invert MAPS: six AIA FITS files, a folder with them, or files and folders of many times.

    Without MAPS, --date downloads them, and --sample inverts a sample.

    The output is a FITS file with the emission measure, its uncertainty, mask, quality and χ². Maps of many times are
    grouped into sets of channels; each set becomes a file in the folder --out, with a report.json, or a time of the
    archive --out. A repeated run skips the sets that are done, unless --overwrite is given.
    """

    def say(text):
        if not quiet:
            click.echo(text, err=True)

    options |= {"shape": _shape(shape), "degradation": "data" if degradation else None, "region": _region(region)}
    _check_sources(maps, sample, date)
    recursive, scheduler = options.pop("recursive"), options.pop("scheduler")
    selection = {name: options.pop(name) for name in ("since", "part")}
    selection = {name: value for name, value in selection.items() if value is not None}
    _check_selection(selection, sample, out)
    watch, until_idle = options.pop("watch"), options.pop("until_idle")
    if watch or until_idle is not None:
        check_watch(maps, out, given={"--watch": watch, "--part": "part" in selection, "--overwrite": overwrite})
    check_weights(options["weights"])
    _check_quantiles(quantiles, options)
    extras = _Extras(plot, quantiles, overwrite, say)
    _check_archive(out, sample, extras)
    if out is None and sample:
        out = Path(f"deepem_{_SAMPLES[sample]}.fits")
    into_folder = out is not None and _is_folder(out)
    if sample and into_folder:
        out.mkdir(parents=True, exist_ok=True)
        out, into_folder = out / f"deepem_{_SAMPLES[sample]}.fits", False
    if out is not None and not into_folder:
        extras.check(out)
    prepare_logs(quiet=quiet)
    if watch:
        options |= {"recursive": recursive, "scheduler": scheduler, "since": selection.get("since")}
        watch_folder(maps[0], out, until_idle, extras, options)
        return
    if date:
        from sunpy_deepem.fetch import fetch as fetch_files

        maps = fetch_files(date, progress=not quiet)
    source = _maps(maps, sample)
    if not sample:
        sets = _sets(maps, recursive, options["channels"])
        if selection or _is_series(sets, out):
            _invert_series(sets.select(**selection), out, scheduler, extras, quiet, options)
            return
        if len(sets.complete) == 1 and not sets.failed:
            source = sets.complete[0].sources
            out = Path(cube_name(sets.complete[0].time)) if out is None else out
        if sets.ignored:
            say(f"Ignored maps of other channels or times: {len(sets.ignored)}.")
    if out is not None:
        check_distinct(out, source)
        extras.check(out)
    say("Reading maps, calibrating, aligning, binning and inverting ...")
    from sunpy_deepem import invert as invert_maps

    # In memory, 4096 × 4096 pixels take 10 GB.
    streamed = options["shape"] is None and out is not None and out.suffix == ".fits" and find_spec("dask") is not None
    if streamed:
        options |= {"out": out, "overwrite": overwrite}
    cube = invert_maps(source, progress=not quiet, **options)
    if out is None:
        out = Path(cube_name(cube.date))
        extras.check(out)
    if not streamed:
        cube.write(out, overwrite=overwrite)
    say(f"Wrote {out}")
    extras.write(cube, out)


class _Extras(NamedTuple):
    """What is written beside the file of a cube."""

    plot: bool
    quantiles: tuple
    overwrite: bool
    say: Callable

    def names(self, path):
        """Return the paths of plots, and those of maps by band and quantile."""
        plots = [path.with_suffix(".png")] if self.plot else []
        if not self.quantiles:
            return plots, {}
        from sunpy_deepem.temperature import BANDS

        stem = path.name.removesuffix(".gz").rpartition(".")[0]
        name = "{}_em_{:g}-{:g}_q{:g}.fits"
        return plots, {(band, q): path.with_name(name.format(stem, *band, q)) for band in BANDS for q in self.quantiles}

    def check(self, path):
        """Check all output files before the inversion."""
        plots, maps = self.names(path)
        for one in (path, *plots, *maps.values()):
            check_output(one, self.overwrite)

    def write(self, cube, path):
        """Write plot and maps of a cube; those that exist are kept without ``overwrite``."""
        plots, maps = self._missing(path)
        for plot in plots:
            self.say("Drawing ...")
            draw(cube, plot, overwrite=self.overwrite)
            self.say(f"Wrote {plot}")
        if not maps:
            return
        self.say("Sampling the posterior ...")
        keys = self.names(path)[1]
        found = cube.band_maps(tuple(dict.fromkeys(band for band, _ in keys)), quantiles=self.quantiles)
        for key, smap in zip(keys, found, strict=True):
            if key in maps:
                with atomic_path(maps[key], overwrite=self.overwrite) as partial:
                    smap.save(partial, filetype="fits")
        self.say(f"Wrote {len(maps)} maps, {path.stem}_em_*.fits")

    def write_beside(self, path):
        """Write plot and maps of a cube in a file."""
        if any(self._missing(path)):
            from sunpy_deepem import DEMCube

            self.write(DEMCube.read(path), path)

    def _missing(self, path):
        """Return what `names` does, without files that are kept."""
        plots, maps = self.names(path)
        kept = [one for one in (*plots, *maps.values()) if one.exists() and not self.overwrite]
        return [one for one in plots if one not in kept], {key: one for key, one in maps.items() if one not in kept}


def _check_sources(paths, sample, date):
    if sum(map(bool, (paths, sample, date))) > 1:
        msg = "Give only one of MAPS, --sample and --date."
        raise click.UsageError(msg)
    if not (paths or sample or date):
        msg = "Give six FITS files or a folder, or --date to download them, or --sample for the packaged Sun."
        raise click.UsageError(msg)
    for path in paths:
        if not (path.exists() or has_magic(str(path))):
            msg = f"There is no file or folder {path}."
            raise click.ClickException(msg)


def _check_selection(selection, sample, out):
    names = " and ".join(f"--{name}" for name in selection)
    if selection and (sample or out is None):
        need = "maps of many times and a folder for their cubes, --out FOLDER"
        msg = f"{names} needs {need}." if len(selection) == 1 else f"{names} need {need}."
        raise click.UsageError(msg)


def _maps(paths, sample):
    if sample:
        from sunpy_deepem.sample import real_maps, sample_maps

        return real_maps() if sample == "real" else sample_maps()
    return paths[0] if len(paths) == 1 else paths


def _sets(paths, recursive, channels):
    from sunpy_deepem.series import group_maps

    return group_maps(paths, recursive=recursive, channels=channels)


def _is_series(sets, out):
    """Whether the maps are of many times, or the output is a folder or archive."""
    with_time = [each for each in sets.failed if each.time is not None]
    return (out is not None and _is_folder(out)) or bool(sets.complete and len(sets.complete) + len(with_time) > 1)


def _is_folder(out):
    """Whether --out is a folder or archive; raise if it is a file that is no cube."""
    if is_archive(out):
        return True
    if out.is_dir() or out.name.lower().endswith(_CUBES):
        return out.is_dir()
    if out.suffix[1:].isalpha() or out.is_file():
        msg = f"--out must be a folder or end in {', '.join((*_CUBES, ARCHIVE_SUFFIX))}, found {out.name}."
        raise click.UsageError(msg)
    return True


def _check_archive(out, sample, extras):
    """Raise if the options do not go with an archive."""
    if not is_archive(out):
        return
    for name, given in {"sample": sample, "plot": extras.plot, "quantiles": extras.quantiles}.items():
        if given:
            msg = f"--{name} needs --out to be a file or folder, found the archive {out.name}."
            raise click.UsageError(msg)


def _check_quantiles(quantiles, options):
    method, weights = options["method"], options["weights"]
    if quantiles and method != "network":
        msg = f"--quantiles are those of the network's posterior; {method} has none. Leave out --method or --quantiles."
        raise click.UsageError(msg)
    if not quantiles or weights == "default":
        return
    from sunpy_deepem import DeepEM

    if not DeepEM.load(weights).has_posterior:
        msg = f"--quantiles are those of the network's posterior; {weights} has none. Leave out --quantiles."
        raise click.UsageError(msg)


def _invert_series(sets, out, scheduler, extras, quiet, options):
    from sunpy_deepem.series import invert_series

    if out is None:
        msg = f"MAPS are of many times ({sets}). Name a folder for their cubes: --out FOLDER."
        raise click.UsageError(msg)
    report = invert_series(sets, out, scheduler=scheduler, overwrite=extras.overwrite, progress=not quiet, **options)
    for path in () if is_archive(out) else report.paths:
        extras.write_beside(path)
    if report.failed:
        sys.exit(1)


def _region(limits):
    """Return the limits of a field in arcsec as a quantity."""
    if limits is None or not len(limits):
        return None
    left, bottom, right, top = limits
    if not (left < right and bottom < top):
        msg = f"--region must be LEFT BOTTOM RIGHT TOP with LEFT < RIGHT and BOTTOM < TOP, found {limits}."
        raise click.UsageError(msg)
    import astropy.units as u

    return limits * u.arcsec


def _shape(text):
    if text == "native":
        return None
    try:
        return int(text)
    except ValueError:
        msg = f"--shape must be a whole number or 'native', found {text!r}."
        raise click.UsageError(msg) from None
