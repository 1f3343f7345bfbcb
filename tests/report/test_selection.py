"""Models of a gallery are chosen as the table says, on tables small enough to choose by hand."""

import dataclasses
import itertools
import math

import numpy as np
import pytest

from rd_elbo.errors import BadInput
from rd_elbo.report import selection
from rd_elbo.sweep.grid import Member


def row(family="---", *, rate=10.0, distortion=80.0, status="ok", split="test", **fields):
    """A row of points.csv; `family` may name one that members cannot have yet."""
    member = Member(**fields)
    return {
        **dataclasses.asdict(member),
        "member": member.name,
        "split": split,
        "family": family,
        "status": status,
        "rate": rate,
        "distortion": distortion,
    }


def gap(values, indices):
    return min(np.diff([values[i] for i in indices]), default=math.inf)


def test_spread_by_hand():
    assert selection.spread([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 4) == [0, 3, 6, 9]
    assert selection.spread([9.0, 0.0, 5.0, 1.0], 3) == [1, 2, 0]
    assert selection.spread([3.0, 1.0], 5) == [1, 0]
    assert selection.spread([3.0, 1.0, 2.0], 1) == [1]
    assert selection.spread([2.0, 2.0, 2.0, 2.0], 3) == [0, 1, 3]
    assert selection.spread([], 3) == []


@pytest.mark.parametrize("seed", range(20))
def test_spread_is_the_best_of_all_subsets(seed):
    random = np.random.default_rng(seed)
    values = list(np.round(random.exponential(size=9), 1))  # with ties
    for most in (2, 3, 4, 6):
        chosen = selection.spread(values, most)
        assert len(set(chosen)) == most
        picked = [values[i] for i in chosen]
        assert picked == sorted(picked) and picked[0] == min(values) and picked[-1] == max(values)
        best = max(np.diff(subset).min() for subset in itertools.combinations(sorted(values), most))
        assert gap(values, chosen) == pytest.approx(best)


def test_by_beta_prefers_an_autoregressive_decoder_then_more_betas():
    factorised = [row("---", beta=beta) for beta in (0.1, 0.2, 0.5, 1.0, 2.0)]
    short = [row("-+-", decoder="pixelcnn", beta=beta, distortion=60.0) for beta in (0.5, 1.0)]
    long = [row("-+-", decoder="pixelcnn", decoder_width=8, beta=beta) for beta in (2.0, 0.5, 1.0)]
    chosen = selection.by_beta(factorised + short + long)
    assert [r["beta"] for r in chosen] == [0.5, 1.0, 2.0]
    assert {(r["decoder"], r["decoder_width"]) for r in chosen} == {("pixelcnn", 8)}
    # One beta is no curve.
    chosen = selection.by_beta(factorised + short[:1], most=9)
    assert [r["beta"] for r in chosen] == [0.1, 0.2, 0.5, 1.0, 2.0]
    # Of as many betas, the lower R + D.
    better = [
        row("-+-", decoder="pixelcnn", decoder_width=9, beta=beta, distortion=79.0)
        for beta in (0.5, 1.0, 4.0)
    ]
    assert {r["decoder_width"] for r in selection.by_beta(long + better)} == {9}


def test_by_beta_is_spread_over_the_logarithm_ends_included():
    rows = [row("-+-", beta=beta) for beta in (0.1, 0.11, 0.12, 0.32, 0.9, 1.0, 1.1, 10.0)]
    assert [r["beta"] for r in selection.by_beta(rows, most=3)] == [0.1, 1.0, 10.0]
    # A beta of 0 is an end too.
    assert selection.by_beta([*rows, row("-+-", beta=0.0)], most=3)[0]["beta"] == 0.0


def test_by_beta_takes_the_lowest_seed_that_did_not_diverge_and_no_target_rates():
    rows = [row("-+-", beta=beta, seed=seed) for seed in (2, 1, 0) for beta in (1.0, 0.5)]
    rows[-1] = {**rows[-1], "status": "diverged"}  # beta 0.5, seed 0
    rows[-2] = {**rows[-2], "rate": float("nan")}  # beta 1, seed 0
    rows += [row("-+-", objective="target_rate", target_rate=3.0)]
    assert [(r["beta"], r["seed"]) for r in selection.by_beta(rows)] == [(0.5, 1), (1.0, 1)]
    assert selection.by_beta(rows[-1:]) == []


def test_by_family_takes_beta_one_and_nothing_annealed():
    rows = [
        row("-+v", beta=1.0, kl_warmup_fraction=0.5, distortion=50.0),
        row("-+v", beta=1.0, seed=1, distortion=60.0),
        row("-+v", beta=1.0, distortion=70.0),
        row("-+v", beta=1.0, decoder_width=8, distortion=69.0),
        row("-+v", beta=0.5, distortion=10.0),
        row("-+v", objective="target_rate", target_rate=3.0, distortion=10.0),
        row("+--", beta=1.0),
    ]
    chosen = selection.by_family(rows)
    assert [r["family"] for r in chosen] == ["+--", "-+v"]
    assert (chosen[1]["beta"], chosen[1]["seed"], chosen[1]["distortion"]) == (1.0, 0, 69.0)
    diverged = [{**r, "status": "diverged"} if r["distortion"] == 69.0 else r for r in rows]
    assert selection.by_family(diverged)[1]["distortion"] == 70.0


def test_by_family_takes_the_nearest_beta_where_one_is_missing():
    def nearest(*betas):
        return [r["beta"] for r in selection.by_family([row(beta=beta) for beta in betas])]

    assert nearest(0.1, 4.0, 0.7) == [0.7]
    # In ratio, not in difference; of two as near, the lower.
    assert nearest(0.3, 1.8) == [1.8]
    assert nearest(2.0, 0.5) == [0.5]
    assert nearest(0.0, 1e-9) == [1e-9]
    assert selection.by_family([row(beta=1.0, kl_warmup_fraction=1.0)]) == []


def test_by_family_is_in_the_order_of_the_paper():
    signs = ["".join(family) for family in itertools.product("-+", "-+", "-+v")]
    order = ["---", "+--", "--+", "+-+", "--v", "+-v", "-+-", "++-", "-++", "+++", "-+v", "++v"]
    families = selection.by_family([row(family, seed=i) for i, family in enumerate(signs)])
    assert [r["family"] for r in families] == order
    assert [r["family"] for r in selection.of_one_prior(families)] == ["--v", "+-v", "-+v", "++v"]
    without = [r for r in families if r["family"] not in ("--v", "++v")]
    assert [r["family"] for r in selection.of_one_prior(without)] == ["--+", "+-+", "-++", "+++"]
    assert selection.of_one_prior(families[:4]) == families[:4]


def test_equal_elbo_by_hand():
    rates = [0.0, 1.0, 5.0, 9.0, 10.0, 20.0]
    totals = [91.0, 90.0, 92.0, 90.5, 93.9, 94.1]
    rows = [
        row(rate=r, distortion=t - r, seed=i)
        for i, (r, t) in enumerate(zip(rates, totals, strict=True))
    ]
    assert [r["rate"] for r in selection.equal_elbo(rows, most=3)] == [0.0, 5.0, 10.0]
    loose = selection.equal_elbo(rows, most=3, tolerance=5.0)
    assert [r["rate"] for r in loose] == [0.0, 10.0, 20.0]
    assert [r["rate"] for r in selection.equal_elbo(rows, tolerance=0.0)] == [1.0]
    assert [r["rate"] for r in selection.equal_elbo(rows, most=99)] == rates[:5]
    # The best one diverged: what was too far from it no longer is.
    rows[1]["status"] = "diverged"
    assert [r["rate"] for r in selection.equal_elbo(rows, most=99)] == [0.0, 5.0, 9.0, 10.0, 20.0]
    assert selection.equal_elbo([]) == []


def test_along_frontier_by_hand():
    # Corners of the hull at rates 0, 1, 2, 4, 8; (3, 60) is Pareto only; (5, 90) is neither.
    plane = [(0, 100), (1, 80), (2, 65), (4, 50), (8, 40), (3, 59), (5, 90)]
    rows = [row(rate=float(r), distortion=float(d), seed=i) for i, (r, d) in enumerate(plane)]
    assert [r["rate"] for r in selection.along_frontier(rows, most=3)] == [0.0, 4.0, 8.0]
    assert [r["rate"] for r in selection.along_frontier(rows, most=5)] == [0.0, 1.0, 2.0, 4.0, 8.0]
    assert selection.along_frontier(rows, most=6) == selection.along_frontier(rows)
    assert [r["rate"] for r in selection.along_frontier(rows)] == [0.0, 1.0, 2.0, 3.0, 4.0, 8.0]
    rows[4]["status"] = "diverged"
    assert [r["rate"] for r in selection.along_frontier(rows, most=2)] == [0.0, 4.0]


def test_choose_fills_the_paper_s_figures_from_one_split():
    rows = [
        row("-+-", beta=beta, rate=5 / beta, distortion=80 - 2 / beta) for beta in (0.5, 1.0, 2.0)
    ]
    rows += [
        row("---", decoder_width=8, beta=beta, rate=30 / beta, distortion=90.0)
        for beta in (0.5, 1.0)
    ]
    others = [{**r, "split": "train", "rate": 1.0, "distortion": 1.0} for r in rows]
    chosen = selection.select(rows + others)
    assert all(c.row["split"] == "test" for c in chosen)
    panels = {}
    for c in chosen:
        shown = panels.setdefault((c.figure, c.panel, c.part), [])
        shown.append((c.position, c.row["family"], c.row["beta"]))
    along_beta = [(0, "-+-", 0.5), (1, "-+-", 1.0), (2, "-+-", 2.0)]
    families = [(0, "---", 1.0), (1, "-+-", 1.0)]
    frontier = [(0, "-+-", 2.0), (1, "-+-", 1.0), (2, "-+-", 0.5)]
    assert panels == {
        (4, "a", "reconstruction"): along_beta,
        (4, "b", "sample"): along_beta,
        (4, "c", "reconstruction"): families,
        (4, "d", "reconstruction"): [(0, "-+-", 2.0), (1, "-+-", 1.0)],
        (5, "a", "reconstruction"): families,
        (5, "b", "sample"): families,
        (6, "a", "reconstruction"): frontier,
        (6, "b", "sample"): frontier,
    }


def test_nothing_to_choose_from_is_one_sentence():
    with pytest.raises(BadInput, match="split='valid': expected finite points"):
        selection.select([row()], "valid")
    with pytest.raises(BadInput, match="split='test': expected finite points"):
        selection.select([row(status="diverged")])


def test_a_run_of_target_rates_alone_has_no_panels_along_beta():
    rows = [
        row("-+-", objective="target_rate", target_rate=r, rate=r, distortion=80 - 0.9 * r)
        for r in (1.0, 2.0)
    ]
    assert {(c.figure, c.panel) for c in selection.select(rows)} == {(4, "d"), (6, "a"), (6, "b")}


def test_a_member_and_its_average_are_shown_once():
    """Twins beside each other; or the lower one gone."""
    members = [row(beta=0.5), row(beta=1.0, distortion=70.0), row(beta=2.0)]
    averages = [
        {**twin, "averaging": "ema", "distortion": d}
        for twin, d in zip(members, (79.0, 71.0, 80.0), strict=True)
    ]
    kept = selection.one_of_each([*members, *averages])
    assert kept == [members[1], members[2], averages[0]]
