"""Configuration of the Sphinx documentation."""

import datetime
import importlib.metadata
import logging
import os
import urllib.error
import urllib.request
import warnings
from pathlib import Path

from ndcube import NDCube

from sunpy_deepem import DEMCube, log
from sunpy_deepem.training import DEMPrior

os.environ.setdefault("MPLBACKEND", "agg")  # Before anything imports pyplot

project = "sunpy_deepem"
author = "The sunpy_deepem developers"
copyright = f"{datetime.datetime.now(tz=datetime.UTC).year}, {author}"
release = importlib.metadata.version("sunpy_deepem")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_automodapi.automodapi",
    "sphinx_automodapi.smart_resolver",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build"]
html_theme = "sunpy"
html_title = "sunpy_deepem"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_favicon = "_static/favicon.svg"
# Names in the list of contents of a page without their class, which would fill it
toc_object_entries_show_parents = "hide"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# -- Cross references ------------------------------------------------------------------------------------------------

# Types in docstrings are text with references; not every word is an object
napoleon_google_docstring = False
napoleon_use_param = False
napoleon_use_rtype = False
napoleon_use_ivar = True
# Docstrings give types with shapes and units
autodoc_typehints = "none"
default_role = "obj"
nitpicky = True
nitpick_ignore_regex = [
    # Words of numpydoc types
    (r"py:.*", r"optional|array-like|callable|[{\"].*"),
    # Not in the inventory of its package under this name
    (r"py:.*", r"bokeh\.models\.LayoutDOM|fiasco\.IonCollection"),
    # A base class that only DeepEM uses
    (r"py:class", r"sunpy_deepem\.network\.draws\.PosteriorDraws"),
]

# Documentation of other packages, and the names of their objects
_ELSEWHERE = {
    "python": ("https://docs.python.org/3", r"collections|concurrent|datetime|enum|pathlib|threading|typing"),
    "numpy": ("https://numpy.org/doc/stable", r"numpy|np"),
    "astropy": ("https://docs.astropy.org/en/stable", r"astropy|u"),
    "sunpy": ("https://docs.sunpy.org/en/stable", r"sunpy"),
    "aiapy": ("https://aiapy.readthedocs.io/en/stable", r"aiapy"),
    "ndcube": ("https://docs.sunpy.org/projects/ndcube/en/stable", r"ndcube"),
    "matplotlib": ("https://matplotlib.org/stable", r"matplotlib"),
    "torch": ("https://docs.pytorch.org/docs/stable", r"torch"),
    "regions": ("https://astropy-regions.readthedocs.io/en/stable", r"regions"),
    "dask": ("https://docs.dask.org/en/stable", r"dask"),
    "distributed": ("https://distributed.dask.org/en/stable", r"distributed"),
    "xarray": ("https://docs.xarray.dev/en/stable", r"xarray"),
}
intersphinx_mapping = {}


def _has_inventory(url):
    try:
        with urllib.request.urlopen(f"{url}/objects.inv", timeout=10):
            return True
    except (urllib.error.URLError, TimeoutError):
        return False


# Without the inventory of a package, as without a network, references to it are not checked, with a log message.
# References within this package are always checked.
for _name, (_url, _objects) in _ELSEWHERE.items():
    if _has_inventory(_url):
        intersphinx_mapping[_name] = (_url, None)
        continue
    logging.getLogger(__name__).warning("No inventory of %s: references to it are not checked.", _name)
    nitpick_ignore_regex.append((r"py:.*", rf"({_objects})(\..*)?"))
    if _name == "python":
        _builtins = (
            r"(bool|bytes|dict|float|int|list|object|set|str|tuple|type|slice|True|False|None|\w+(Error|Warning))"
        )
        nitpick_ignore_regex.append((r"py:.*", _builtins))

