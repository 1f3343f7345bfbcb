"""The benchmark's contenders compute what ours computes, and its tables say what was measured."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from benchmarks import cases, contender, flops, measure, ours, page, plain, report
from rd_elbo import disk
from rd_elbo.errors import BadInput, Failed
from rd_elbo.sweep.grid import architecture_of
from rd_elbo.sweep.work import work

_SMALL = {"encoder_width": 3, "decoder_width": 2, "latent": 3, "batch_size": 8}
TINY = {
    "mlp": {"encoder_width": 6, "decoder_width": 5},
    "conv": {"encoder_width": 2, "encoder_depth": 2, "decoder_depth": 2},
    "pixelcnn": {"decoder_depth": 1},
    "flow": {"flow_width": 5, "flow_steps": 2},
}


@pytest.fixture(scope="module")
def problem_of():
    """From a kind of members to a problem of two of them, made once."""
    made = {}

    def of(kind):
        if kind not in made:
            if kind == "toy":
                case = cases.Case("toy", "tiny", cases.TOY, 2)
            else:
                member = dataclasses.replace(cases.LARGE[kind], **(_SMALL | TINY[kind]))
                case = cases.Case(kind, "tiny", member, 2)
            made[kind] = cases.problem(case)
        return made[kind]

    return of


def explicit(member):
    """Multiplications of the gated MLP's layers, forward, by example."""
    pixels, hidden, width = 784, member.encoder_width, member.decoder_width
    encoder = [pixels * 2 * hidden, hidden * 2 * hidden, 2 * hidden * member.latent]
    return encoder, [member.latent * 2 * width, width * 2 * width, width * pixels]


def test_operations_of_a_dense_step_are_the_sum_over_its_products():
    member = cases.LARGE["mlp"]
    encoder, decoder = explicit(member)
    every = sum(encoder) + sum(decoder)
    assert flops.per_step(member, 7, forward=True) == 2 * 7 * every
    # Both gradients, but for that of the pixels.
    assert flops.per_step(member, 7) == 2 * 7 * (3 * every - encoder[0])


@pytest.mark.parametrize(("kind", "apart"), [("mlp", 0.02), ("flow", 0.1)])
def test_operations_forward_are_those_that_xla_counts(kind, apart):
    member = cases.LARGE[kind]
    counted = work(architecture_of(member), (28, 28), 1)
    assert flops.per_step(member, 1, forward=True) == pytest.approx(counted, rel=apart)


@pytest.mark.parametrize("kind", ["conv", "pixelcnn"])
def test_operations_of_convolutions_count_padding_that_xla_leaves_out(kind):
    member = cases.LARGE[kind]
    counted = work(architecture_of(member), (28, 28), 1)
    assert counted < flops.per_step(member, 1, forward=True) < 1.1 * counted


@pytest.mark.parametrize(
    "kind", ["mlp", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("conv", "pixelcnn"))]
)
def test_plain_flax_has_our_losses_and_gradients(problem_of, kind):
    own = problem_of(kind)
    assert contender.check(kind, plain.VmapFlax(own), own.probe) < 1e-5


@pytest.mark.usefixtures("x64")
def test_plain_toy_has_our_losses_and_gradients(problem_of):
    own = problem_of("toy")
    assert contender.check("toy", plain.VmapFlax(own), own.probe) < 1e-12


