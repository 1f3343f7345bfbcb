"""The toy model against its formulas written out, exact sums and the paper's numbers."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rd_elbo.errors import BadInput
from rd_elbo.exact import discrete, toy
from rd_elbo.sweep.grid import Member
from rd_elbo.training import fit, state


def params(seed=0, codes=30, scale=1.0):
    rng = np.random.default_rng(seed)
    w, b, logits = scale * rng.standard_normal((3, codes))
    v, c = scale * rng.standard_normal((2, toy.SYMBOLS))
    return {"encoder": {"w": w, "b": b}, "decoder": {"v": v, "c": c}, "prior": {"l": logits}}


def test_the_papers_source():
    joint = toy.labelled_source()
    np.testing.assert_allclose(joint.sum(1), [0.7, 0.3], rtol=1e-15)
    p = joint.sum(0)
    assert abs(-(p * np.log(p)).sum() - 2.8620) < 5e-5
    assert abs((joint * np.log(joint / p / joint.sum(1, keepdims=True))).sum() - 0.5) < 5e-5
    # The bins of class 0, by another library.
    edges = np.arange(31) - 0.5
    mass = np.diff(stats.norm(9.83, 2.273).cdf(edges))
    np.testing.assert_allclose(joint[0], 0.7 * mass / mass.sum(), atol=1e-15)


def test_the_hand_built_optimum_lies_on_the_diagonal_at_the_information_about_the_bit(x64):
    t = toy.optimum()
    information = discrete.mutual_information(jnp.log(toy.labelled_source()))
    np.testing.assert_allclose(discrete.rate(t), information, rtol=1e-12)
    total = discrete.rate(t) + discrete.distortion(t)
    np.testing.assert_allclose(total, discrete.entropy(t.source), rtol=1e-12)
    codes = toy.codes_and_bit(jnp.log(toy.labelled_source()), t.encoder)
    assert abs(codes.information - 0.385) < 5e-4 and abs(codes.larger_mass - 0.7) < 1e-12


@pytest.mark.parametrize("codes", [30, 4])
def test_tables_are_the_formulas_symbol_by_symbol(x64, codes):
    p = params(codes=codes)
    t = toy.Toy(codes).tables(p, toy.source())
    x = [(j - 14.5) / 15 for j in range(30)]
    z = [(i - (codes - 1) / 2) / (codes / 2) for i in range(codes)]
    e, d = p["encoder"], p["decoder"]
    for j in range(30):
        weights = [math.exp(-((e["w"][i] * x[j] - e["b"][i]) ** 2)) for i in range(codes)]
        np.testing.assert_allclose(np.exp(t.encoder[j]), np.asarray(weights) / sum(weights))
    for i in range(codes):
        weights = [math.exp(-((d["v"][j] * z[i] - d["c"][j]) ** 2)) for j in range(30)]
        np.testing.assert_allclose(np.exp(t.decoder[i]), np.asarray(weights) / sum(weights))
    weights = np.exp(p["prior"]["l"])
    np.testing.assert_allclose(np.exp(t.prior), weights / weights.sum())


def test_sixty_sixty_and_thirty_parameters():
    drawn = toy.Toy().init(jax.random.key(0), jnp.zeros((1, 30)))
    sizes = {part: sum(leaf.size for leaf in leaves.values()) for part, leaves in drawn.items()}
    assert sizes == {"encoder": 60, "decoder": 60, "prior": 30}
    wide = toy.Toy(initial_scale=2.0).init(jax.random.key(0), jnp.zeros((1, 30)))
    np.testing.assert_allclose(wide["encoder"]["w"], 20 * drawn["encoder"]["w"], rtol=1e-5)
    assert (drawn["prior"]["l"] == 0).all() and 0.05 < np.std(drawn["decoder"]["c"]) < 0.2


def test_terms_are_the_exact_functionals(x64):
    model, p = toy.Toy(), params()
    t = model.tables(p, toy.source())
    terms = model.terms(p, jnp.asarray(toy.source())[None], jax.random.key(0))
    np.testing.assert_allclose(terms.rate[0], discrete.rate(t), rtol=1e-13)
    np.testing.assert_allclose(terms.distortion[0], discrete.distortion(t), rtol=1e-13)
    aggregate = np.exp(discrete.aggregate(t.source, t.encoder))
    np.testing.assert_allclose(terms.code[0], aggregate, rtol=1e-12)


def test_the_mean_over_observed_symbols_is_the_expectation(x64):
    model, p = toy.Toy(), params()
    every = model.terms(p, jnp.eye(30), jax.random.key(0))
    whole = model.terms(p, jnp.asarray(toy.source())[None], jax.random.key(0))
    for name in ("rate", "distortion"):
        mean = getattr(every, name) @ toy.source()
        np.testing.assert_allclose(mean, getattr(whole, name)[0], rtol=1e-12)
    # Symbol by symbol they are -ELBO(x).
    elbo = discrete.elbo_of(model.tables(p, toy.source()))
    np.testing.assert_allclose(-(every.rate + every.distortion), elbo, rtol=1e-12)


def test_gradients_against_differences(x64):
    model, p, x = toy.Toy(), params(), jnp.asarray(toy.source())[None]

    def loss(p):
        terms = model.terms(p, x, jax.random.key(0))
        return (terms.rate + 3 * terms.distortion)[0]

    gradient = jax.grad(loss)(p)
    for part, name, i in itertools.chain(
        itertools.product(["encoder"], "wb", (0, 17)),
        itertools.product(["decoder"], "vc", (3, 29)),
        [("prior", "l", 5)],
    ):

        def moved(h, part=part, name=name, i=i):
            return {**p, part: {**p[part], name: jnp.asarray(p[part][name]).at[i].add(h)}}

        numeric = (loss(moved(1e-5)) - loss(moved(-1e-5))) / 2e-5
        np.testing.assert_allclose(gradient[part][name][i], numeric, rtol=1e-6, atol=1e-10)


def test_codes_and_bit_by_brute_force(x64):
    joint = toy.labelled_source()
    e = np.random.default_rng(0).dirichlet(np.full(4, 0.3), 30)
    codes = toy.codes_and_bit(jnp.log(joint), jnp.log(e))
    table = np.zeros((2, 4))
    for bit, x, z in itertools.product(range(2), range(30), range(4)):
        table[bit, z] += joint[bit, x] * e[x, z]
    information = table * np.log(table / table.sum(0) / table.sum(1, keepdims=True))
    np.testing.assert_allclose(codes.information, information.sum())
    assert codes.used == sum(table[:, z].sum() > 1e-3 for z in range(4))
    of_bit_0 = sum(table[:, z].sum() for z in range(4) if table[0, z] >= table[1, z])
    np.testing.assert_allclose(codes.larger_mass, max(of_bit_0, 1 - of_bit_0))


def learn(objective, learning_rate, seeds=8, steps=1500):
    settings = dict(objective=objective, target_rate=0.5, target_weight=2.0, batch_size=1)
    members = [Member(learning_rate=learning_rate, seed=s, **settings) for s in range(seeds)]
    spec = state.TrainSpec(
        toy.Toy(), objective, 1, adam_b2=0.95, dtype="float64", call_steps=256, vmap_size=2
    )
    hparams = state.HParams.of(members, spec)
    models = [toy.Toy()] * seeds
    fitted = fit.fit(spec, models, hparams, toy.source()[None], steps, metrics_every=steps)
    t = jax.vmap(lambda p: toy.Toy().tables(p, toy.source()))(fitted.params)
    return (
        np.asarray(jax.vmap(discrete.rate)(t)),
        np.asarray(jax.vmap(discrete.distortion)(t)),
        float(discrete.entropy(t.source[0])),
    )


@pytest.mark.slow
def test_the_elbo_drops_the_code_and_a_target_rate_keeps_it(x64):
    rate, distortion, entropy = learn("beta", 0.02)
    assert (rate <= 0.005).all() and (np.abs(rate + distortion - entropy) <= 0.001).all()
    rate, distortion, entropy = learn("target_rate", 0.1)
    assert (np.abs(rate - 0.5) <= 0.001).all() and np.median(rate + distortion - entropy) <= 0.005


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: toy.check_target(3.5, 30),
            "target_rate=3.5: expected at most log 30 = 3.401 nats",
        ),
        (lambda: toy.check_target(-0.1, 30), "target_rate=-0.1: expected at least 0"),
        (lambda: toy.check_target(float("nan"), 30), "target_rate=nan: expected a finite number"),
        (lambda: toy.Toy(codes=1), "codes=1: expected a whole number of at least 2"),
        (lambda: toy.Toy(initial_scale=-1.0), "initial_scale=-1.0: expected at least 0"),
    ],
)
def test_bad_input(call, sentence):
    with pytest.raises(BadInput, match=sentence):
        call()
    assert toy.check_target(math.log(30), 30) == math.log(30)
