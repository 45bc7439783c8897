"""
The ``deepem`` command, a thin layer over the Python interface.

Arguments are checked before the package's other modules are imported, which takes seconds.
"""

import re
import shlex
import signal
import sys
import threading
import webbrowser
from contextlib import contextmanager
from datetime import UTC, datetime
from glob import has_magic
from pathlib import Path

import click

from sunpy_deepem.utils.files import atomic_path, check_distinct

__all__ = ["main"]

# As in sunpy_deepem.methods, whose import takes longer than the help of this command.
_METHODS = ("network", "basis-pursuit", "demregpy")
# Names of the files of samples.
_SAMPLES = {"real": "sample", "synthetic": "synthetic"}
# Suffixes of the files of cubes; other names are those of folders.
_CUBES = (".fits", ".fit", ".fts", ".fits.gz", ".asdf")


class _Group(click.Group):
    """Prints expected errors as one line; other exceptions keep their traceback."""

    def invoke(self, ctx):
        try:
            with _clean_exit():
                return super().invoke(ctx)
        except (ValueError, TypeError, ImportError, OSError) as error:
            if ctx.params.get("traceback"):
                raise
            raise click.ClickException(" ".join(str(error).split())) from error


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


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sunpy_deepem")
@click.option("--traceback", is_flag=True, help="Show the traceback of errors.")
def main(traceback):
    """Differential emission measures from SDO/AIA maps."""


@main.command(short_help="Invert AIA maps or a sample.")
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
    help="FITS file to write; a folder for maps of many times.  [default: deepem_DATE.fits]",
)
@click.option("--recursive", is_flag=True, help="Search subfolders for maps.")
@click.option(
    "--scheduler", help="Invert many times in 'threads', 'processes' or on a dask cluster at 'tcp://HOST:PORT'."
)
@click.option("--since", callback=_date, metavar="DATE", help="Leave out earlier maps, such as of 2014-01-01T00:00.")
@click.option(
    "--part", callback=_part, metavar="K/N", help="Invert every Nth set from the Kth on, as task K of N of a job array."
)
@click.option("--plot", is_flag=True, help="Also write a summary plot (PNG) beside the FITS file.")
@click.option("--shape", default="512", show_default=True, help="Pixels along the longer side, or 'native'.")
@click.option("--systematic", default=0.1, show_default=True, help="Systematic error, as a fraction of intensity.")
@click.option("--degradation/--no-degradation", default=True, show_default=True, help="Correct for degradation.")
@click.option(
    "--method", type=click.Choice(_METHODS), default="network", show_default=True, help="Method of the inversion."
)
@click.option("--weights", default="default", show_default=True, help="'default' or a weights file.")
@click.option("--device", default="auto", show_default=True, help="'auto', 'cpu' or 'cuda'.")
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
@click.option("-q", "--quiet", is_flag=True, help="Print no progress.")
def invert(maps, sample, date, out, plot, shape, degradation, overwrite, quiet, **options):
    """
    Invert MAPS: six AIA FITS files, a folder with them, or files and folders of many times.

    Without MAPS, --date downloads them, and --sample inverts a sample.

    The output is a FITS file with the emission measure, its uncertainty, mask, quality and χ². Maps of many times are
    grouped into sets of six channels; each set becomes a file in the folder --out, with a report.json. A repeated run
    skips the sets that are done, unless --overwrite is given.
    """

    def say(text):
        if not quiet:
            click.echo(text, err=True)

    options |= {"shape": _shape(shape), "degradation": "data" if degradation else None}
    _check_sources(maps, sample, date)
    recursive, scheduler = options.pop("recursive"), options.pop("scheduler")
    selection = {name: options.pop(name) for name in ("since", "part")}
    selection = {name: value for name, value in selection.items() if value is not None}
    _check_selection(selection, sample, out, plot)
    _check_weights(options["weights"])
    if out is None and sample:
        out = Path(f"deepem_{_SAMPLES[sample]}.fits")
    into_folder = out is not None and _is_folder(out)
    if sample and into_folder:
        out.mkdir(parents=True, exist_ok=True)
        out, into_folder = out / f"deepem_{_SAMPLES[sample]}.fits", False
    if out is not None and not into_folder:
        _check_outputs(out, plot, overwrite)
    _quiet_sunpy()
    if date:
        from sunpy_deepem.fetch import fetch as fetch_files

        maps = fetch_files(date, progress=not quiet)
    source = _maps(maps, sample)
    if not sample:
        sets = _sets(maps, recursive)
        if selection or _is_series(sets, out):
            _invert_series(sets.select(**selection), out, scheduler, plot, overwrite, quiet, options)
            return
        if len(sets.complete) == 1 and not sets.failed:
            source = sets.complete[0].sources
        if sets.ignored:
            say(f"Ignored maps of other channels or times: {len(sets.ignored)}.")
    if out is not None:
        check_distinct(out, source)
        _check_outputs(out, plot, overwrite)
    say("Reading maps, calibrating, aligning, binning and inverting ...")
    from sunpy_deepem import invert as invert_maps

    cube = invert_maps(source, progress=not quiet, **options)
    if out is None:
        out = Path(f"deepem_{cube.sky_header['date-obs'][:19].replace(':', '')}.fits")
        _check_outputs(out, plot, overwrite)
    cube.write(out, overwrite=overwrite)
    say(f"Wrote {out}")
    if plot:
        say("Drawing ...")
        _draw(cube, out.with_suffix(".png"), overwrite=overwrite)
        say(f"Wrote {out.with_suffix('.png')}")