# -- Gallery ---------------------------------------------------------------------------------------------------------

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "generated/gallery",
    # Other examples need a network
    "filename_pattern": r"[\\/]plot_",
    "within_subsection_order": "FileNameSortKey",
    "matplotlib_animations": True,
    "write_computation_times": False,
    "show_memory": False,
    # Only printed text; not the last value of a block, such as a legend or a list of lines
    "capture_repr": (),
    "remove_config_comments": True,
    "doc_module": ("sunpy_deepem",),
    "backreferences_dir": "generated/backreferences",
}
warnings.filterwarnings("ignore", message="Matplotlib is currently using agg")
log.setLevel("WARNING")  # pages hold what examples print, not their progress


# -- Included tables ------------------------------------------------------------------------------------------------

# The page of the weights includes them as they are in the code
_generated = Path(__file__).parent / "generated"
_generated.mkdir(exist_ok=True)
_frequencies = [["Family", "default", "neutral"]] + [
    [family, *(f"{weights.get(family, 0):.1%}" for weights in (DEMPrior.WEIGHTS, DEMPrior.NEUTRAL_WEIGHTS))]
    for family in DEMPrior.WEIGHTS
]
_lines = [f"   {'*' if not column else ' '} - {cell}" for row in _frequencies for column, cell in enumerate(row)]
_table = "\n".join([".. list-table::", "   :header-rows: 1", "", *_lines, ""])
(_generated / "prior.inc").write_text(_table, encoding="utf-8")

# Pages include tables of benchmarks, which benchmarks/page.py writes, where they were measured
for _name in ("topics/accuracy", "topics/calibration", "topics/exact", "howto/flare", "howto/left_out"):
    _measured = Path(__file__).parent / f"{_name}.inc"
    (_generated / _measured.name).write_text(
        _measured.read_text(encoding="utf-8") if _measured.exists() else "", encoding="utf-8"
    )

# Members of DEMCube by subject, which is the mixin that defines them
_SUBJECTS = {
    "Products": "Maps and curves",
    "PosteriorDraws": "Posterior draws",
    "PriorSensitivity": "Influence of the prior",
    "ChannelProducts": "Synthetic and observed maps",
    "Resampling": "Rebin and reproject",
    "Arithmetic": "Arithmetic",
}


def _subject(name, member, owner):
    if owner is not DEMCube:
        return _SUBJECTS.get(owner.__name__, owner.__name__)
    if name.startswith(("plot", "animate", "view")):
        return "Figures"
    return "Data" if isinstance(member, property) and name not in ("read", "write") else "Make, read, write and convert"


def _grouped_members(cube):
    """Return a section of directives for each subject."""
    sections = {}
    for owner in cube.__mro__[: cube.__mro__.index(NDCube)]:
        for name, member in vars(owner).items():
            if name.startswith("_"):
                continue
            kind = "property" if isinstance(member, property) else "method"
            kind = "attribute" if name in ("read", "write") else kind
            sections.setdefault(_subject(name, member, owner), {})[name] = kind
    text = ""
    first = ["Data", *_SUBJECTS.values()]
    for title in [
        *(title for title in first if title in sections),
        *(title for title in sections if title not in first),
    ]:
        text += f"{title}\n{'-' * len(title)}\n\n"
        text += "".join(f".. auto{kind}:: sunpy_deepem.DEMCube.{name}\n\n" for name, kind in sections[title].items())
    return text


(_generated / "demcube.inc").write_text(_grouped_members(DEMCube), encoding="utf-8")

# -- Names in docstrings ---------------------------------------------------------------------------------------------


def _resolve_short_name(app, env, node, contnode):
    """Resolve short names, such as DEMCube.curve, to the documented object."""
    if node.get("refdomain") != "py" or not node.get("reftarget"):
        return None
    domain = env.get_domain("py")
    parts = node["reftarget"].removeprefix("sunpy_deepem.").split(".")
    for start in range(len(parts)):
        suffix = "." + ".".join(parts[start:])
        found = [name for name in domain.objects if name.startswith("sunpy_deepem.") and name.endswith(suffix)]
        # Only full names may omit modules
        if found and (start == 0 or node["reftarget"].startswith("sunpy_deepem.")):
            shortest = min(found, key=lambda name: (name.count("."), name))
            return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", shortest, node, contnode)
    return None


def setup(app):
    app.connect("missing-reference", _resolve_short_name)
