"""What is printed or drawn cannot end a run, and says what was done."""

import io
import os
import pathlib

import numpy as np
import pytest

import rd_elbo as rd
from rd_elbo import output
from rd_elbo.sweep import run


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
