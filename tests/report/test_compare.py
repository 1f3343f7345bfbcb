"""Our points beside the paper's, against what is worked out by hand."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from rd_elbo import disk
from rd_elbo.errors import BadInput
from rd_elbo.report import compare, paper
from rd_elbo.sweep import tables
from rd_elbo.sweep.tables import POINT_COLUMNS
from tests.report.rows import row

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def points():
    return [
        row("-+v", 5.0, 77.0, beta=1.0, seed=1),
        row("-+v", 0.5, 81.0, beta=1.0, kl_warmup_fraction=0.5),
        row("-+v", 40.0, 50.0, beta=0.5),
        row("---", 27.0, 61.0, beta=1.0, decoder_width=128),
        row("---", 60.0, 38.0, beta=0.25, decoder_width=16),
        row("---", 20.0, 67.5, objective="target_rate", target_rate=20.0, decoder_width=16),
        row("---", float("nan"), float("nan"), beta=0.1, status="diverged", decoder_width=16),
        row("---", 1.0, 1.0, beta=1.0, split="train"),
    ]


def test_runs_stand_beside_every_printed_model_of_their_family_and_beta(points):
    compared = compare.compare(points, "binarized_mnist")
    assert compared.split == "test" and compared.reference.same_data
    names = ("family", "beta", "target", "kl_warmup_fraction", "seed", "paper_rate")
    found = [tuple(r.get(name) for name in names) for r in compared.runs]
    assert found == [
        ("---", 0.1, "", 0.0, 0, None),
        ("---", 0.25, "", 0.0, 0, None),
        ("---", "", 20.0, 0.0, 0, None),
        ("---", 1.0, "", 0.0, 0, 27.1),
        ("-+v", 0.5, "", 0.0, 0, None),
        ("-+v", 1.0, "", 0.0, 1, 0.0),
        ("-+v", 1.0, "", 0.0, 1, 6.2),
        ("-+v", 1.0, "", 0.5, 0, 0.0),
        ("-+v", 1.0, "", 0.5, 0, 6.2),
    ]
    models = [r["model"] for r in compared.runs[:4]]
    assert models == ["decoder width 16"] * 3 + ["decoder width 128"]
    annealed = compared.runs[6]
    assert annealed["paper_annealed"] == "yes" and annealed["paper_how"] == "figure"
    assert annealed["paper_distortion"] == 74.1
    np.testing.assert_allclose(
        [annealed["total"], annealed["paper_total"], annealed["difference"]], [82.0, 80.3, 1.7]
    )
    assert compared.runs[5]["paper_annealed"] == "no"
    assert compared.runs[3]["paper_annealed"] == "not stated"


def test_areas_are_against_the_papers_hull():
    """Points three nats above its corners lie three nats above it everywhere, as a hull."""
    mnist = paper.reference("mnist_static")
    rates, distortions = mnist.hull
    ours = [
        row("-+v", float(r), float(d) + 3, beta=1 + i)
        for i, (r, d) in enumerate(zip(rates, distortions, strict=True))
    ]
    steps, hull = compare.compare(ours, "mnist_static").areas
    assert (hull["curve"], hull["lowest_rate"], hull["highest_rate"]) == ("hull", 0.0, 156.0)
    np.testing.assert_allclose(
        [hull["mean_gap"], hull["area"], hull["above"]], [3, 3 * 156, 3 * 156]
    )
    np.testing.assert_allclose(hull["below"], 0, atol=1e-9)
    # Steps wait for the next corner to fall: half a triangle more between any two.
    triangles = (np.diff(rates) * -np.diff(distortions)).sum() / 2
    np.testing.assert_allclose(steps["area"], 3 * 156 + triangles)
    # Diverged points, other splits and worse points change nothing.
    left_out = [row("---", 1.0, 1.0, split="train"), row("---", 1.0, 1.0, status="diverged")]
    more = [*ours, row("---", 30.0, 90.0), *left_out]
    assert compare.compare(more, "mnist_static").areas == [steps, hull]


def test_rates_that_the_paper_does_not_cover():
    beyond = [row("---", 200.0, 3.0), row("---", 210.0, 2.0)]
    areas = compare.compare(beyond, "binarized_mnist").areas
    assert [np.isnan(r["area"]) and np.isnan(r["mean_gap"]) for r in areas] == [True, True]


def test_the_best_of_each_family(points):
    bests = {r["family"]: r for r in compare.compare(points, "binarized_mnist").bests}
    assert list(bests) == ["---", "-+v", "all"]
    weak, strong, best = bests.values()
    assert (weak["total"], weak["paper_total"]) == (87.5, 86.9)
    assert weak["paper_how"] == "digitised" and "paper_rate" not in weak
    assert (strong["total"], strong["seed"], strong["paper_rate"]) == (81.5, 0, 6.2)
    assert strong["paper_annealed"] == "yes"
    assert (best["total"], best["paper_rate"], best["paper_distortion"]) == (81.5, 8.3, 71.9)
    assert "-+v" in best["model"]
    frozen = row("---", 1.0, 2.0, status="diverged")  # at its last finite state
    assert compare.compare([*points, frozen], "binarized_mnist").bests == [weak, strong, best]
    np.testing.assert_allclose([best["difference"], weak["difference"]], [1.3, 0.6])


def test_without_the_papers_numbers_ours_are_there(points):
    for dataset in ("path", None):
        compared = compare.compare(points, dataset)
        assert compared.reference is None and compared.areas == []
        assert len(compared.runs) == 7
        assert all(r["paper_total"] == "" and r["difference"] == "" for r in compared.rows)
        assert [r["total"] for r in compared.bests] == [87.5, 81.5, 81.5]


def test_splits(points):
    assert compare.compare(points, "path", "train").bests[0]["total"] == 2.0
    assert compare.compare(points[-1:], "path").split == "train"
    with pytest.raises(
        BadInput, match="split='valid': expected a split of the table, one of 'test'"
    ):
        compare.compare(points, "path", "valid")
    with pytest.raises(BadInput, match="expected finite points"):
        compare.compare([row("---", 1.0, 1.0, status="diverged")], "path")


def test_families_beyond_the_papers_come_last():
    odd = [row(family, 1.0, 80.0 + i) for i, family in enumerate(("--r", "++v", "--e", "---"))]
    compared = compare.compare(odd, "binarized_mnist")
    assert [r["family"] for r in compared.runs] == ["---", "++v", "++v", "--e", "--r"]
    assert "paper_total" not in compared.bests[2] and compared.bests[-1]["total"] == 81.0


def script(*arguments):
    command = [sys.executable, str(ROOT / "scripts" / "compare.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_script_prints_and_writes_the_same_table(points, tmp_path):
    disk.write_table(tmp_path / "points.csv", POINT_COLUMNS, points)
    disk.write_json(tmp_path / "provenance.json", {"data": {"name": "mnist_static"}})
    result = script(f"--workdir={tmp_path}")
    assert result.returncode == 0, result.stderr
    assert all(text in result.stdout for text in ("another draw", "R = 20", "diverged"))
    written = disk.read_table(tmp_path / "comparison.csv")
    expected = compare.compare(tables.read_points(tmp_path), "mnist_static").rows
    np.testing.assert_equal(written, expected)
    sections = ["run"] * 9 + ["hull"] * 4 + ["area"] * 2 + ["best"] * 3
    assert [r["section"] for r in written] == sections
    flat = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "-+v β = 1 0 1 5.00 77.00 82.00 0.0 81.0 81.0 +1.00 Fig. 4c, 5; not annealed" in flat
    assert "6.2 74.1 80.3 +1.70 Fig. 4a, 6; annealed" in flat
    assert any(line.startswith("hull 0.5 to 60.0 ") for line in flat)


def test_the_script_prints_markdown(points, tmp_path):
    disk.write_table(tmp_path / "points.csv", POINT_COLUMNS, points)
    (tmp_path / "config.json").write_text(json.dumps({"data": {"name": "binarized_mnist"}}))
    lines = script(f"--workdir={tmp_path}", "--markdown").stdout.splitlines()
    tables = [line for line in lines if line.startswith("|")]
    assert sum(set(line) <= set("|-: ") for line in tables) == 4  # rules below four headers
    assert (
        "| `-+v` |  | β = 1 | 0.50 | 81.00 | 81.50 | 6.2 | 74.1 | 80.3 | +1.20 "
        "| Fig. 4a, 6; annealed |" in tables
    )
    assert (
        "| `---` | decoder width 16 | R = 20 | 20.00 | 67.50 | 87.50 |  |  | 86.9 | +0.60 "
        "| Fig. 3; read off |" in tables
    )
    for block in "\n".join(lines).split("\n\n"):
        widths = {line.count("|") for line in block.splitlines()} if block.startswith("|") else {0}
        assert len(widths) == 1
