"""Priors m(z).

A prior is called with the encoder, as a function of examples, and one batch of them, of which it
uses shape and dtype.
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

    Alemi et al. 2018, App. A, has a masked autoregressive flow, mean-only.

    Attributes:
      flow: Flow from z back to the normal. A density takes one pass of each step; a draw takes one
        per dimension if the flow is autoregressive.
    """

    flow: AutoregressiveFlow | RealNVP

    @nn.compact
    def __call__(self, encode: Encode, like: Array) -> distrax.Transformed:
        """m(z)."""
        del encode
        return distrax.Transformed(
            _standard_normal(self.flow.dimensions, like), distrax.Inverse(self.flow())
        )


def _standard_normal(dimensions: int, like: Array) -> distrax.MultivariateNormalDiag:
    # Examples of less than single precision make networks compute in it, not densities.
    dtype = jnp.promote_types(like.dtype, jnp.float32)
    return distrax.MultivariateNormalDiag(jnp.zeros(dimensions, dtype), jnp.ones(dimensions, dtype))


class VampPrior(nn.Module):
    """Prior `v`, a VampPrior: m(z) = sum_k w_k e(z|phi_k) (Tomczak & Welling 2018).

    The softmax weights w and the pseudo-inputs phi are learned. Pseudo-inputs of pixels are stored
    as logits, so that phi stays inside [0, 1] and always has a gradient.

    Attributes:
      components: Number of pseudo-inputs.
      bounded: Whether examples lie in [0, 1]; those of other real values have any pseudo-inputs.
    """

    components: int
    bounded: bool = True

    @nn.compact
    def __call__(self, encode: Encode, like: Array) -> distrax.DistributionLike:
        """m(z)."""
        # Around the mean pixel of a digit and far enough apart that the components do not start as
        # one.
        scattered = nn.initializers.normal(2.0)
        centre = 2.0 if self.bounded else 0.0
        logits = self.param(
            "pseudo_inputs", lambda *a: scattered(*a) - centre, (self.components, *like.shape[1:])
        )
        weights = self.param("weights", nn.initializers.zeros, (self.components,))
        mixture = distrax.Categorical(logits=weights)
        # In the type of the examples where they make the encoder compute in less precision than its
        # parameters have.
        precision = min(like.dtype, logits.dtype, key=lambda dtype: jnp.finfo(dtype).bits)
        e = encode((nn.sigmoid(logits) if self.bounded else logits).astype(precision))
        if is_flow(e):
            # One flow moves all components, so it moves their mixture.
            return distrax.Transformed(
                distrax.MixtureSameFamily(mixture, e.distribution), e.bijector
            )
        return distrax.MixtureSameFamily(mixture, e)
