"""Dropout at a rate that is a traced number of each member, for any module."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# The stream of randomness, which flax's own dropout reads too, and the place of the rate.
_STREAM, _COLLECTION = "dropout", "training"


class Dropping(NamedTuple):
    """The dropout of one training step.

    Attributes:
      rate: () probability that a unit is dropped, from 0 to below 1.
      key: Source of the masks.
    """

    rate: Any
    key: Any

    def apply(self, module: nn.Module, params: Any, inputs: Array, part: int) -> Any:
        """Call a module with its dropout layers at work.

        Args:
          module: Encoder or decoder.
          params: Parameters of the module.
          inputs: Arguments of the call.
          part: Number that tells the masks of the module from those of others.
        """
        variables = {"params": params, _COLLECTION: {"rate": self.rate}}
        keys = {_STREAM: jax.random.fold_in(self.key, part)}
        return module.apply(variables, inputs, rngs=keys)


class Dropout(nn.Module):
    """Set units to zero at random in training, and scale up the others.

    See Srivastava et al. 2014. A mask has one value per example, the first axis, and unit, the
    last. A channel of a convolution is dropped at all pixels (spatial dropout, Tompson et al.
    2015): its neighbours would give away a single pixel. Outside training, and at rate 0, units
    stay as they are.

    A unit's mask does not depend on the number of units beside it. So a member padded to a larger
    width drops as it would alone; a padded unit stays zero.
    """

    @nn.compact
    def __call__(self, h: Float[Array, "examples ..."]) -> Float[Array, "examples ..."]:
        """The units that are left."""
        if not self.has_rng(_STREAM):
            return h
        rate = self.scope.root.get_variable(_COLLECTION, "rate")
        # Units first: of partitionable keys, more units are more rows and leave these as they are.
        drawn = jax.random.uniform(self.make_rng(_STREAM), (h.shape[-1], len(h)), jnp.float32)
        kept = (drawn >= rate).T.reshape(len(h), *[1] * (h.ndim - 2), h.shape[-1])
        return jnp.where(kept, h * jnp.asarray(1 / (1 - rate), h.dtype), jnp.zeros((), h.dtype))
