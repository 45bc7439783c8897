"""``deepem train`` and ``info``."""

import json
import shlex
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import click

from sunpy_deepem.cli.common import check_output, check_weights, prepare_logs

__all__ = ["info", "train"]


@click.command(short_help="Train a network and write its weights.")
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
@click.option("--batch-size", type=int, help="Pixels per step.  [default: 512 with --prior, 1024 with --maps]")
@click.option(
    "--learning-rate", type=float, help="Learning rate of Adam.  [default: 0.006 with --prior, 0.008 with --maps]"
)
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="Weights file to write.")
@click.option("--pixels", default=400_000, show_default=True, help="Pixels drawn from the prior.")
@click.option("--epochs", type=int, help="Passes over the training set.  [default: 300 with --prior, 200 with --maps]")
@click.option("--posterior-epochs", type=int, help="Epochs of the posterior.  [default: 480]")
@click.option("--hidden", default="48,48,48", show_default=True, help="Widths of the hidden layers.")
@click.option("--seed", default=0, show_default=True, help="Seed of initial weights, draws and order.")
@click.option("--resume", is_flag=True, help="Continue a stopped run from OUT.checkpoint.")
@click.option("--device", default="auto", show_default=True, help="'auto', 'cpu' or 'cuda'.")
@click.option("--overwrite", is_flag=True, help="Replace OUT if it exists.")
@click.option("-q", "--quiet", is_flag=True, help="Print no progress.")
def train(
    prior, folders, teacher, log_t, validation, out, pixels, hidden, seed, overwrite, quiet, device, resume, **options
):
    """Train a network on a prior or on maps, and write its weights."""
    check_output(out, overwrite)
    if bool(prior) == bool(folders):
        msg = "Give the training data: either --prior or --maps FOLDER."
        raise click.UsageError(msg)
    widths, folders = _widths(hidden), _observations(folders)
    from sunpy_deepem import TemperatureResponse, __version__
    from sunpy_deepem.training import Checkpoint, TrainingOptions, fit
    from sunpy_deepem.training.draws import DRAWS_OPTIONS

    prepare_logs(quiet=quiet)
    response = TemperatureResponse.default(bins=_bins(*log_t))
    posterior_epochs = options.pop("posterior_epochs")
    defaults = DRAWS_OPTIONS if prior else TrainingOptions(epochs=200)
    options = {name: value for name, value in options.items() if value is not None}
    checkpoint = Checkpoint(out.with_name(f"{out.name}.checkpoint"), resume=resume)
    given = {
        "network": widths,
        "options": replace(defaults, seed=seed, **options),
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


@click.command(short_help="Print how weights were made.")
@click.argument("weights", default="default")
def info(weights):
    """Print how WEIGHTS ('default' or a file) were made."""
    check_weights(weights)
    from sunpy_deepem import DeepEM

    for name, value in _facts(DeepEM.load(weights)).items():
        # As wide as a usual terminal; longer words, such as paths, are broken.
        click.echo("\n".join(textwrap.wrap(value, 80, initial_indent=f"{name:<17}", subsequent_indent=17 * " ")))


def _facts(network):
    """Return what `info` prints, by name."""
    meta = dict(network.meta)
    history, first = json.loads(meta.pop("history", "[]")), network.bins.centers[0]
    facts = {
        "Weights": network.source,
        "Network": f"{network.module.name}, {network.widths}",
        "Posterior": "yes" if network.has_posterior else "no",
        "Channels": ", ".join(f"{channel} Å" for channel in network.channels),
        "log10(T / K)": f"{first:.1f} to {network.bins.centers[-1]:.1f} in {len(network.bins)} bins",
        "Response": network.response_fingerprint or "unknown",
        "Prior": ", ".join(f"{family} {fraction:.1%}" for family, fraction in network.prior.items()) or "none",
    }
    if history:
        losses = [", ".join(f"{key} {loss:.3f}" for key, loss in each.items() if key != "epoch") for each in history]
        facts["Training"] = f"{len(history)} epochs; loss after the first: {losses[0]}; after the last: {losses[-1]}"
    return facts | {name.replace("_", " ").capitalize(): str(value) for name, value in sorted(meta.items())}


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


def _command():
    """Return the command line."""
    return shlex.join(["deepem", *sys.argv[1:]])
