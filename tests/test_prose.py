"""The parts of the style that a machine can check: entries read alone, lines that fit, words."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = ("rd_elbo", "experiments", "scripts")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# An entry is a noun phrase; these begin one that leans on the entry before it, or on the name.
LEANING = re.compile(
    r"(Of|Likewise|What|Which|Where|Why|How|See|From|Its|Their|Told|Asked|Whether it is)\b"
)
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
        documented = isinstance(
            node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        )
        if documented and (text := ast.get_docstring(node)):
            yield getattr(node, "name", "module"), text


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_entries_of_docstrings_can_be_read_alone(path):
    found = [
        (name, entry)
        for name, text in docstrings(ast.parse(path.read_text()))
        for entry in entries(text)
    ]
    assert [(name, entry) for name, entry in found if LEANING.match(entry)] == []


def test_an_entry_that_leans_on_another_is_found():
    text = "Do it.\n\nArgs:\n  x: (n,) nats.\n  y: Likewise.\n    What follows continues it.\n"
    text += "\nReturns:\n  What it took.\n"
    found = [entry for entry in entries(text) if LEANING.match(entry)]
    assert found == ["Likewise.", "What it took."]


def too_long(text):
    """Numbers of too long lines; tables, lone links and lone images cannot be broken."""
    lines = enumerate(text.splitlines(), start=1)
    whole = re.compile(r"\s*(\||(- )?!?\[[^\]]*\]\([^)]*\)\S*$)")
    return [i for i, line in lines if len(line) > WIDTH and not whole.match(line)]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_lines_of_pages_fit(path):
    assert too_long(path.read_text()) == []


def test_a_line_that_is_too_long_is_found():
    assert too_long(f"{'x' * 101}\n| {'x' * 101} |\n[{'x' * 101}](y)\n{'x' * 100}") == [1]


# Words that the glossary has replaced; old names of fields are in rd_elbo/aliases.py alone.
RETIRED = {"marginal", "marginals", "annealing", "lane", "lanes", "waste", "idle", "hypers"}
RETIRED |= {"listener", "watcher", "meter", "recorder", "company", "study"}
RETIRED |= {"keep", "take", "settle", "tell", "hear", "told", "heard"}
# Of orbax.
ALLOWED = {"max_to_keep"}


def identifiers(tree):
    """Names that code gives or uses, and strings that could be names of fields."""
    for node in ast.walk(tree):
        for field in ("id", "attr", "arg", "name", "asname"):
            if isinstance(name := getattr(node, field, None), str):
                yield name
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and node.value.isidentifier()
        ):
            yield node.value


def retired(source):
    found = {*identifiers(ast.parse(source))} - ALLOWED

    def words(name):
        return {*re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().split("_")}

    return sorted(name for name in found if RETIRED & words(name))


@pytest.mark.parametrize(
    "path", sorted((ROOT / "rd_elbo").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_identifiers_are_the_glossarys(path):
    assert path.name == "aliases.py" or retired(path.read_text()) == []


def test_a_retired_identifier_is_found():
    source = "class FlowMarginal:\n    loss = field['annealing']\n\n"
    source += "def f(tell): g(max_waste=1, max_to_keep=2)\n"
    assert retired(source) == ["FlowMarginal", "annealing", "max_waste", "tell"]
