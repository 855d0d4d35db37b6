"""Sphinx configuration. Builds offline and with warnings as errors: ``make docs``."""

from __future__ import annotations

import os
from importlib.metadata import version as installed_version
from typing import Any

project = "omicvae"
author = "omicvae developers"
copyright = f"2026, {author}"
release = version = installed_version("omicvae")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinxcontrib.bibtex",
]
exclude_patterns = ["_build", "jupyter_execute", "**.ipynb_checkpoints"]
templates_path = ["_templates"]
# A docstring may list a reference that its text does not cite by number.
suppress_warnings = ["ref.footnote"]

# Links into other projects need their inventories, hence the network.
if {"OMICVAE_DOCS_ONLINE", "READTHEDOCS"} & os.environ.keys():
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "anndata": ("https://anndata.readthedocs.io/en/stable", None),
        "mudata": ("https://mudata.readthedocs.io/stable", None),
        "muon": ("https://muon.readthedocs.io/en/latest", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "pandas": ("https://pandas.pydata.org/docs", None),
        "python": ("https://docs.python.org/3", None),
        "scanpy": ("https://scanpy.readthedocs.io/en/stable", None),
        "scvi-tools": ("https://docs.scvi-tools.org/en/stable", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
    }

html_theme = "sphinx_book_theme"
html_title = "omicvae"
html_theme_options = {"show_toc_level": 2, "navigation_with_keys": False}

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
# Notebooks are committed with their outputs.
nb_execution_mode = "off"

bibtex_bibfiles = ["references.bib"]
bibtex_reference_style = "author_year"

# What a module's page lists is its __all__.
autosummary_generate = True
autosummary_ignore_module_all = False
autosummary_imported_members = False
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False


def _skip_foreign(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out what a class inherits from another package, and named tuples' "Alias for field number 0"."""
    module = getattr(getattr(obj, "fget", obj), "__module__", None) or "omicvae"
    alias = (getattr(obj, "__doc__", None) or "").startswith("Alias for field number")
    return True if alias or module.split(".")[0] != "omicvae" else None


def setup(app: Any) -> None:
    """Register the hook above."""
    app.connect("autodoc-skip-member", _skip_foreign)
