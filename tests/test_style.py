"""Docstrings and comments are in plain English."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_stilted_phrases_are_rare():
    stilted = runpy.run_path(str(ROOT / "tools" / "plain_english.py"))["stilted"]
    found, n = stilted([ROOT / folder for folder in ("sunpy_deepem", "tests", "benchmarks", "tools")])
    assert n > 2000
    assert len(found) < 0.01 * n, "\n".join(f"{path}: {sentence}" for path, sentence in found)
