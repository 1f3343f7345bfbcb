"""A latent-variable model: an encoder e(z|x), a decoder d(x|z) and a prior m(z), with the parameters kept outside."""

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
from rd_elbo.models import flows
from rd_elbo.models.dropout import Dropping

Params = Mapping[str, Any]
LogWeights = Callable[[Array], Array]


class Terms(NamedTuple):
    """The two terms of -ELBO for each example of a batch, and where the encoder put it.

    Attributes:
      rate: (batch,) nats.
      distortion: (batch,) nats.
      code: (batch, latent), the mean of e(z|x), or of its base if it is a flow, or a draw where neither is in closed form; active
        units are counted from it.
    """

    rate: Float[Array, " batch"]
    distortion: Float[Array, " batch"]
    code: Float[Array, "batch latent"]


@runtime_checkable
class Trainable(Hashable, Protocol):
    """What the population trainer asks of a model: anything hashable with these three is trained like our own.

    Members with `dropout` above 0 need `terms` to take a `dropout.Dropping` as `dropout` too.
    """

    def init(self, key: Array, x: Array) -> Params:
        """Parameters, a plain pytree, for data like the batch `x`."""
        ...

    def terms(self, params: Params, x: Array, key: Array) -> Terms:
        """Rate and distortion of each example of `x`."""
        ...

    def rate_estimator(self, params: Params, x: Any) -> str:
        """How `terms` finds the rate: "closed_form" or "monte_carlo"."""
        ...


@dataclasses.dataclass(frozen=True)
class VAE:
    """Encoder, decoder and prior, each a flax module whose call returns a distrax distribution.

    The distributions hold arrays, never modules, so they may be used outside the call that made them.

    Attributes:
      encoder: Maps examples, such as images (batch, height, width) in [0, 1], to a distribution over z.
      decoder: Maps z (batch, latent) to a distribution over examples.
      prior: Maps the encoder, as a function of examples, to a distribution over z.
      scale: Divisor of examples before the encoder sees them: 255 for 8-bit levels, which the decoder's distribution takes as
        they are.
    """

    encoder: nn.Module
    decoder: nn.Module
    prior: nn.Module
    scale: float = 1.0

    def init(self, key: Array, x: Array) -> Params:
        """Draws parameters {"encoder": ..., "decoder": ..., "prior": ...} for examples like `x`."""
        of_encoder, of_decoder, of_prior, of_z = jax.random.split(key, 4)
        x = self._scaled(x)
        encoder = self.encoder.init(of_encoder, x)
        e = self.encoder.apply(encoder, x)
        decoder = self.decoder.init(of_decoder, e.sample(seed=of_z))
        prior = self.prior.init(of_prior, functools.partial(self.encoder.apply, encoder), x)
        parts = {"encoder": encoder, "decoder": decoder, "prior": prior}
        return {name: dict(variables.get("params", {})) for name, variables in parts.items()}

    def encode(self, params: Params, x: Array) -> distrax.DistributionLike:
        """e(z|x)."""
        return self._read(params, self._scaled(x))

    def _scaled(self, x: Array) -> Array:
        return x if self.scale == 1 else x / self.scale

    def _read(self, params: Params, scaled: Array, dropout: Dropping | None = None) -> distrax.DistributionLike:
        if dropout is not None:
            return dropout.apply(self.encoder, params["encoder"], scaled, 0)
        return self.encoder.apply({"params": params["encoder"]}, scaled)

    def decode(self, params: Params, z: Array, dropout: Dropping | None = None) -> distrax.DistributionLike:
        """d(x|z); with the `dropout` of a training step if it is given."""
        if dropout is not None:
            return dropout.apply(self.decoder, params["decoder"], z, 1)
        return self.decoder.apply({"params": params["decoder"]}, z)

    def prior_distribution(self, params: Params, x: Array) -> distrax.DistributionLike:
        """m(z); of `x` only the shape and dtype are used."""
        return self.prior.apply({"params": params["prior"]}, functools.partial(self._read, params), x)

    def terms(self, params: Params, x: Float[Array, "batch ..."], key: Array, dropout: Dropping | None = None) -> Terms:
        """Rate and distortion of each example, with one draw of z (Alemi et al. 2018, section 2).

        The rate is the closed form where there is one, see `rate_estimator`. Encoder and decoder compute in the dtype of `x`, such
        as bfloat16; densities, draws, the terms and all gradients have the dtype of the parameters. A training step gives its
        `dropout`, which encoder and decoder see, and the prior, a VampPrior's encoder included, does not.
        """
        e, m, move = flows.without_common_flow(self._read(params, self._scaled(x), dropout), self.prior_distribution(params, x))
        if information.has_closed_form_rate(e, m):
            z = e.sample(seed=key)
            rate = information.closed_form_rate(e, m)
        else:
            z, log_e = e.sample_and_log_prob(seed=key)
            rate = information.rate(log_e, m.log_prob(z))
        z_of_decoder = move(z).astype(x.dtype) if jnp.issubdtype(x.dtype, jnp.floating) else move(z)
        distortion = information.distortion(self.decode(params, z_of_decoder, dropout).log_prob(x))
        # Where an encoder has no mean in closed form the code is a draw, whose noise counts as variation too.
        base = e.distribution if flows.is_flow(e) else e
        code = base.mean() if isinstance(base, distrax.MultivariateNormalDiag) else z
        return Terms(rate, distortion, code)

    def log_weights(self, params: Params, x: Float[Array, "batch ..."]) -> LogWeights:
        """Prepare importance weights of a batch: encoder and prior are computed once for all draws.

        Args:
          params: Parameters of the model.
          x: (batch, ...) examples.

        Returns:
          A function of (samples,) keys: (samples, batch) log m(z) d(x|z) / e(z|x), nats, of one
          draw z ~ e(z|x) of each example for each key.
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
        """Whether `terms` has the rate in "closed_form" or by "monte_carlo"; of both arguments only the shapes are used."""
        kinds = []

        def look(params: Params, x: Array) -> None:
            e, m, _ = flows.without_common_flow(self.encode(params, x), self.prior_distribution(params, x))
            kinds.append(information.has_closed_form_rate(e, m))

        jax.eval_shape(look, params, x)
        return "closed_form" if kinds[0] else "monte_carlo"
