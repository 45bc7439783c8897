"""
Change one operator or number of a numerical module, run the tests that concern the module, and list the survivors.

Usage: ``python tools/sample_mutants.py [--n 150] [--seed 0] [--only stack] [--without analysis]
[--output mutants.jsonl [--resume]]``

``mutmut run`` tries all mutants of the modules in ``pyproject.toml``, which takes many hours; this takes a sample.
Each mutant is tested in a forked process that has the large packages in memory, with at most ``--seconds`` of processor
time.
"""

import argparse
import ast
import importlib.util
import json
import os
import random
import resource
import sys
from collections import Counter
from pathlib import Path

import aiapy.calibrate  # noqa: F401 - so that forked processes need not import them
import matplotlib.pyplot  # noqa: F401
import numba  # noqa: F401
import pytest
import reproject  # noqa: F401
import sunpy.map  # noqa: F401
import torch._dynamo  # noqa: F401

ROOT = Path(__file__).resolve().parents[1]
#: Tests that concern a module, relative to ``tests``.
TESTS = {
    "analysis/derived.py": ("analysis/test_derived.py",),
    "analysis/intervals.py": ("analysis/test_intervals.py", "analysis/test_derived.py"),
    "analysis/loci.py": ("analysis/test_loci.py",),
    "analysis/fe_xviii.py": ("analysis/test_fe_xviii.py",),
    "calibrate/alignment.py": ("calibrate/test_alignment.py",),
    "calibrate/degradation.py": ("calibrate/test_degradation.py",),
    "calibrate/photometry.py": ("calibrate/test_photometry.py", "stack/test_calibrated_stack.py"),
    "cube/arithmetic.py": ("cube/test_cube_operations.py", "cube/test_posterior.py"),
    "cube/fit.py": ("cube/test_fit.py", "test_forward.py", "stack/test_channel_use.py", "cube/test_precision.py"),
    "cube/precision.py": ("cube/test_precision.py",),
    "cube/resample.py": ("cube/test_cube_operations.py",),
    "cube/sensitivity.py": ("cube/test_sensitivity.py",),
    "forward.py": ("test_forward.py", "cube/test_cube_maps.py"),
    "methods/base.py": ("methods/test_base.py", "methods/test_all_methods.py", "methods/test_basis_pursuit.py"),
    "methods/basis_pursuit.py": ("methods/test_basis_pursuit.py",),
    "methods/demreg.py": ("methods/test_demreg.py",),
    "methods/factors.py": ("methods/test_factors.py",),
    "methods/importance.py": ("methods/test_importance.py", "methods/test_factors.py"),
    "methods/weighing.py": ("methods/test_importance.py", "methods/test_factors.py"),
    "network/conditioning.py": ("network/test_compiled.py", "network/test_posterior.py"),
    "network/splits.py": ("network/test_splits.py",),
    "network/consistency.py": ("network/test_consistency.py",),
    "network/inputs.py": ("network/test_model.py", "network/test_posterior.py"),
    "network/sampling.py": ("network/test_sampling.py", "network/test_compiled.py", "network/test_posterior.py"),
    "quality.py": ("test_quality.py",),
    "response/emissivity.py": ("response/test_emissivity.py",),
    "response/temperature_response.py": (
        "response/test_temperature_response.py",
        "response/test_response_files.py",
        "response/test_instrument.py",
    ),
    "series/grouping.py": ("series/test_grouping.py",),
    "series/rotation.py": ("series/test_rotation.py",),
    "stack/agreement.py": ("stack/test_agreement.py",),
    "stack/binning.py": ("stack/test_binning.py", "stack/test_grid.py"),
    "stack/counts.py": (
        "stack/test_channel_use.py",
        "stack/test_calibrated_stack.py",
        "stack/test_grid.py",
        "stack/test_channel_stack.py",
    ),
    "stack/exposures.py": ("stack/test_exposures.py", "stack/test_calibrated_stack.py"),
    "stack/grid.py": ("stack/test_grid.py", "stack/test_binning.py"),
    "temperature.py": ("test_temperature.py",),
    "training/observing.py": ("training/test_observing.py", "network/test_compiled.py"),
    "training/prior.py": ("training/test_prior.py",),
    "utils/uncertainty.py": ("utils/test_uncertainty.py",),
}
OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "minimum": "maximum", "maximum": "minimum"}


