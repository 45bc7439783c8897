"""``deepem fetch``, ``synthesize`` and ``show``."""

import webbrowser
from pathlib import Path

import click

from sunpy_deepem.cli.common import check_output, draw, prepare_logs
from sunpy_deepem.utils.files import atomic_path

__all__ = ["fetch", "show", "synthesize"]


@click.command(short_help="Download six AIA files of a time, or of many.")
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

    prepare_logs(quiet=quiet)
    step = None if cadence is None else u.Quantity(cadence)
    for path in fetch_files(start, end, cadence=step, level=level, folder=out, progress=not quiet):
        click.echo(path)


@click.command(short_help="Write the synthetic AIA maps of a cube.")
@click.argument("cube", type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), default=".", help="Folder to write to.  [default: .]")
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
def synthesize(cube, out, overwrite):
    """Write the six synthetic AIA maps of CUBE, a file written by 'deepem invert'."""
    from sunpy_deepem import CHANNELS, DEMCube

    prepare_logs()
    dem = DEMCube.read(cube)
    if out.exists() and not out.is_dir():
        msg = f"--out must be a folder, found the file {out}."
        raise click.UsageError(msg)
    paths = [out / f"{cube.stem}_synthetic_{channel:04d}.fits" for channel in CHANNELS]
    for path in paths if out.is_dir() else ():
        check_output(path, overwrite)
    out.mkdir(parents=True, exist_ok=True)
    for smap, path in zip(dem.synthesize(), paths, strict=True):
        with atomic_path(path, overwrite=overwrite) as partial:
            smap.save(partial, filetype="fits")
        click.echo(f"Wrote {path}", err=True)


@click.command(short_help="Plot a cube as an interactive page or PNG.")
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
    check_output(out, overwrite)
    from sunpy_deepem import DEMCube

    prepare_logs()
    if out.suffix == ".png":
        draw(DEMCube.read(cube), out, overwrite=overwrite)
    else:
        from sunpy_deepem.visualization.viewer import write_page

        write_page(DEMCube.read(cube), out, overwrite=overwrite)
    click.echo(f"Wrote {out}", err=True)
    if in_browser:
        webbrowser.open(out.absolute().as_uri())
