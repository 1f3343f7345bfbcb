"""Files appear whole or not at all, and read back as written."""

import hashlib
import stat

import numpy as np
import pytest

from rd_elbo import disk
from rd_elbo.errors import BadInput


def test_tables_read_back_to_the_last_digit(tmp_path):
    rows = [
        {"member": "0123456789", "rate": 1 / 3, "seed": 7, "status": "ok"},
        {
            "member": "12e4567890",
            "rate": float("nan"),
            "seed": -1,
            "status": 'with, comma and "quotes"',
        },
    ]
    path = tmp_path / "deep" / "points.csv"
    disk.write_table(path, ("member", "rate", "seed", "status"), rows)
    back = disk.read_table(path)
    assert back[0] == rows[0] and isinstance(back[0]["seed"], int)
    assert np.isnan(back[1]["rate"]) and back[1]["member"] == "12e4567890"
    assert back[1]["status"] == rows[1]["status"]


def test_truth_values_of_tables_read_back_as_such(tmp_path):
    row = {"on": True, "off": False, "word": "true"}
    disk.write_table(tmp_path / "a.csv", tuple(row), [row])
    assert disk.read_table(tmp_path / "a.csv") == [{"on": True, "off": False, "word": "true"}]


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "points.csv"
    disk.write_table(path, ("a",), [{"a": 1}])
    before = path.read_bytes()

    def rows():
        yield {"a": 2}
        raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError):
        disk.write_table(path, ("a",), rows())
    with pytest.raises(ValueError, match="dict contains fields"):
        disk.write_table(path, ("a",), [{"a": 1, "b": 2}])
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~disk._umask()


def test_torn_and_missing_tables_are_refused(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("a,b\n1,2\n3\n")
    with pytest.raises(BadInput, match="line 3"):
        disk.read_table(path)
    with pytest.raises(BadInput, match="expected a readable file"):
        disk.read_table(tmp_path / "absent.csv")


def test_the_first_difference_is_told_by_its_place():
    before = {"a": 1, "b": {"c": [1, 2], "d": 3}}
    assert disk.difference(before, {"a": 1, "b": {"c": [1, 2], "d": 3}}) is None
    after = {"a": 1, "b": {"c": [1, 3], "d": 4}}
    assert disk.difference(before, after) == "b.c was [1, 2] and is [1, 3]"
    assert disk.difference(before, {"a": 1}) == "b was {'c': [1, 2], 'd': 3} and is None"
    # A field that is younger than the file.
    assert disk.difference({"a": 1, "b": None}, {"a": 1}) is None


def test_what_went_wrong_is_one_short_line():
    assert disk.gist(OSError(28, "No space left on device", "x")) == "No space left on device"
    assert disk.gist(ValueError("first\nsecond")) == "first"
    assert disk.gist(MemoryError()) == "MemoryError"
    assert len(disk.gist(ValueError("x" * 1000))) == 200


def test_digest(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    assert disk.sha256(tmp_path / "file") == hashlib.sha256(b"content").hexdigest()
