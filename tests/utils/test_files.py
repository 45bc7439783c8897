"""Files are written completely or not at all, by one owner at a time, and nothing is left of killed owners."""

import os
import signal
import stat
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from spawned import write_exclusively

from sunpy_deepem.utils.files import atomic_path, check_distinct, remove_orphans


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def run(code, folder, **options):
    return subprocess.Popen([sys.executable, "-c", code], cwd=folder, stdout=subprocess.PIPE, text=True, **options)


WRITE = """
import sys, time
from sunpy_deepem.utils.files import atomic_path
with atomic_path("out.fits") as partial:
    partial.write_text("half")
    print("half", flush=True)
    time.sleep(60)
"""


def test_complete_file(tmp_path):
    with atomic_path(tmp_path / "out.fits") as partial:
        partial.write_text("new")
        assert partial.parent == tmp_path
    assert names(tmp_path) == ["out.fits"]


def test_nothing_is_left_of_a_killed_process(tmp_path):
    process = run(WRITE, tmp_path)
    assert process.stdout.readline() == "half\n"
    process.kill()
    process.communicate()
    assert len(names(tmp_path)) == 2
    with atomic_path(tmp_path / "out.fits") as partial:
        partial.write_text("new")
    assert names(tmp_path) == ["out.fits"]


def test_partial_files_of_living_processes_stay(tmp_path):
    process = run(WRITE, tmp_path)
    assert process.stdout.readline() == "half\n"
    remove_orphans(tmp_path)
    assert len(names(tmp_path)) == 2
    process.kill()
    process.communicate()
    remove_orphans(tmp_path)
    assert names(tmp_path) == []


def test_files_of_others_are_left_alone(tmp_path):
    others = [".browser.part", ".name.lock", "out.fits.part", f".out.fits.{'0' * 32}.lockfile"]
    for name in others:
        (tmp_path / name).touch()
    remove_orphans(tmp_path)
    assert names(tmp_path) == sorted(others)


@pytest.mark.slow
def test_the_second_of_two_writers_is_refused(tmp_path):
    """Both find no file when they start."""
    path = tmp_path / "out.fits"
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        first, second = sorted(pool.map(write_exclusively, [str(path)] * 2), key=len)
    assert path.read_text() == first
    assert "out.fits exists: another process wrote it meanwhile. Pass overwrite=True" in second


def test_the_second_is_refused_without_hard_links(tmp_path, monkeypatch):
    def link(*paths):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    with atomic_path(tmp_path / "one.fits", overwrite=False) as partial:
        partial.write_text("new")

    def write_second():
        with atomic_path(tmp_path / "two.fits", overwrite=False) as partial:
            partial.write_text("new")
            (tmp_path / "two.fits").write_text("of another process")

    with pytest.raises(FileExistsError, match="another process wrote it"):
        write_second()
    assert (tmp_path / "two.fits").read_text() == "of another process"
    assert names(tmp_path) == ["one.fits", "two.fits"]


@pytest.mark.parametrize("there", [True, False])
def test_links_are_followed(tmp_path, there):
    (tmp_path / "disk").mkdir()
    link, target = tmp_path / "link.fits", tmp_path / "disk" / "target.fits"
    if there:
        target.write_text("old")
    link.symlink_to(target)
    with atomic_path(link) as partial:
        partial.write_text("new")
        assert partial.parent == target.parent  # a rename needs the same disk
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert names(target.parent) == ["target.fits"]


def test_link_into_a_folder_that_does_not_exist(tmp_path):
    (tmp_path / "link.fits").symlink_to(tmp_path / "no" / "target.fits")
    with pytest.raises(FileNotFoundError, match="folder that does not exist"), atomic_path(tmp_path / "link.fits"):
        pass


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
def test_permissions_are_kept(tmp_path):
    path = tmp_path / "out.fits"
    path.write_text("old")
    path.chmod(0o640)
    with atomic_path(path) as partial:
        partial.write_text("new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are bytes on Linux")
def test_names_that_are_not_utf8(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.fits"))
    with atomic_path(path) as partial:
        partial.write_text("new")
    assert os.listdir(os.fsencode(tmp_path)) == [b"\xff\xfe.fits"]


class TestDistinct:
    @pytest.mark.parametrize("source", [lambda path: path, str, lambda path: [path], lambda path: path.parent])
    def test_an_input(self, tmp_path, source):
        path = tmp_path / "171.fits"
        path.touch()
        with pytest.raises(ValueError, match=r"out is one of the files to read, .*171\.fits"):
            check_distinct(path, source(path))

    def test_another_name_of_an_input(self, tmp_path):
        (tmp_path / "171.fits").touch()
        (tmp_path / "link.fits").symlink_to(tmp_path / "171.fits")
        with pytest.raises(ValueError, match="out is one of the files to read"):
            check_distinct(tmp_path / "link.fits", (tmp_path / "171.fits",))

    def test_others(self, tmp_path):
        (tmp_path / "171.fits").touch()
        check_distinct(tmp_path / "new.fits", tmp_path)
        (tmp_path / "old.fits").touch()
        check_distinct(tmp_path / "old.fits", [tmp_path / "171.fits", 3, None])
        check_distinct(tmp_path / "old.fits", None)


@pytest.mark.skipif(os.name != "posix", reason="signals are those of POSIX")
def test_termination_of_the_command_leaves_nothing(tmp_path):
    code = """
import time
import click
from sunpy_deepem import cli
from sunpy_deepem.utils.files import atomic_path

@cli.main.command()
def wait():
    with atomic_path("out.fits") as partial:
        partial.write_text("half")
        print("half", flush=True)
        time.sleep(60)

cli.main(["wait"])
"""
    process = run(code, tmp_path)
    assert process.stdout.readline() == "half\n"
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert names(tmp_path) == []