@main.command(short_help="Download six AIA files of a time, or of many.")
@click.argument("start")
@click.option("--end", help="Last time of a series.")
@click.option("--cadence", help="Step of the series, such as '10 min'.  [default: that of the archive]")
@click.option(
    "--level",
    type=click.Choice(("1.5s", "1")),
    default="1.5s",
    show_default=True,
    help="'1.5s' for synoptic images of 1024² pixels, '1' for 4096².",
)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="Folder for the files.  [default: aia in sunpy's data folder]"
)
@click.option("-q", "--quiet", is_flag=True, help="Print no progress.")
def fetch(start, end, cadence, level, out, quiet):
    """
    Download the six AIA files nearest to START, such as 2014-01-01T00:00, and print their paths.

    Files that are in the folder already are not downloaded again; a stopped download continues.
    """
    import astropy.units as u

    from sunpy_deepem.fetch import fetch as fetch_files

    _quiet_sunpy()
    step = None if cadence is None else u.Quantity(cadence)
    for path in fetch_files(start, end, cadence=step, level=level, folder=out, progress=not quiet):
        click.echo(path)


@main.command(short_help="Write the synthetic AIA maps of a cube.")
@click.argument("cube", type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), default=".", help="Folder to write to.  [default: .]")
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
def synthesize(cube, out, overwrite):
    """Write the six synthetic AIA maps of CUBE, a file written by 'deepem invert'."""
    from sunpy_deepem import DEMCube

    _quiet_sunpy()
    maps = DEMCube.read(cube).synthesize()
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"{cube.stem}_synthetic_{smap.wavelength.value:04.0f}.fits" for smap in maps]
    for path in paths:
        _check_output(path, overwrite)
    for smap, path in zip(maps, paths, strict=True):
        with atomic_path(path, overwrite=overwrite) as partial:
            smap.save(partial, filetype="fits")
        click.echo(f"Wrote {path}", err=True)


@main.command(short_help="Plot a cube as an interactive page or PNG.")
@click.argument("cube", type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), help="HTML or PNG to write.  [default: CUBE.html]")
@click.option("--open/--no-open", "in_browser", default=False, show_default=True, help="Open the file in a browser.")
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
def show(cube, out, in_browser, overwrite):
    """
    Plot CUBE, a file written by 'deepem invert', as an interactive page.

    The page shows the EM curve, the EM loci and the fit of the pixel under the pointer. It is one file and needs no
    network. If OUT ends in .png, a summary plot is written instead.
    """
    out = cube.with_suffix(".html") if out is None else out
    if out.suffix not in (".html", ".png"):
        msg = f"--out must end in .html (interactive page) or .png (summary plot), found {out.name}."
        raise click.UsageError(msg)
    _check_output(out, overwrite)
    from sunpy_deepem import DEMCube

    _quiet_sunpy()
    if out.suffix == ".png":
        _draw(DEMCube.read(cube), out, overwrite=overwrite)
    else:
        from sunpy_deepem.visualization.viewer import write_page

        write_page(DEMCube.read(cube), out, overwrite=overwrite)
    click.echo(f"Wrote {out}", err=True)
    if in_browser:
        webbrowser.open(out.absolute().as_uri())