def mutants(module):
    """Return the mutants of a module: a description and the source."""
    source = (ROOT / "sunpy_deepem" / module).read_text(encoding="utf-8")
    count, found = len(list(_places(ast.parse(source)))), []
    for number in range(count):
        tree = ast.parse(source)
        where, what = list(_places(tree))[number]()
        found.append((f"{module}:{where}: {what}", ast.unparse(tree)))
    return found


def _places(tree):
    """Yield functions that change a tree in one place, and return line:column and what was changed."""
    messages = {id(child) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for child in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in messages:
            continue
        if isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign) and type(node.op) in OPERATORS:
            yield lambda node=node: _replace(node, "op", OPERATORS[type(node.op)]())
        elif isinstance(node, ast.Compare) and type(node.ops[0]) in OPERATORS:
            yield lambda node=node: _replace(node, "ops", [OPERATORS[type(node.ops[0])](), *node.ops[1:]])
        elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
            yield lambda node=node: _replace(node, "value", node.value + 1)
        elif isinstance(node, ast.Attribute) and node.attr in NAMES:
            yield lambda node=node: _replace(node, "attr", NAMES[node.attr])
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yield lambda node=node: _replace(node, "op", ast.UAdd())


def _replace(node, name, value):
    before = ast.unparse(node)
    setattr(node, name, value)
    return f"{node.lineno}:{node.col_offset + 1}", f"{before} -> {ast.unparse(node)}"


class _Finder:
    """Import the source of a mutant in place of its module."""

    def __init__(self, module, source):
        self.path = ROOT / "sunpy_deepem" / module
        self.name = "sunpy_deepem." + module.removesuffix(".py").replace("/", ".")
        self.source = source

    def find_spec(self, name, path=None, target=None):
        """Return the specification of the mutant."""
        return importlib.util.spec_from_loader(name, self, origin=str(self.path)) if name == self.name else None

    def create_module(self, spec):
        """Return nothing, for an ordinary module."""

    def exec_module(self, module):
        """Run the source."""
        module.__file__ = str(self.path)
        exec(compile(self.source, self.path, "exec"), module.__dict__)


def outcome(module, source, seconds):
    """Return ``"killed"``, ``"survived"`` or ``"timeout"``."""
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        os.chdir(ROOT)
        sys.meta_path.insert(0, _Finder(module, source))
        tests = [f"tests/{name}" for name in TESTS[module]]
        status = 1
        try:
            status = pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests])
        finally:
            os._exit(int(status != 0))
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return {0: "survived", 1: "killed"}.get(status, "timeout")


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--n", type=int, default=150, help="Number of mutants.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=int, default=200, help="Processor time of the tests of a mutant.")
    parser.add_argument("--only", default="", help="Take only modules whose name contains this.")
    parser.add_argument("--without", default=" ", help="Take no modules whose name contains this.")
    parser.add_argument("--output", type=Path, help="File of results, one JSON object per line.")
    parser.add_argument("--resume", action="store_true", help="Keep the results in --output and run only the others.")
    args = parser.parse_args()
    modules = [module for module in TESTS if args.only in module and args.without not in module]
    if broken := [module for module in modules if outcome(module, _source(module), args.seconds) != "survived"]:
        sys.exit(f"The tests of {', '.join(broken)} fail without a mutant.")
    every = [(module, *mutant) for module in modules for mutant in mutants(module)]
    chosen = random.Random(args.seed).sample(every, min(args.n, len(every)))
    done = {}
    if args.resume and args.output.exists():
        done = dict(json.loads(line) for line in args.output.read_text(encoding="utf-8").splitlines())
    with open(args.output or os.devnull, "a" if args.resume else "w", encoding="utf-8") as file:
        for module, description, source in chosen:
            if description not in done:
                done[description] = outcome(module, source, args.seconds)
                print(json.dumps([description, done[description]]), file=file, flush=True)
    kinds = Counter(done.values())
    print(f"{len(done)} of {len(every)} mutants of {len(modules)} modules:", dict(kinds))
    print(*sorted(description for description, kind in done.items() if kind == "survived"), sep="\n")


def _source(module):
    return (ROOT / "sunpy_deepem" / module).read_text(encoding="utf-8")


if __name__ == "__main__":
    main()
