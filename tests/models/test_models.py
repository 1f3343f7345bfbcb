"""Models against closed forms, quadrature and explicit sums."""

import dataclasses
import functools

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

from rd_elbo import information
from rd_elbo.errors import BadInput
from rd_elbo.models import flows, registry
from rd_elbo.models.bernoulli import Bernoulli
from rd_elbo.models.family import PAPER_FAMILIES, Architecture, paper_family
from rd_elbo.sweep.presets import PAPER_PARTS, PAPER_STRONG, PAPER_WEAK

SHAPE = (5, 4)
SMALL = Architecture(latent=3, encoder_width=6, decoder_width=4, decoder_depth=1)
ARCHITECTURES = {
    f"{decoder}, {prior}": dataclasses.replace(SMALL, decoder=decoder, prior=prior, pseudo_inputs=4)
    for decoder, prior in (("mlp", "normal"), ("mlp", "vampprior"), ("pixelcnn", "normal"))
}
SIZES = dict(encoder_width=2, decoder_width=3, encoder_depth=1)
SIZES |= dict(flow_steps=2, flow_width=7, flow_depth=1)
TINY = dict(SIZES, pseudo_inputs=4)
FAMILIES = {
    name: dataclasses.replace(SMALL, **paper_family(name), **TINY) for name in PAPER_FAMILIES
}
# Compiling takes long: each part is here once, the flow's encoder with each prior and a decoder
# that costs nothing.
FLOW = dict(encoder="conv_iaf", **TINY)
NEW = dict(SIZES, encoder="resnet")
ARCHITECTURES |= {
    "--+": FAMILIES["--+"],
    "iaf, maf": dataclasses.replace(SMALL, **FLOW, prior="maf"),
    "iaf, vampprior": dataclasses.replace(SMALL, **FLOW, prior="vampprior"),
    "resnet, realnvp": dataclasses.replace(SMALL, **NEW, decoder="resnet", prior="realnvp"),
    "pixelvae, maf_affine": dataclasses.replace(
        SMALL, **NEW, decoder="pixelvae", prior="maf_affine", causal_depth=1
    ),
    "pixelvae_resnet": dataclasses.replace(SMALL, decoder="pixelvae_resnet", causal_depth=1),
    "pixelcnnpp, z in every layer": dataclasses.replace(
        SMALL, **NEW, decoder="pixelcnnpp", z_in_every_layer=True
    ),
}


def images(n, shape=SHAPE, seed=0):
    return jnp.asarray(np.random.RandomState(seed).uniform(size=(n, *shape)) < 0.3, jnp.float32)


def built(name, n=3):
    model = ARCHITECTURES[name].build(SHAPE)
    return model, jax.jit(model.init)(jax.random.key(1), images(1)), images(n)


def normal(*shape, seed=2):
    return jnp.asarray(np.random.RandomState(seed).normal(size=shape), jnp.float32)


@functools.cache
def computed(name):
    """A model, its parameters, images, and its terms and gradient of R + D; compiled once."""
    model, params, x = built(name, n=16)

    def loss(params, x):
        terms = model.terms(params, x, jax.random.key(4))
        return terms.rate.mean() + terms.distortion.mean(), terms

    both = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (_, terms), gradient = both(params, x)
    return model, params, x, both, terms, gradient


def test_closed_form_rate_is_the_integral_of_its_definition():
    mean, scale = np.array([0.7, -1.2]), np.array([0.4, 1.8])
    e = distrax.MultivariateNormalDiag(jnp.asarray(mean), jnp.asarray(scale))
    m = distrax.MultivariateNormalDiag(jnp.zeros(2), jnp.ones(2))

    def integrand(z, i):
        log_e, log_m = scipy.stats.norm.logpdf(z, mean[i], scale[i]), scipy.stats.norm.logpdf(z)
        return np.exp(log_e) * (log_e - log_m)

    quad = functools.partial(scipy.integrate.quad, integrand, -30, 30)
    exact = sum(quad(args=(i,), points=[mean[i]])[0] for i in range(2))
    np.testing.assert_allclose(information.closed_form_rate(e, m), exact, rtol=1e-5)


