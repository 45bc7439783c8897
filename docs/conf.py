"""Configuration of the Sphinx documentation."""

import datetime
import importlib.metadata

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
]
exclude_patterns = ["_build", "api/.gitkeep"]
default_role = "obj"
nitpicky = True
nitpick_ignore_regex = [
    # Words of numpydoc types that are no objects
    (r"py:.*", r"optional|array-like|sequence.*|iterable.*|callable|path of a folder"),
]
intersphinx_mapping = {
    "python": ("https://docs.python.org/3", None),
    "numpy": ("https://numpy.org/doc/stable", None),
    "astropy": ("https://docs.astropy.org/en/stable", None),
    "sunpy": ("https://docs.sunpy.org/en/stable", None),
    "aiapy": ("https://aiapy.readthedocs.io/en/stable", None),
    "ndcube": ("https://docs.sunpy.org/projects/ndcube/en/stable", None),
    "matplotlib": ("https://matplotlib.org/stable", None),
    "torch": ("https://docs.pytorch.org/docs/stable", None),
}
html_theme = "sunpy"
