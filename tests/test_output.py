"""What is printed or drawn cannot end a run, and says what was done."""

import io
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import rd_elbo as rd
from rd_elbo import output
from rd_elbo.sweep import run
from scripts import console as terminal


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="needs a device that is full")
def test_a_full_disk_ends_nothing():
    stream = output.Tolerant(os.fdopen(os.open("/dev/full", os.O_WRONLY), "w"))
    for _ in range(2):
        assert stream.write("text" * 10_000) == 40_000
        stream.flush()
    stream.close()


def test_a_closed_pipe_ends_nothing():
    reader, writer = os.pipe()
    os.close(reader)
    stream = output.Tolerant(os.fdopen(writer, "w"))
    stream.write("text")
    stream.flush()
    stream.close()


def test_an_encoding_without_a_character_ends_nothing():
    raw = io.BytesIO()
    stream = output.Tolerant(io.TextIOWrapper(raw, "ascii"))
    stream.write("1 ± 2")
    stream.flush()
    assert raw.getvalue() == b"1 ? 2"


def test_home_folders_in_flags(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert output.expanded("--workdir=~/runs") == "--workdir=/home/me/runs"
    assert output.expanded("--config.data.path=~") == "--config.data.path=/home/me"
    assert output.expanded("--workdir=runs~") == "--workdir=runs~"
    assert output.expanded("~/runs") == "/home/me/runs"


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["nonsense", "module://matplotlib_inline.backend_inline"])
def test_a_backend_that_is_not_there_ends_nothing(tmp_path, backend):
    """Notebooks set one in the environment of their terminals."""
    code = f"""
from rd_elbo.report import style
figure, axes = style.subplots(figsize=(1, 1))
print(len(style.save(figure, __import__("pathlib").Path({str(tmp_path)!r}), "figure")))
"""
    environment = os.environ | {"MPLBACKEND": backend}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.stdout == "2\n", result.stderr


def test_texts_are_printed_as_they_are(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "0")
    terminal.make_console().print("points in runs/[red]a[/b]:sunny:", soft_wrap=True)
    assert capsys.readouterr().out == "points in runs/[red]a[/b]:sunny:\n"


@pytest.mark.parametrize("rate", [0.0, -0.003])
def test_the_axis_of_rates_rises_where_no_rate_is_above_zero(rate):
    point = {"objective": "beta", "seed": 0, "status": "ok", "beta": 1.0}
    figure = rd.plots.rd_plane([{**point, "rate": rate, "distortion": 3.0}])
    low, high = figure.axes[0].get_xlim()
    assert low < rate < high


def test_a_run_is_bound_to_data_and_not_to_their_place():
    here, there = ({"name": "a", "data": {"name": "path", "path": path}} for path in ("a", "./a"))
    assert run._bound(here) == run._bound(there)
    assert run._bound(here) != run._bound({**here, "data": {"name": "path", "examples": 3}})


def test_the_origin_says_no_more_examples_than_there_are():
    bits = np.arange(40).reshape(10, 2, 2) % 2
    few = rd.Dataset.from_arrays(bits, bits[:5])
    assert few.head(4).origin.endswith("; 4 examples of each split")
    assert few.head(8).origin.endswith("; at most 8 examples of each split")
