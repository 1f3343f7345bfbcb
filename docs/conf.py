"""Configuration of Sphinx; `make docs` builds the pages.

The source folder is the repository, so that links between pages, results and code are the same
relative paths on GitHub and here. Only pages named in `include_patterns` are read.
"""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

project = _PROJECT["name"]
author = _PROJECT["authors"][0]["name"]
version = release = _PROJECT["version"]
project_copyright = author

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
include_patterns = ["*.md", "docs/*.md", "results/*/README.md"]
exclude_patterns = [".*", "build", "docs/_build", "runs"]
root_doc = "docs/index"
templates_path = ["_templates"]

myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
# Single backticks name code, and become links where there is something to link to.
default_role = "py:obj"
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "pydata_sphinx_theme"
html_title = f"{project} {release}"
# The root page is docs/index.html; this one sends readers there.
html_additional_pages = {"index": "redirect.html"}
html_theme_options = {"show_prev_next": True}


def _prepare(app, what, name, obj, options, lines):
    """Escape what has another meaning in reST and napoleon than in our docstrings.

    Vertical bars are norms here, substitutions in reST. Napoleon takes the words before a colon for
    a type where a result or a property is described; a colon in front of them gives an empty type.
    """
    literal = None
    for i, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if literal is not None and line.strip() and indent <= literal:
            literal = None
        if literal is None and not line.lstrip().startswith(">>>"):
            lines[i] = line.replace("|", r"\|")
            literal = indent if line.endswith("::") else None
        described = lines[i - 1] == "Returns:" if i else what in ("property", "attribute", "data")
        if described and ": " in line:
            lines[i] = f"{' ' * indent}: {lines[i].lstrip()}"


def _skip(app, what, name, obj, skip, options):
    """Leave out the fields of named tuples, which their classes describe."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def setup(app):
    """Connect the hooks above, the first before napoleon's."""
    app.connect("autodoc-process-docstring", _prepare, priority=400)
    app.connect("autodoc-skip-member", _skip)