@pytest.fixture
def torch_contenders():
    """The module, where PyTorch is installed; on one thread, since tests share their cores."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    from benchmarks import torch_contenders

    yield torch_contenders
    torch.set_num_threads(threads)


@pytest.mark.parametrize("way", ["Torch", "TorchFunc"])
@pytest.mark.parametrize("kind", ["mlp", "conv", "pixelcnn", "flow"])
def test_pytorch_has_our_losses_and_gradients(problem_of, torch_contenders, kind, way):
    own = problem_of(kind)
    made = getattr(torch_contenders, way)(own)
    assert contender.check(kind, made, own.probe) < contender.TOLERANCE
    made.run(2)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("way", ["Torch", "TorchFunc"])
def test_pytorch_toy_has_our_losses_and_gradients(problem_of, torch_contenders, way):
    own = problem_of("toy")
    made = getattr(torch_contenders, way)(own)
    assert contender.check("toy", made, own.probe) < 1e-12


def test_adam_by_hand_moves_as_that_of_pytorch(problem_of, torch_contenders):
    own = problem_of("mlp")
    torch = pytest.importorskip("torch")
    by_hand = torch_contenders.TorchFunc(own)
    before = {name: p.clone() for name, p in by_hand._params.items()}
    gradients = {
        name: torch.sin(torch.arange(p.numel()).float()).view_as(p) for name, p in before.items()
    }
    for _ in range(3):
        by_hand._at += 1
        by_hand._adam(gradients)
    adam = torch.optim.Adam(list(before.values()), own.learning_rate)
    for name, p in before.items():
        p.grad = gradients[name]
    for _ in range(3):
        adam.step()
    for name, p in before.items():
        torch.testing.assert_close(by_hand._params[name], p)


def test_another_model_is_found_out(problem_of):
    own = problem_of("mlp")
    other = plain.VmapFlax(own)
    probed = other.probed
    other.probed = lambda probe: (
        probed(probe)[0],
        jax.tree.map(lambda g: 1.01 * g, probed(probe)[1]),
    )
    with pytest.raises(Failed, match=r"gradient from ours is 1\.0e-02"):
        contender.check("mlp", other, own.probe)


@pytest.fixture(scope="module")
def rows(problem_of):
    """Rows of a tiny case, of which one contender is not installed."""
    own, said = problem_of("mlp"), []
    names = "ours", "sequential", "vmap_flax", "torch"
    case = dataclasses.replace(own.case, suite="dense", contenders=names)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contender, "missing", {"torch": "torch is not installed"}.get)
        patch.setattr(measure, "problem", lambda _: own)
        found = measure.run_case(case, 3, 0.001, said.append)
    assert any("torch: absent" in sentence for sentence in said)
    return measure.with_peak(found, 100.0)


@pytest.mark.slow
def test_rows_hold_what_was_measured(problem_of, rows, tmp_path):
    report.write(tmp_path, "dense", rows, {"versions": {}})
    report.show(rows)
    read = disk.read_table(tmp_path / "dense.csv")
    assert (tmp_path / "dense.json").exists()
    assert tuple(read[0]) == measure.COLUMNS
    assert [row["contender"] for row in read] == ["ours", "sequential", "vmap_flax", "torch"]
    assert read[0]["ratio_to_ours"] == 1
    operations = flops.per_step(problem_of("mlp").case.member, 8)
    for row in read[:3]:
        assert row["status"] == "measured" and row["turns"] == 3
        assert row["low"] <= row["seconds_per_member_step"] <= row["high"]
        assert row["member_steps_per_second"] == pytest.approx(1 / row["seconds_per_member_step"])
        assert row["gflops"] * row["seconds_per_member_step"] == pytest.approx(1e-9 * operations)
        assert row["fraction_of_peak"] == pytest.approx(row["gflops"] / 100)


@pytest.mark.slow
def test_a_contender_that_is_not_installed_is_absent(rows):
    absent = rows[3]
    assert absent["status"] == measure.ABSENT and absent["note"] == "torch is not installed"
    assert absent["seconds_per_member_step"] == absent["ratio_to_ours"] == ""


def test_our_evaluation_runs(problem_of):
    own = problem_of("mlp")
    case, few = dataclasses.replace(own.case, forward=True), np.arange(8).reshape(4, 2)
    made = ours.Evaluation(dataclasses.replace(own, case=case, rows=few))
    made.run(made.unit)


def test_the_plot_is_drawn_from_its_table(tmp_path):
    table = []
    for case in cases.SCALING:
        for name, seconds in (("ours", 1 / case.members), ("torch", 1.0)):
            own = measure.blank(
                case, name, status=measure.MEASURED, seconds_per_member_step=seconds
            )
            own |= {"low": 0.9 * seconds, "high": 1.1 * seconds}
            table.append(own | {"member_steps_per_second": 1 / seconds})
    report.write(tmp_path, "scaling", table, {})
    assert [file.name for file in report.plot(tmp_path)] == ["scaling.png", "scaling.pdf"]


@pytest.mark.slow
def test_the_page_shows_the_tables(rows, tmp_path):
    folder, made = tmp_path / "results", tmp_path / "docs" / "benchmarks.md"
    versions = {"versions": {"jax": "1.2.3", "torch": None}, "revision": "0123456789"}
    report.write(folder, "dense", rows, versions | {"cores": 2, "processor": "a processor"})
    page.page(folder, made)
    text = made.read_text()
    assert "2 cores of a processor; peak 100 GFLOP/s.\nCommit 0123456; jax 1.2.3." in text
    assert "| tiny | `torch` | 2 | 8 | absent |" in text and "## Compilation" not in text
    assert all(len(line) <= 100 or line.startswith("|") for line in text.splitlines())


def test_a_case_that_does_not_exist_is_named():
    with pytest.raises(BadInput, match="only='vae': expected a case of flow, one of maf"):
        measure.run_suite("flow", 1, 1.0, print, math.inf, "vae")