@main.command(short_help="Train a network and write its weights.")
@click.option(
    "--prior",
    type=click.Choice(("default", "neutral")),
    is_flag=False,
    flag_value="default",
    help="Train on draws from one of the package's priors; makes a posterior, too.  [--prior alone: default]",
)
@click.option(
    "--maps",
    "folders",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Train on the six maps in a folder or in each of its subfolders. Repeatable.",
)
@click.option(
    "--teacher",
    default="basis-pursuit",
    show_default=True,
    help="Method for the maps: 'basis-pursuit' or 'demregpy'.",
)
@click.option(
    "--log-t",
    nargs=2,
    type=float,
    default=(5.5, 7.2),
    show_default=True,
    metavar="FIRST LAST",
    help="Centers of the first and last bin in log10(T/K), in steps of 0.1.",
)
@click.option("--validation", type=click.Path(path_type=Path), help="Folder of validation maps.  [default: the last]")
@click.option("--patience", type=int, help="Epochs without a lower validation loss before stopping.")
@click.option("--batch-size", default=1024, show_default=True, help="Pixels per step.")
@click.option("--learning-rate", default=8e-3, show_default=True, help="Learning rate of the Adam optimizer.")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="Weights file to write.")
@click.option("--pixels", default=400_000, show_default=True, help="Pixels drawn from the prior.")
@click.option("--epochs", default=160, show_default=True, help="Passes over the training set.")
@click.option("--posterior-epochs", type=int, help="Epochs of the posterior.  [default: 240]")
@click.option("--hidden", default="64,64,64", show_default=True, help="Widths of the hidden layers.")
@click.option("--seed", default=0, show_default=True, help="Seed of initial weights, draws and order.")
@click.option("--resume", is_flag=True, help="Continue a stopped run from OUT.checkpoint.")
@click.option("--device", default="auto", show_default=True, help="'auto', 'cpu' or 'cuda'.")
@click.option("--overwrite", is_flag=True, help="Replace OUT if it exists.")
@click.option("-q", "--quiet", is_flag=True, help="Print no progress.")
def train(
    prior, folders, teacher, log_t, validation, out, pixels, hidden, seed, overwrite, quiet, device, resume, **options
):
    """Train a network on a prior or on maps, and write its weights."""
    _check_output(out, overwrite)
    if bool(prior) == bool(folders):
        msg = "Give the training data: either --prior or --maps FOLDER."
        raise click.UsageError(msg)
    widths, folders = _widths(hidden), _observations(folders)
    from sunpy_deepem import TemperatureResponse, __version__
    from sunpy_deepem.training import Checkpoint, TrainingOptions, fit

    _quiet_sunpy()
    response = TemperatureResponse.default(bins=_bins(*log_t))
    posterior_epochs = options.pop("posterior_epochs")
    checkpoint = Checkpoint(out.with_name(f"{out.name}.checkpoint"), resume=resume)
    given = {
        "network": widths,
        "options": TrainingOptions(seed=seed, **options),
        "checkpoint": checkpoint,
        "device": device,
        "progress": not quiet,
    }
    if prior:
        network = _train_on_prior(prior, response, pixels=pixels, posterior_epochs=posterior_epochs, **given)
    else:
        training, held_out = _from_maps(folders, validation, teacher, response, quiet)
        network = fit(training, response, validation=held_out, **given)
    network.meta |= {"training_command": _command(), "package_version": __version__}
    network.save(out, overwrite=overwrite)
    for path in (checkpoint.path, f"{checkpoint.path}.posterior"):
        Path(path).unlink(missing_ok=True)
    click.echo(f"Wrote {out}", err=True)


@main.command(short_help="Print how weights were made.")
@click.argument("weights", default="default")
def info(weights):
    """Print how WEIGHTS ('default' or a file) were made."""
    _check_weights(weights)
    from sunpy_deepem import DeepEM

    network = DeepEM.load(weights)
    click.echo(repr(network))
    for key, value in sorted(network.meta.items()):
        click.echo(f"{key}: {value if len(value) < 200 else value[:197] + '...'}")
    if network.prior:
        click.echo("prior:")
        for family, fraction in network.prior.items():
            click.echo(f"  {family}: {fraction:.1%}")


def _train_on_prior(name, response, *, posterior_epochs, **given):
    from sunpy_deepem.training import DEMPrior, train_on_prior

    prior = DEMPrior(response.bins) if name == "default" else DEMPrior.neutral(response.bins)
    more = {} if posterior_epochs is None else {"posterior_epochs": posterior_epochs}
    return train_on_prior(prior, response, **given, **more)


def _from_maps(folders, validation, teacher, response, quiet):
    """Return training and validation set; the latter is ``validation`` or the last of several observations."""
    from sunpy_deepem.methods import get_method
    from sunpy_deepem.training import TrainingSet

    teacher = get_method(teacher, progress=not quiet)
    training = TrainingSet.from_maps(folders, teacher, response)
    if validation is not None:
        return training, TrainingSet.from_maps(_observations([validation]), teacher, response)
    if len(training.names) == 1:
        return training, None
    return training.split(training.names[:-1], training.names[-1:])


def _observations(folders):
    """Return the subfolders of the folders, or the folders themselves if they have none."""
    found = []
    for folder in folders:
        if not folder.is_dir():
            msg = f"There is no folder {folder}."
            raise click.ClickException(msg)
        subfolders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        found += subfolders or [folder]
    return found


