"""
Write the page of the documentation with the results of the benchmarks.

Usage: ``python benchmarks/page.py [--output benchmarks/output] [--only calibration flare]``. Writes
``docs/topics/benchmarks.rst`` and the plot ``docs/images/speed.png``, and copies tables and figures of the other
benchmarks that have run. Those of ``accuracy.py``, ``calibration.py`` and ``exact.py`` go to
``docs/topics/accuracy.inc`` and so on, which the page and others include, those of ``flare.py`` and ``real_sun.py`` to
``docs/howto/flare.inc`` and ``left_out.inc``. ``--only`` renews the tables that it names and nothing else.
"""

import argparse
import json
import shutil
from pathlib import Path

import matplotlib as mpl

mpl.use("agg")
import matplotlib.pyplot as plt

_DOCS = Path(__file__).parents[1] / "docs"
_INTRODUCTION = """.. _benchmarks:

Benchmarks
==========

``python benchmarks FOLDER`` runs all benchmarks with six full-disc AIA maps in FOLDER; ``benchmarks/README.rst``
describes each. ``python benchmarks/page.py`` writes this page from their results.
"""
_SPEED = """
Speed
-----

{date}, {processor}, {cores} cores ({instructions}), {memory} GiB, {gpu}, {system}; {versions}. Load average before and
after {load}; {threads} threads.

All codes invert the same noisy pixels of the training prior in turn: {shape} × {shape} for the networks, the first of
them for the others. Rates are medians of {rounds} rounds, best ones those of the fastest round, and rates per core
those of the least processor time; W1 is the median distance of recovered and true EM in dex.

{table}
.. figure:: /images/speed.png

   Pixels per second, median (bars) and best (lines).

.. list-table:: Asked and measured
   :header-rows: 1

{asked}"""
_NO_GPU = """
On a GPU
--------

Not measured yet. ``python benchmarks/device.py`` prints pixels per second on the GPU and end to end, with its limits,
the chapter's network and a CPU.
"""
_GPU = """
On a GPU
--------

{date}, {gpu}, {system}; {shape} × {shape} pixels. It copies {copy:.0f} GB/s and multiplies matrices at {product:.1f} T
operations/s. ln(EM) differs from that of a CPU in single precision by {agreement[0]:.1e} in the median, and by less
than {agreement[1]:.1e} in 99 % of the bins with more than 1 % of the EM.

{table}"""
_END_TO_END = """
From six files to a cube
------------------------

{date}, {processor}, {cores} cores, {python}. Load average at the end {load}. n → n are cubes of all native pixels,
streamed into a FITS file with σ, χ², flags and intensities; the other is made in memory and written. Each case runs in
its own process; imports do not count. Small cases are dominated by one-time costs such as opening files.

{cases}
.. figure:: /images/end_to_end.png

   Cost per pixel of cubes of native pixels: stages one after the other (bars) and all at once (marks).

{stages}"""
#: Tables that how-tos include.
_COPIED = ("flare", "left_out")
_INCLUDED = {
    "accuracy": """
Accuracy
--------

.. include:: /generated/accuracy.inc
""",
    "calibration": """
Calibration of the posterior
----------------------------

.. include:: /generated/calibration.inc
""",
    "exact": """
Against the exact posterior
---------------------------

.. include:: /generated/exact.inc
""",
}
_TABLES = {
    "accuracy": """
W1, the distance of recovered and true EM in dex, on the same noisy pixels: one run of ``benchmarks/accuracy.py``,
{date}, sunpy_deepem {version}, weights {weights} ({fingerprint}). Errors are those of 1 or 64 native pixels with a
systematic fraction. Each family has {pixels} pixels; demregpy gets the first {demreg} and the limit the first {limit},
more of the prior.

.. figure:: /images/accuracy.png
   :alt: W1 by family of pixels and method

   W1 at 10 % systematic error and 64 native pixels: median, and line up to the 90th percentile.

{table}""",
    "calibration": """
One run of ``benchmarks/calibration.py``, {date}, sunpy_deepem {version}, weights {weights} ({fingerprint}): {truths}
true EM distributions of the prior and {draws} draws of each posterior, and a quarter of the truths in most other rows.
Pixels are observed with the noise of 1 or 64 native pixels and a systematic error, 10 % unless a row states another.
The columns are

- the percentage of true values in the stated 68 % interval, which is 68 if the posterior is calibrated, for the EM in
  four ranges of log T, the total EM, the EM-weighted log T, the thermal width and the thermal energy; and the range of
  this percentage over these and the 18 bins, for intervals of 68 and 95 %;
- *Holm p*: whether the ranks of all quantities are uniform (p of the worst one, corrected for their number). It is
  small for families unlike the prior, for which no posterior is calibrated;
- *TARP*: the joint distribution of the bins, ideally 0;
- *above limits*: draws whose synthetic intensity is above the lower limit of a saturated channel;
- *hot EM*: EM between log T 6.6 and 7.0 over the true one, where that is more than 5 % of the EM;
- *χ²*: median over draws.

In the last rows, the response of the instrument is not the one that the posterior assumes: one channel is 25 % off, or
the plasma has photospheric abundances and the EM is that of its iron.

{table}
.. figure:: /images/calibration_coverage.png
   :alt: Fraction of true values in intervals of each level

   Percentage of true values in intervals of each level: mean over the eight quantities (lines), least and most
   (dotted). Grey is the range that chance allows a single quantity of a calibrated posterior.

.. figure:: /images/calibration_ecdf.png
   :alt: Deviation of the ranks of the truth from uniform ranks

   Ranks of the truth among the draws, pixels of the prior with 10 % errors: deviation from uniform ranks.

.. figure:: /images/calibration_contraction.png
   :alt: Contraction of each bin at several levels of noise

   Contraction of the EM per bin at several systematic errors, and with channels left out.
""",
    "exact": """
One run of ``benchmarks/exact.py``, {date}, sunpy_deepem {version}, weights {weights} ({fingerprint}): the network
against the exact posterior (`~sunpy_deepem.methods.Importance`) under the same prior, on the same pixels. The columns
are the number of pixels in which the exact posterior has enough effective draws; the percentage of truths in the 68 %
intervals of the network / of the exact posterior, uncertain by 47 / √n points; the hot EM of the posterior mean over
the true one, median of the pixels where that has at least 5 % of the EM; the median χ² of draws of both; and the
absolute difference of their 16, 50 and 84 % quantiles, for bands with more than 5 % of the EM, median (90th
percentile), and for the EM-weighted log T, median. A wrong prior cannot be calibrated: where the exact posterior holds
less than 68 %, so may the network.

{table}""",
}


