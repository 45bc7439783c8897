"""Short runs of the scripts that look for silent errors."""

import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[1] / "tools"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "options", "printed"),
    [
        ("fuzz_headers.py", ["--n", "200", "--seed", "1"], "200 changes of 62 cards"),
        ("kill_runs.py", ["--n", "5", "--seed", "1"], "5 kills"),
        ("stress.py", ["--seconds", "5", "--threads", "4", "--processes", "1", "--size", "48"], "spawned"),
    ],
)
def test_nothing_is_silently_wrong(script, options, printed, tmp_path):
    run = subprocess.run([sys.executable, TOOLS / script, *options], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert printed in run.stdout
