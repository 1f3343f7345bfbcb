"""What a user can get wrong, each with its sentence: exit code 2, nothing trained, no file made.

The rows stand in `bad_inputs`. "@" stands for a folder of the row's own. A row's `harm` puts files
there first; its sentence is what no other mistake would get.
"""

import os
import pathlib

import pytest
from bad_inputs import data, flags, programs, settings, tables, workdirs
from forked import forked

ROWS = {
    "flags": flags.FLAGS,
    "files": flags.FILES,
    "settings": settings.SETTINGS,
    "data": data.OWN + data.NAMED,
    "workdirs": workdirs.WORKDIRS,
    "tables": tables.TABLES,
    "experiments": programs.EXPERIMENTS,
    "others": programs.OTHERS,
}


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    # Nothing that was kept elsewhere before stands in for what a row lacks.
    with forked(RD_ELBO_CACHE=str(tmp_path_factory.mktemp("cache"))) as process:
        yield process


def contents(folder):
    """Everything in a folder, to be compared: files with what is in them, folders with nothing."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=f"{kind}: {row.sentence}")
        for kind, rows in ROWS.items()
        for row in rows
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(scripts, tmp_path, row):
    if row.harm is workdirs.read_only and os.geteuid() == 0:
        pytest.skip(workdirs.AS_ROOT)
    row.harm(tmp_path)
    before = contents(tmp_path)
    result = scripts.run([argument.replace("@", str(tmp_path)) for argument in row.command])
    assert result.returncode == 2, result.stderr
    *above, last = result.stderr.splitlines()
    # argparse has a form of its own, of one line or several.
    own = last.startswith(f"{pathlib.Path(row.command[0]).name}: ")
    usage, error = (above, last.partition(": ")[2]) if own else ([], last)
    assert above == usage and "".join(usage[:1]).startswith("usage: " if usage else "")
    assert all(line.startswith(" ") for line in usage[1:])
    assert error.startswith("error: ") and row.sentence.replace("@", str(tmp_path)) in error
    assert contents(tmp_path) == before


def test_what_the_rows_damage_is_good_before(scripts, tmp_path):
    """Else every row of a run directory might be refused for another reason."""
    tables.finished(tmp_path)
    result = scripts.run(("scripts/compare.py", f"--workdir={tmp_path / 'run'}"))
    assert result.returncode == 0 and not result.stderr
    assert (tmp_path / "run" / "comparison.csv").exists()