def rows(cells):
    """Return the lines of a list-table."""
    return "".join(f"   {'*' if index == 0 else ' '} - {cell}\n" for line in cells for index, cell in enumerate(line))


def speed_table(results):
    """Return the table of all rates, with the ratio of the package's."""
    own = results["package"]["rate"]
    cells = [("", "pixels", "pixels/s", "best", "per core", "W1 (dex)", "package is faster by")]
    for name, result in results.items():
        w1 = "" if result["w1"] is None else f"{result['w1']:.4f}"
        ratio = "" if name.startswith(("package", "training")) else f"{own / result['rate']:.3g}"
        rates = [f"{result[key]:.3g}" for key in ("rate", "best", "per_core")]
        cells.append((name, result["pixels"], *rates, w1, ratio))
    return ".. list-table::\n   :header-rows: 1\n\n" + rows(cells)


def plot_speed(results, path):
    """Plot rates on a logarithmic axis."""
    names = list(results)[::-1]
    fig, axes = plt.subplots(figsize=(8, 0.35 * len(names) + 1), layout="constrained")
    colors = ["#0072B2" if name.startswith("package") else "#999999" for name in names]
    rates = [results[name]["rate"] for name in names]
    spread = [[0] * len(names), [results[name]["best"] - results[name]["rate"] for name in names]]
    axes.barh(names, rates, xerr=spread, color=colors, ecolor="#D55E00")
    axes.axvline(10.87e6, color="black", lw=0.8, ls="--", label="the DeepEM chapter's figure, on a GPU")
    axes.set(xscale="log", xlabel="pixels per second")
    fig.legend(loc="outside lower center", fontsize=9)
    fig.savefig(path, dpi=120)


def speed_section(content):
    """Return machine, table and figure of `speed.py`."""
    facts, results = content["machine"], content["results"]
    asked = [("", "asked", "measured")]
    asked += [(line["what"], f"{line['asked']:.4g}", f"{line['measured']:.4g}") for line in content["asked"]]
    filled = {key: value for key, value in facts.items() if key not in ("gpu", "versions", "load")}
    return _SPEED.format(
        **filled,
        gpu=facts["gpu"] or "no GPU",
        versions=", ".join(f"{name} {version}" for name, version in facts["versions"].items()),
        load=" and ".join(f"{load[0]}" for load in facts["load"]),
        threads=content["threads"],
        shape=content["shape"],
        rounds=len(results["package"]["times"]),
        table=speed_table(results),
        asked=rows(asked),
    )