def _quiet_sunpy():
    """Hide sunpy's messages about single maps. Its logger must not be used before sunpy is imported."""
    import sunpy

    sunpy.log.setLevel("WARNING")


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


def _check_selection(selection, sample, out, plot):
    names = " and ".join(f"--{name}" for name in selection)
    if selection and (sample or out is None or plot):
        need = "maps of many times and a folder for their cubes, --out FOLDER, without --plot"
        msg = f"{names} needs {need}." if len(selection) == 1 else f"{names} need {need}."
        raise click.UsageError(msg)


def _check_weights(weights):
    if weights.endswith(".safetensors") and not Path(weights).is_file():
        msg = f"There is no file {weights}."
        raise click.ClickException(msg)


def _maps(paths, sample):
    if sample:
        from sunpy_deepem.sample import real_maps, sample_maps

        return real_maps() if sample == "real" else sample_maps()
    return paths[0] if len(paths) == 1 else paths


def _sets(paths, recursive):
    from sunpy_deepem.series import group_maps

    return group_maps(paths, recursive=recursive)


def _is_series(sets, out):
    """Whether the maps are of many times, or the output is a folder."""
    with_time = [each for each in sets.failed if each.time is not None]
    return (out is not None and _is_folder(out)) or bool(sets.complete and len(sets.complete) + len(with_time) > 1)


def _is_folder(out):
    """Whether --out is a folder; raise if it is a file that is no cube."""
    if out.is_dir() or out.name.lower().endswith(_CUBES):
        return out.is_dir()
    if out.suffix[1:].isalpha() or out.is_file():
        msg = f"--out must be a folder or end in {', '.join(_CUBES)}, found {out.name}."
        raise click.UsageError(msg)
    return True


def _invert_series(sets, out, scheduler, plot, overwrite, quiet, options):
    from sunpy_deepem.series import invert_series
    from sunpy_deepem.series.report import report_name

    found = f"{len(sets.complete)} sets of six channels, {len(sets.failed)} incomplete or ambiguous"
    if out is None:
        msg = f"MAPS are of many times ({found}). Name a folder for their cubes: --out FOLDER."
        raise click.UsageError(msg)
    if plot:
        msg = f"MAPS are of many times ({found}); --plot draws one cube. Plot others with 'deepem show'."
        raise click.UsageError(msg)
    if not quiet:
        click.echo(f"Found {found}; ignored maps: {len(sets.ignored)}.", err=True)
    report = invert_series(sets, out, scheduler=scheduler, overwrite=overwrite, progress=not quiet, **options)
    if report.failed or not quiet:
        click.echo(f"{report}\nReport: {out / report_name(sets.part)}", err=True)
    if report.failed:
        sys.exit(1)


def _shape(text):
    if text == "native":
        return None
    try:
        return int(text)
    except ValueError:
        msg = f"--shape must be a whole number or 'native', found {text!r}."
        raise click.UsageError(msg) from None


def _bins(first, last):
    """Return the bins between two centers."""
    from sunpy_deepem import LogTBins
    from sunpy_deepem.units import LOG_T_TOLERANCE

    step = LogTBins().step
    steps = (last - first) / step
    if not 0 <= steps < 1000 or abs(steps - round(steps)) * step > LOG_T_TOLERANCE:
        msg = f"--log-t must be two centers in steps of {step:g}, such as 5.5 7.6, found {first} {last}."
        raise click.UsageError(msg)
    return LogTBins(first, step, round(steps) + 1)


def _widths(text):
    try:
        widths = tuple(int(width) for width in text.split(","))
    except ValueError:
        widths = ()
    if not widths or min(widths) < 1:
        msg = f"--hidden must be widths such as 64,64, found {text!r}."
        raise click.UsageError(msg)
    return widths


def _check_output(path, overwrite):
    if path.exists() and not overwrite:
        msg = f"{path} exists. Pass --overwrite to replace it."
        raise click.ClickException(msg)
    if not path.absolute().parent.is_dir():
        msg = f"{path} lies in a folder that does not exist. Make {path.parent} first."
        raise click.ClickException(msg)


def _check_outputs(out, plot, overwrite):
    """Check all output files before the inversion."""
    _check_output(out, overwrite)
    if plot:
        _check_output(out.with_suffix(".png"), overwrite)


def _draw(cube, path, *, overwrite):
    import matplotlib as mpl

    mpl.use("agg")
    with atomic_path(path, overwrite=overwrite) as partial:
        cube.plot_summary().savefig(partial, format="png", dpi=100)


def _command():
    """Return the command line."""
    return shlex.join(["deepem", *sys.argv[1:]])
