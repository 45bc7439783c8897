"""What several subcommands need."""

from pathlib import Path

import click

from sunpy_deepem.utils.files import atomic_path

__all__ = ["check_output", "check_weights", "draw", "quiet_sunpy"]


def quiet_sunpy():
    """Hide sunpy's messages about single maps. Its logger must not be used before sunpy is imported."""
    import sunpy

    sunpy.log.setLevel("WARNING")


def check_weights(weights):
    """Raise if a weights file does not exist."""
    if weights.endswith(".safetensors") and not Path(weights).is_file():
        msg = f"There is no file {weights}."
        raise click.ClickException(msg)


def check_output(path, overwrite):
    """Raise if a file exists that may not be replaced, or its folder does not exist."""
    if path.exists() and not overwrite:
        msg = f"{path} exists. Pass --overwrite to replace it."
        raise click.ClickException(msg)
    if not path.absolute().parent.is_dir():
        msg = f"{path} lies in a folder that does not exist. Make {path.parent} first."
        raise click.ClickException(msg)


def draw(cube, path, *, overwrite):
    """Write the summary plot of a cube."""
    import matplotlib as mpl

    mpl.use("agg")
    with atomic_path(path, overwrite=overwrite) as partial:
        cube.plot_summary().savefig(partial, format="png", dpi=100)
