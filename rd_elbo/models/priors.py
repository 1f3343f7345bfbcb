"""Priors m(z).

A prior is called with the encoder, as a function of examples, and with one batch of them, of which
shape and dtype matter.
"""

from collections.abc import Callable

import distrax
import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from rd_elbo.models.flows import AutoregressiveFlow, RealNVP, is_flow

Encode = Callable[[Array], distrax.DistributionLike]


class StandardNormal(nn.Module):
    """Prior `-`: N(0, I).

    Attributes:
      latent: Dimensions of z.
    """

    latent: int

    @nn.compact
    def __call__(self, encode: Encode, like: Array) -> distrax.MultivariateNormalDiag:
        """m(z)."""
        del encode
        return _standard_normal(self.latent, like)


class FlowPrior(nn.Module):
    """Prior `+`: a standard normal moved by the inverse of a flow.

    Alemi et al. 2018, App. A, has a masked autoregressive flow, mean-only. A density takes one pass
    of each step. A draw takes one per dimension if the flow is autoregressive.

    Attributes:
      flow: Flow from z back to the normal.
    """

    flow: AutoregressiveFlow | RealNVP

    @nn.compact
    def __call__(self, encode: Encode, like: Array) -> distrax.Transformed:
        """m(z)."""
        del encode
        base = _standard_normal(self.flow.dimensions, like)
        return distrax.Transformed(base, distrax.Inverse(self.flow()))


def _standard_normal(dimensions: int, like: Array) -> distrax.MultivariateNormalDiag:
    # Examples of less than single precision make networks compute in it, not densities.
    dtype = jnp.promote_types(like.dtype, jnp.float32)
    return distrax.MultivariateNormalDiag(jnp.zeros(dimensions, dtype), jnp.ones(dimensions, dtype))


class VampPrior(nn.Module):
    """Prior `v`, a VampPrior: m(z) = sum_k w_k e(z|phi_k) (Tomczak & Welling 2018).

    The softmax weights w and the pseudo-inputs phi are learned. Bounded pseudo-inputs are stored as
    logits, so that phi stays inside [0, 1] and always has a gradient.

    Attributes:
      components: Number of pseudo-inputs.
      bounded: Whether pseudo-inputs lie in [0, 1]; others are any real values.
    """

    components: int
    bounded: bool = True

    @nn.compact
    def __call__(self, encode: Encode, like: Array) -> distrax.DistributionLike:
        """m(z)."""
        shape = (self.components, *like.shape[1:])
        stored = self.param("pseudo_inputs", self._scattered, shape)
        weights = self.param("weights", nn.initializers.zeros, (self.components,))
        mixture = distrax.Categorical(logits=weights)
        pseudo_inputs = nn.sigmoid(stored) if self.bounded else stored
        # Examples may make the encoder compute in less precision than its parameters have.
        precision = min(like.dtype, stored.dtype, key=lambda dtype: jnp.finfo(dtype).bits)
        e = encode(pseudo_inputs.astype(precision))
        if is_flow(e):
            # One flow moves all components, so it moves their mixture.
            base = distrax.MixtureSameFamily(mixture, e.distribution)
            return distrax.Transformed(base, e.bijector)
        return distrax.MixtureSameFamily(mixture, e)

    def _scattered(self, key: Array, shape: tuple[int, ...]) -> Array:
        # Around the mean pixel of a digit, and so far apart that components do not start as one.
        return nn.initializers.normal(2.0)(key, shape) - (2.0 if self.bounded else 0.0)