def test_closed_form_rate_of_a_nearly_collapsed_encoder():
    """Rates far below float32's rounding of their parts: never negative, and accurate."""
    deviation = np.float32([0, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3])[:, None] * np.float32([[1, -1, 1, 1]])
    scale = np.float32(1) + deviation
    e = distrax.MultivariateNormalDiag(jnp.asarray(deviation), jnp.asarray(scale))
    m = distrax.MultivariateNormalDiag(jnp.zeros(4), jnp.ones(4))
    rate = np.asarray(information.closed_form_rate(e, m))
    mu, s = deviation.astype(float), scale.astype(float)
    exact = 0.5 * (mu**2 + s**2 - 1 - 2 * np.log(s)).sum(axis=1)
    assert (rate >= 0).all() and rate[0] == 0
    np.testing.assert_allclose(rate, exact, rtol=0.05, atol=1e-13)

    def rate_of(scale):
        return information.closed_form_rate(distrax.MultivariateNormalDiag(scale - 1, scale), m)

    assert np.isfinite(jax.grad(rate_of)(jnp.ones(4))).all()


SLOWEST = (
    "pixelcnnpp, z in every layer",
    "resnet, realnvp",
    "pixelvae, maf_affine",
    "pixelvae_resnet",
)


def marked(names):
    return [pytest.param(name, marks=pytest.mark.slow if name in SLOWEST else ()) for name in names]


@pytest.mark.parametrize("name", marked(ARCHITECTURES))
def test_every_parameter_has_a_gradient(name):
    *_, gradient = computed(name)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.abs(leaf).max() > 0, path


def test_one_sample_rate_averages_to_the_closed_form():
    e = distrax.MultivariateNormalDiag(jnp.array([0.7, -1.2]), jnp.array([0.4, 1.8]))
    m = distrax.MultivariateNormalDiag(jnp.zeros(2), jnp.ones(2))
    z, log_e = e.sample_and_log_prob(seed=jax.random.key(0), sample_shape=200_000)
    rates = np.asarray(information.rate(log_e, m.log_prob(z)))
    error = rates.std() / np.sqrt(len(rates))
    assert abs(rates.mean() - float(information.closed_form_rate(e, m))) < 4 * error
    assert information.elbo(2.0, 3.0) == -5.0


NEW_PARTS = dict(encoder="resnet", decoder="pixelvae", prior="maf_affine")
# Every encoder, decoder and prior is in one of these.
HALF = (
    "mlp, vampprior",
    "pixelcnn, normal",
    "--+",
    "iaf, maf",
    "resnet, realnvp",
    "pixelvae, maf_affine",
    "pixelvae_resnet",
    "pixelcnnpp, z in every layer",
)


@pytest.mark.parametrize("name", marked(HALF))
def test_bfloat16_examples_make_networks_compute_in_it_and_nothing_else(name):
    """Terms are within 1 % of float32's and gradients within 3 %: bfloat16's 8 bits.

    Summed over pixels in bfloat16, biases' gradients would be off by 10 %, densities by nats.
    """
    model, params, x, both, fine, exact = computed(name)
    (_, coarse), gradient = both(params, x.astype(jnp.bfloat16))
    assert {leaf.dtype for leaf in jax.tree.leaves((coarse, gradient))} == {jnp.dtype("float32")}
    for ours, theirs in zip(coarse, fine, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0.01, atol=0.03)
    assert not np.array_equal(coarse.distortion, fine.distortion)
    ours, theirs = (
        np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
        for tree in (gradient, exact)
    )
    assert np.linalg.norm(ours - theirs) < 0.03 * np.linalg.norm(theirs)
    # All convolutions, and the products of most of the arithmetic, are in bfloat16.
    traced = jax.make_jaxpr(lambda x: model.terms(params, x, jax.random.key(3)))
    program = str(traced(x.astype(jnp.bfloat16)))
    made = [line.split("=")[0] for line in program.splitlines() if "conv_general_dilated[" in line]
    assert all("bf16" in line for line in made) and (made or "mlp" in name)


def test_parts_cover_all_there_are():
    tested = [ARCHITECTURES[name] for name in HALF]
    for kind in registry.KINDS:
        known = {*registry.names(kind)}
        assert {getattr(a, kind) for a in tested} | {"deconv", "conv"} & known == known


