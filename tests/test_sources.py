"""A part of a script or of a notebook is known by its own text."""

import linecache
import sys
import types

import pytest

import rd_elbo as rd
from rd_elbo.models import registry
from rd_elbo.sources import digest

CELL = """
import flax.linen as nn
FACTOR = 2

def scaled(x):
    return x * FACTOR

class Own(nn.Module):
    width: int = 3
    @nn.compact
    def __call__(self, z):
        x = nn.Dense(self.width)(z)
        return scaled(x)

class Wider(Own):
    width: int = 30
"""


@pytest.fixture
def notebook(monkeypatch):
    """A function that runs a cell as IPython does: its lines are in linecache and in no file."""
    main, cells = types.ModuleType("__main__"), []
    monkeypatch.setitem(sys.modules, "__main__", main)

    def run(text):
        cells.append(f"<cell {len(cells)}>")
        linecache.cache[cells[-1]] = len(text), None, text.splitlines(True), cells[-1]
        exec(compile(text, cells[-1], "exec"), vars(main))
        return main

    yield run
    for cell in cells:
        linecache.cache.pop(cell)


def test_another_text_is_another_part(notebook):
    """Comments and what a part does not name change nothing; helpers and constants do."""
    own, wider = digest(notebook(CELL).Own), digest(notebook(CELL).Wider)
    assert own and wider and own != wider
    others = CELL.replace("\n        return scaled", "  # why\n\n        return scaled")
    main = notebook(others + "x, z = 5, 6\n")
    assert digest(main.Own) == own and digest(main.Wider) == wider
    for old, new in (("x * FACTOR", "x + FACTOR"), ("FACTOR = 2", "FACTOR = 3")):
        main = notebook(CELL.replace(old, new))
        assert digest(main.Own) != own and digest(main.Wider) != wider, new
    assert digest(notebook(CELL.replace("= 30", "= 31")).Wider) != wider


def test_a_changed_cell_registers_its_part_again(notebook, monkeypatch):
    """A grid from before the change then holds the new members, under new names."""
    monkeypatch.setitem(registry._parts, "decoder", dict(registry._parts["decoder"]))
    rd.register_decoder("own", notebook(CELL).Own)
    members = rd.Member(decoder="own"), rd.Member(decoder="__main__:Own")
    before = [member.name for member in members]
    main = notebook(CELL.replace("width: int = 3", "width: int = 4"))
    rd.register_decoder("own", main.Own)
    assert [member.build((2, 2)).decoder for member in members] == [main.Own()] * 2
    assert not {member.name for member in members} & {*before}
    with pytest.raises(rd.BadInput, match="expected one that is not taken"):
        rd.register_decoder("own", main.Wider)
