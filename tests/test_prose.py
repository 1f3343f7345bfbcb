"""Docstrings whose entries can be read alone, and pages whose lines fit: the parts of the style that a machine can check."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
SOURCES = sorted(path for folder in ("rd_elbo", "experiments", "scripts") for path in (ROOT / folder).rglob("*.py"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# An entry is a noun phrase; these begin one that leans on the entry before it, or on the name.
LEANING = re.compile(r"(Of|Likewise|What|Which|Where|Why|How|See|From|Its|Their|Told|Asked|Whether it is)\b")
WIDTH = 100


def entries(docstring):
    """The descriptions in the sections Args, Attributes and Returns of a docstring."""
    section = None
    for line in docstring.splitlines():
        if heading := re.fullmatch(r"(Args|Attributes|Returns|Raises):", line):
            section = heading[1]
        elif line and not line.startswith(" "):
            section = None
        elif section in ("Args", "Attributes") and (entry := re.match(r"  [*\w][^:]*: (.*)", line)):
            yield entry[1]
        elif section == "Returns" and re.match(r"  \S", line):
            yield line.strip()
            section = None  # its other lines continue the first


def docstrings(tree):
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and (text := ast.get_docstring(node)):
            yield getattr(node, "name", "module"), text


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_entries_of_docstrings_can_be_read_alone(path):
    found = [(name, entry) for name, text in docstrings(ast.parse(path.read_text())) for entry in entries(text)]
    assert [(name, entry) for name, entry in found if LEANING.match(entry)] == []


def test_an_entry_that_leans_on_another_is_found():
    text = "Do it.\n\nArgs:\n  x: (n,) nats.\n  y: Likewise.\n    What follows continues it.\n\nReturns:\n  What it took.\n"
    assert [entry for entry in entries(text) if LEANING.match(entry)] == ["Likewise.", "What it took."]


def too_long(text):
    """Numbers of the lines that are too long; tables, and lines that are a link or an image alone, cannot be broken."""
    lines = enumerate(text.splitlines(), start=1)
    return [i for i, line in lines if len(line) > WIDTH and not re.match(r"\s*(\||(- )?!?\[[^\]]*\]\([^)]*\)\S*$)", line)]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_lines_of_pages_fit(path):
    assert too_long(path.read_text()) == []


def test_a_line_that_is_too_long_is_found():
    assert too_long(f"{'x' * 101}\n| {'x' * 101} |\n[{'x' * 101}](y)\n{'x' * 100}") == [1]