@pytest.mark.parametrize("name", marked(ARCHITECTURES))
def test_terms_are_their_definitions(name):
    """R and D recomputed from the densities with the same draw of z."""
    model, params, x, _, terms, _ = computed(name)
    key = jax.random.key(4)

    @jax.jit
    def densities(params):
        e, m = model.encode(params, x), model.prior_distribution(params, x)
        z = e.sample(seed=key)
        # Through the flows' inverses, which `terms` never takes.
        base = e.distribution if flows.is_flow(e) else e
        return e.log_prob(z), m.log_prob(z), model.decode(params, z).log_prob(x), base.mean()

    log_e, log_m, log_d, mean = densities(params)
    np.testing.assert_allclose(terms.distortion, -log_d, rtol=1e-5)
    assert (terms.distortion >= 0).all()
    architecture = ARCHITECTURES[name]
    gaussian = architecture.encoder != "conv_iaf" and architecture.prior == "normal"
    if gaussian:
        kl = model.encode(params, x).kl_divergence(model.prior_distribution(params, x))
        np.testing.assert_allclose(terms.rate, kl, rtol=1e-5)
        assert (terms.rate >= 0).all()
    else:
        np.testing.assert_allclose(terms.rate, log_e - log_m, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(terms.code, mean, rtol=1e-6)
    assert model.rate_estimator(params, x) == ("closed_form" if gaussian else "monte_carlo")


def test_bernoulli_distortion_is_cross_entropy():
    model, params, x = built("mlp, normal")

    @jax.jit
    def scored(z):
        d = model.decode(params, z)
        return d.distribution.probs, d.log_prob(x)

    probability, log_prob = scored(normal(3, 3))
    probability = np.asarray(probability, np.float64)
    by_hand = scipy.stats.bernoulli.logpmf(np.asarray(x).astype(int), probability).sum((1, 2))
    np.testing.assert_allclose(log_prob, by_hand, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "uint8", "bool"])
def test_bernoulli_of_binary_values_is_scipys_at_any_logit(dtype):
    """Far out too, where 1 - p is lost to rounding; and its gradient is x - p."""
    logits = np.array([-90.0, -20.0, -1.5, 0.0, 0.3, 17.0, 80.0], np.float32)
    scored = jax.jit(jax.vmap(jax.value_and_grad(lambda logit, x: Bernoulli(logit).log_prob(x))))
    for value in (0, 1):
        x = np.full(logits.shape, value, dtype)
        by_hand = scipy.special.log_expit((2 * value - 1) * logits.astype(float))
        log_prob, slope = scored(logits, x)
        np.testing.assert_allclose(log_prob, by_hand, rtol=1e-6, atol=1e-30)
        expected = value - scipy.special.expit(logits.astype(float))
        np.testing.assert_allclose(slope, expected, rtol=1e-5, atol=1e-7)


def test_vampprior_is_a_mixture_of_encodings():
    model, params, x = built("mlp, vampprior")
    params["prior"]["weights"] = jnp.array([0.3, -1.0, 2.0, 0.1])
    z = normal(7, 3)
    pseudo_inputs = scipy.special.expit(np.asarray(params["prior"]["pseudo_inputs"]))
    components = model.encode(params, jnp.asarray(pseudo_inputs))
    mean, scale = np.asarray(components.loc), np.asarray(components.scale_diag)
    log_weights = scipy.special.log_softmax([0.3, -1.0, 2.0, 0.1])
    each = scipy.stats.norm.logpdf(np.asarray(z)[:, None], mean, scale).sum(-1)
    explicit = scipy.special.logsumexp(each + log_weights, axis=1)
    np.testing.assert_allclose(model.prior_distribution(params, x).log_prob(z), explicit, rtol=1e-4)


def test_encoder_sees_pixels_from_minus_one_to_one():
    """Grey 0.5 becomes 0, so the first layer answers with its bias alone."""
    model, params, _ = built("mlp, normal")
    grey = jnp.full((1, *SHAPE), 0.5)
    scrambled = jax.tree.map(lambda leaf: leaf, params)
    scrambled["encoder"]["hidden_0"]["kernel"] = 100 * scrambled["encoder"]["hidden_0"]["kernel"]
    ours, theirs = (model.encode(p, grey).mean() for p in (params, scrambled))
    np.testing.assert_array_equal(ours, theirs)


def shapes_of(architecture):
    init = architecture.build((28, 28)).init
    return jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 28, 28)))


def count(tree):
    return sum(np.prod(leaf.shape, dtype=int) for leaf in jax.tree.leaves(tree))


def gated(taps, inputs, units):
    return 2 * (taps * inputs * units + units)


