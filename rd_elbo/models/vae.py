"""Latent-variable models: an encoder e(z|x), a decoder d(x|z) and a prior m(z).

Parameters are kept outside of a model.
"""

import dataclasses
import functools
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rd_elbo import information
from rd_elbo.errors import BadInput
from rd_elbo.models import flows
from rd_elbo.models.dropout import Dropping

Params = Mapping[str, Any]
LogWeights = Callable[[Array], Array]


class Terms(NamedTuple):
    """The two terms of -ELBO for each example of a batch, and the example's code.

    Attributes:
      rate: (batch,) float, nats.
      distortion: (batch,) float, nats.
      code: (batch, latent) mean of e(z|x), or of its base if it is a flow; a draw where neither is
        a Gaussian. Active units are counted from it.
    """

    rate: Float[Array, " batch"]
    distortion: Float[Array, " batch"]
    code: Float[Array, "batch latent"]


@runtime_checkable
class Trainable(Hashable, Protocol):
    """The methods that the trainer calls; it trains anything hashable that has them.

    For members with `dropout` above 0, `terms` takes a `dropout.Dropping` as `dropout` too.
    """

    def init(self, key: Array, x: Array) -> Params:
        """Draw parameters, a plain pytree, for data like the batch `x`."""
        ...

    def terms(self, params: Params, x: Array, key: Array) -> Terms:
        """Compute rate and distortion of each example of `x`, with randomness from `key`."""
        ...

    def rate_estimator(self, params: Params, x: Any) -> str:
        """Name the estimator of the rate in `terms`: "closed_form" or "monte_carlo"."""
        ...


@dataclasses.dataclass(frozen=True)
class VAE:
    """A model of three flax modules, whose calls return distrax distributions.

    The distributions hold arrays, never modules, so they are valid outside the calls.

    >>> import jax, jax.numpy as jnp, rd_elbo as rd
    >>> encoder, decoder = rd.models.DenseEncoder(8, 1, 4), rd.models.MLPDecoder(8, 1, (6, 6))
    >>> model = rd.VAE(encoder, decoder, rd.models.StandardNormal(4))
    >>> params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 6, 6)))
    >>> model.decode(params, jnp.zeros((3, 4))).sample(seed=jax.random.key(1)).shape
    (3, 6, 6)

    Attributes:
      encoder: Map from examples, such as images (batch, height, width) in [0, 1], to a
        distribution over z.
      decoder: Map from z (batch, latent) to a distribution over examples.
      prior: Map from the encoder, as a function of examples, and a batch of examples to a
        distribution over z.
      scale: Divisor of examples before the encoder sees them, such as 255 for 8-bit levels; the
        decoder's distribution takes them as they are.

    Raises:
      BadInput: If a part is no flax module.
    """

    encoder: nn.Module
    decoder: nn.Module
    prior: nn.Module
    scale: float = 1.0

    def __post_init__(self) -> None:
        for part in ("encoder", "decoder", "prior"):
            if not isinstance(module := getattr(self, part), nn.Module):
                what = "its class" if isinstance(module, type) else type(module).__name__
                raise BadInput(f"{part}: expected a flax module, got {what}. Make an instance.")

    def init(self, key: Array, x: Array) -> Params:
        """Draw parameters {"encoder": ..., "decoder": ..., "prior": ...}.

        Args:
          key: Key of the draw.
          x: (batch, ...) examples, of which shape and dtype matter. A batch of one hides that a
            part sums over it.

        Raises:
          BadInput: If a part returns no distribution, one over something else than the others, or
            not one for each example.
        """
        of_encoder, of_decoder, of_prior, of_z = jax.random.split(key, 4)
        (batch, *shape), x = x.shape, self._scaled(x)
        e, encoder = self.encoder.init_with_output(of_encoder, x)
        latent = _event_shape("encoder", e)
        if len(latent) != 1:
            raise BadInput(
                f"encoder: expected a distribution over vectors z, got one over {_shown(latent)}. "
                "Wrap it in distrax.Independent."
            )
        _check_batch("encoder", e, batch)
        d, decoder = self.decoder.init_with_output(of_decoder, e.sample(seed=of_z))
        _check_event("decoder", d, tuple(shape), "the shape of an example")
        _check_batch("decoder", d, batch)
        encode = functools.partial(self.encoder.apply, encoder)
        m, prior = self.prior.init_with_output(of_prior, encode, x)
        _check_event("prior", m, latent, "that of the encoder")
        parts = {"encoder": encoder, "decoder": decoder, "prior": prior}
        return {name: dict(variables.get("params", {})) for name, variables in parts.items()}

    def encode(self, params: Params, x: Array) -> distrax.DistributionLike:
        """Map examples (batch, ...) to e(z|x)."""
        return self._read(params, self._scaled(x))

    def decode(
        self, params: Params, z: Array, dropout: Dropping | None = None
    ) -> distrax.DistributionLike:
        """Map z (batch, latent) to d(x|z), with the `dropout` of a training step if given."""
        return _call(self.decoder, params["decoder"], z, dropout, 1)

    def prior_distribution(self, params: Params, x: Array) -> distrax.DistributionLike:
        """Make m(z); of the examples `x` only shape and dtype matter."""
        encode = functools.partial(self._read, params)
        return self.prior.apply({"params": params["prior"]}, encode, x)

    def terms(
        self,
        params: Params,
        x: Float[Array, "batch ..."],
        key: Array,
        dropout: Dropping | None = None,
    ) -> Terms:
        """Compute rate and distortion with one draw of z (Alemi et al. 2018, section 2).

        The rate is the closed form where there is one, see `rate_estimator`. Encoder and decoder
        compute in the dtype of `x`, such as bfloat16. Densities, draws, the terms and all gradients
        have the dtype of the parameters.

        Args:
          params: Parameters of the model.
          x: (batch, ...) examples.
          key: Key of the draw.
          dropout: Dropout of a training step, in encoder and decoder. The prior has none, not even
            in the encoder of a VampPrior.
        """
        e = self._read(params, self._scaled(x), dropout)
        e, m, move = flows.without_common_flow(e, self.prior_distribution(params, x))
        if information.has_closed_form_rate(e, m):
            z = e.sample(seed=key)
            rate = information.closed_form_rate(e, m)
        else:
            z, log_e = e.sample_and_log_prob(seed=key)
            rate = information.rate(log_e, m.log_prob(z))
        moved = move(z)
        if jnp.issubdtype(x.dtype, jnp.floating):
            moved = moved.astype(x.dtype)
        distortion = information.distortion(self.decode(params, moved, dropout).log_prob(x))
        # An encoder without a mean in closed form has a draw for code; noise counts as variation.
        base = e.distribution if flows.is_flow(e) else e
        code = base.mean() if isinstance(base, distrax.MultivariateNormalDiag) else z
        return Terms(rate, distortion, code)

    def log_weights(self, params: Params, x: Float[Array, "batch ..."]) -> LogWeights:
        """Prepare importance weights of a batch.

        Encoder and prior are computed once for all draws.

        Args:
          params: Parameters of the model.
          x: (batch, ...) examples.

        Returns:
          A function from (samples,) keys to (samples, batch) log m(z) d(x|z) / e(z|x), nats. Each
          key gives one draw z ~ e(z|x) of each example.
        """
        m = self.prior_distribution(params, x)
        e, m, move = flows.without_common_flow(self.encode(params, x), m)

        def draw(keys: Array) -> Array:
            z, log_e = jax.vmap(lambda key: e.sample_and_log_prob(seed=key))(keys)
            # Samples and examples on one axis: no layer sees a further axis.
            z, log_e = z.reshape(-1, *z.shape[2:]), log_e.reshape(-1)
            repeated = jnp.tile(x, (len(keys), *[1] * (x.ndim - 1)))
            log_d = self.decode(params, move(z)).log_prob(repeated)
            log_w = information.log_weight(log_e, m.log_prob(z), log_d)
            return log_w.reshape(len(keys), len(x))

        return draw

    def rate_estimator(self, params: Params, x: Any) -> str:
        """Name the estimator of the rate in `terms`: "closed_form" or "monte_carlo".

        Args:
          params: Parameters of the model, of which only shapes matter.
          x: (batch, ...) examples, of which only shapes matter.
        """
        kinds = []

        def look(params: Params, x: Array) -> None:
            m = self.prior_distribution(params, x)
            e, m, _ = flows.without_common_flow(self.encode(params, x), m)
            kinds.append(information.has_closed_form_rate(e, m))

        jax.eval_shape(look, params, x)
        return "closed_form" if kinds[0] else "monte_carlo"

    def _scaled(self, x: Array) -> Array:
        return x if self.scale == 1 else x / self.scale

    def _read(
        self, params: Params, scaled: Array, dropout: Dropping | None = None
    ) -> distrax.DistributionLike:
        return _call(self.encoder, params["encoder"], scaled, dropout, 0)