def device_section(content):
    """Return the table of `device.py`, or a note that there is no GPU's."""
    if content is None or not content["device"].startswith("cuda"):
        return _NO_GPU
    table = [("", "pixels/s", "of the arithmetic", "of the traffic")]
    for name, one in content["results"].items():
        shares = ("" if one[limit] is None else f"{one[limit]:.1%}" for limit in ("arithmetic", "traffic"))
        table.append((name, f"{one['rate']:.3g}", *shares))
    return _GPU.format(
        **{key: content["machine"][key] for key in ("date", "gpu", "system")},
        shape=content["shape"],
        copy=content["copy"] / 1e9,
        product=content["product"] / 1e12,
        agreement=content["agreement"]["auto"],
        table=".. list-table::\n   :header-rows: 1\n\n" + rows(table),
    )


def end_to_end_section(content):
    """Return the tables of `end_to_end.py`: whole cases, and the stages of the largest maps."""
    cases = [("maps", "cube", "wall (s)", "processor (s)", "peak (GiB)", "processor (µs/pixel)")]
    for one in content["cases"]:
        figures = (one["wall"], one["cpu"], one["peak"], 1e6 * one["cpu"] / one["cube"] ** 2)
        cases.append((f"{one['maps']}²", f"{one['cube']}²", *(f"{figure:.2f}" for figure in figures)))
    largest = [one for one in content["cases"] if one["maps"] == max(one["maps"] for one in content["cases"])]
    stages = [("stage, one after the other", *(f"{one['maps']}² → {one['cube']}²: wall (s)" for one in largest))]
    for name in largest[0]["stages"]:
        stages.append((name, *(f"{one['stages'][name]['wall']:.2f}" for one in largest)))
    head = ".. list-table::\n   :header-rows: 1\n\n"
    facts = {key: content["machine"][key] for key in ("date", "processor", "cores")}
    facts["python"] = content["machine"]["system"]
    return _END_TO_END.format(
        **facts,
        load=" ".join(map(str, content["load_at_end"])),
        cases=head + rows(cases),
        stages=head + rows(stages),
    )


def write_tables(name, output, docs):
    """Write the tables of a benchmark to a file that pages include, and copy its figures."""
    if name in _COPIED:
        shutil.copyfile(output / f"{name}.rst", docs / "howto" / f"{name}.inc")
        return
    card = json.loads((output / f"{name}.json").read_text(encoding="utf-8"))
    table = (output / f"{name}.rst").read_text(encoding="utf-8")
    text = _TABLES[name].format(**card | {"table": table})
    (docs / "topics" / f"{name}.inc").write_text(text.strip() + "\n", encoding="utf-8")
    for figure in output.glob(f"{name}*.png"):
        shutil.copyfile(figure, docs / "images" / figure.name)


def main():
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "output")
    parser.add_argument("--docs", type=Path, default=_DOCS)
    parser.add_argument(
        "--only", nargs="+", choices=(*_TABLES, *_COPIED), help="leave the page, renew only these tables"
    )
    args = parser.parse_args()
    (args.docs / "images").mkdir(parents=True, exist_ok=True)
    for folder in ("howto", "topics"):
        (args.docs / folder).mkdir(parents=True, exist_ok=True)
    for name in args.only or (*_TABLES, *_COPIED):
        if (args.output / f"{name}.rst").exists():
            write_tables(name, args.output, args.docs)
    if args.only:
        return
    content = json.loads((args.output / "speed.json").read_text(encoding="utf-8"))
    plot_speed(content["results"], args.docs / "images" / "speed.png")
    text = _INTRODUCTION + speed_section(content)
    device = args.output / "device.json"
    text += device_section(json.loads(device.read_text(encoding="utf-8")) if device.exists() else None)
    whole = args.output / "end_to_end.json"
    if whole.exists():
        text += end_to_end_section(json.loads(whole.read_text(encoding="utf-8")))
        shutil.copyfile(whole.with_suffix(".png"), args.docs / "images" / "end_to_end.png")
    # Tables of an earlier run stay.
    text += "".join(part for name, part in _INCLUDED.items() if (args.docs / "topics" / f"{name}.inc").exists())
    (args.docs / "topics" / "benchmarks.rst").write_text(text.rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