def test_parameter_counts_at_full_size():
    sizes = dict(encoder_width=128, latent=32, decoder_depth=1, decoder_width=512)
    encoder = 2 * (784 * 128 + 128) + 2 * (128 * 128 + 128) + 2 * (128 * 32 + 32)
    decoder = 2 * (32 * 512 + 512) + 512 * 784 + 784
    assert count(shapes_of(Architecture(**sizes))) == encoder + decoder == 678_224
    mixture = Architecture(**sizes, prior="vampprior", pseudo_inputs=50)
    assert count(shapes_of(mixture)) == encoder + decoder + 50 * 784 + 50


def test_parameters_of_the_residual_networks_at_full_size():
    sizes = dict(encoder_width=32, decoder_width=32, latent=64, encoder_depth=3)
    architecture = Architecture(encoder="resnet", decoder="resnet", **sizes)
    shapes = shapes_of(architecture)
    residual = gated(9, 32, 32) + gated(9, 64, 64) + gated(9, 128, 128)
    encoder = gated(25, 1, 32) + gated(16, 32, 64) + gated(16, 64, 128) + 3 * residual
    encoder += gated(49, 128, 256) + 2 * (256 * 64 + 64)
    decoder = gated(49, 64, 128) + gated(16, 128, 64) + gated(16, 64, 32)
    decoder += 2 * residual + 25 * 32 + 1
    assert count(shapes["encoder"]) == encoder and count(shapes["decoder"]) == decoder
    assert architecture.family == "---"


def test_family_names():
    assert Architecture().family == "---"
    assert Architecture(decoder="pixelcnn", prior="vampprior").family == "-+v"
    assert Architecture(decoder="pixelvae", prior="realnvp").family == "-++"
    assert Architecture(**NEW_PARTS).family == "-++"
    assert len(PAPER_FAMILIES) == 12 == len({*FAMILIES.values()})
    assert all(architecture.family == name for name, architecture in FAMILIES.items())
    with pytest.raises(BadInput, match=r"family='-x-': expected one of '---', '--\+'"):
        paper_family("-x-")


# Worked out by hand from the paper's App. A; see the counts in the modules' own tests.
PAPER_PARAMETERS = {
    "encoder": {"-": 1_999_424, "+": 5_611_840},
    "decoder": {"-": 998_753, "+": 2_421_217},
}
PAPER_PARAMETERS |= {"prior": {"-": 0, "+": 3_612_416, "v": 500 * 784 + 500}}


@pytest.mark.parametrize("name", PAPER_FAMILIES)
def test_the_papers_families_have_the_papers_parameters(name):
    """Encoder 2.00 M and 3.61 M for its flow, decoder 1.00 M, prior 3.61 M."""
    sizes = PAPER_PARTS | (PAPER_STRONG if name[1] == "+" else PAPER_WEAK)
    shapes = shapes_of(Architecture(**paper_family(name), **sizes))
    for part, sign in zip(("encoder", "decoder", "prior"), name, strict=True):
        assert count(shapes[part]) == PAPER_PARAMETERS[part][sign]


def test_the_papers_parameters_are_those_of_its_layers():
    """MADEs, and the convolutional encoder and decoder, from the sizes of their layers."""
    made = 4 * ((64 * 640 + 640) + 2 * (640 * 640 + 640) + (640 * 64 + 64))
    encoder = gated(25, 1, 32) + gated(25, 32, 32) + gated(25, 32, 64) + gated(25, 64, 64)
    encoder += gated(49, 64, 256) + 2 * (256 * 64 + 64)
    decoder = gated(49, 64, 64) + 2 * gated(25, 64, 64) + gated(25, 64, 32) + gated(25, 32, 32)
    decoder += gated(16, 32, 32) + 25 * 32 + 1
    assert PAPER_PARAMETERS["encoder"] == {"-": encoder, "+": encoder + made}
    assert PAPER_PARAMETERS["prior"]["+"] == made and PAPER_PARAMETERS["decoder"]["-"] == decoder


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("decoder", "mlpp"), ("encoder", ""), ("prior", None), ("decoder_width", 0)],
        *[("decoder_width", 2.5), ("latent", True), ("causal_depth", 0)],
        *[("z_in_every_layer", 1), ("z_in_every_layer", "True")],
    ],
)
def test_what_does_not_exist_is_refused_by_name(field, value):
    with pytest.raises(BadInput, match=field) as refusal:
        dataclasses.replace(Architecture(), **{field: value})
    assert repr(value) in str(refusal.value)