def _event_shape(part: str, made: Any) -> tuple[int, ...]:
    # That of a flow is its base's, and costs no trace of the flow.
    made = made.distribution if flows.is_flow(made) else made
    if not hasattr(made, "event_shape"):
        kind = "an array" if isinstance(made, jax.Array) else type(made).__name__
        raise BadInput(
            f"{part}: expected a module that returns a distribution, such as distrax's, got {kind}."
        )
    return tuple(made.event_shape)


def _check_event(part: str, made: Any, shape: tuple[int, ...], whose: str) -> None:
    """Raise unless a part's distribution is over arrays of a shape; its log_prob sums over them."""
    if (own := _event_shape(part, made)) != shape:
        raise BadInput(
            f"{part}: expected a distribution over {_shown(shape)}, {whose}, got one over "
            f"{_shown(own)}. Reshape it, or wrap it in distrax.Independent."
        )


def _check_batch(part: str, made: Any, batch: int) -> None:
    """Raise unless a part's distributions are one for each example: others would broadcast."""
    made = made.distribution if flows.is_flow(made) else made
    if (own := tuple(getattr(made, "batch_shape", (batch,)))) != (batch,):
        raise BadInput(
            f"{part}: expected a distribution for each example, batch_shape {(batch,)}, got "
            f"batch_shape {own}. Leave the first axis as it is."
        )


def _shown(shape: tuple[int, ...]) -> str:
    return f"arrays of shape {shape}" if shape else "single numbers"


def _call(module: nn.Module, params: Any, x: Array, dropout: Dropping | None, part: int) -> Any:
    """Call a module, with dropout if it is given; `part` tells its masks from others'."""
    if dropout is None:
        return module.apply({"params": params}, x)
    return dropout.apply(module, params, x, part)
