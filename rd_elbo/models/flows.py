"""Mean-only autoregressive flows: z_i -> z_i + m_i(z_1, ..., z_{i-1}), with the shifts m from a MADE.

Such a map moves points and never stretches space: its Jacobian is triangular with ones on the diagonal, so all log-determinants
are zero. One direction takes one pass of the MADE, the other one pass per dimension. An inverse autoregressive flow (Kingma et al.
2016) is quick to sample from, which an encoder needs; a masked autoregressive flow (Papamakarios et al. 2017) is the same map the
other way round, and quick to score, which a marginal needs.
"""

import itertools
from collections.abc import Callable

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

# Shifts start small, so that a flow starts near the identity, but not at zero, where weights before the last have no gradient.
_FIRST_SHIFTS = 0.1


def made_masks(dimensions: int, width: int, depth: int) -> list[np.ndarray]:
    """Which weights of a MADE may differ from zero (Germain et al. 2015), from input to output.

    Unit k of a hidden layer may look at inputs 1 to d_k only; output i looks at units of a degree d below i. Degrees run through
    1, ..., dimensions - 1, again and again in a wide layer; a layer narrower than that spreads what it has over them, and then an
    output may miss some of the inputs before it.

    Args:
      dimensions: Inputs, and outputs.
      width: Units of each hidden layer.
      depth: Hidden layers.

    Returns:
      depth + 1 arrays (inputs, outputs) of zeros and ones.
    """
    most = max(dimensions - 1, 1)
    # With a single dimension no output may look at any unit: degree 1 is not below it.
    hidden = (np.arange(width) % most if width >= most else np.arange(width) * most // width) + 1
    degrees = [np.arange(1, dimensions + 1), *[hidden] * depth]
    masks = [before[:, None] <= after for before, after in itertools.pairwise(degrees)]
    masks.append(hidden[:, None] < degrees[0])
    return [mask.astype(np.float32) for mask in masks]


class MADE(nn.Module):
    """A dense network whose output i depends on the inputs before i alone; ReLU (Alemi et al. 2018, App. A).

    Attributes:
      width: Units of each hidden layer.
      depth: Hidden layers.
    """

    width: int
    depth: int

    @nn.compact
    def __call__(self, z: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
        """One shift for each dimension."""
        n, h = z.shape[-1], z
        masks = made_masks(n, self.width, self.depth)
        for i, mask in enumerate(masks):
            last = i == len(masks) - 1
            h = h @ (self.param(f"kernel_{i}", _masked_init(mask, _FIRST_SHIFTS if last else 2.0), mask.shape) * mask)
            h = h + self.param(f"bias_{i}", nn.initializers.zeros, mask.shape[1:])
            h = h if last else nn.relu(h)
        return h


def _masked_init(mask: np.ndarray, variance: float) -> nn.initializers.Initializer:
    """Normal weights whose sums have `variance` times the variance of their inputs; 2 makes up for what ReLU takes."""
    inputs = np.maximum(mask.sum(0), 1)
    return lambda key, shape, dtype=jnp.float32: jax.random.normal(key, shape, dtype) * np.sqrt(variance / inputs).astype(dtype)


class MeanOnlyFlow(distrax.Bijector):
    """Steps z -> reverse(z + m(z)): forward in a pass of each MADE, inverse dimension by dimension.

    The order of the dimensions is reversed from step to step, so that none is always the first. Holds arrays only.

    Attributes:
      made: The network, one for all steps.
      params: Of each step.
    """

    def __init__(self, made: MADE, params: list[dict[str, Array]]):
        super().__init__(event_ndims_in=1, is_constant_jacobian=False, is_constant_log_det=True)
        self.made, self.params = made, list(params)

    def forward_and_log_det(self, x: Float[Array, "*batch n"]) -> tuple[Float[Array, "*batch n"], Float[Array, "*batch"]]:
        """The moved points, and log |det J| = 0."""
        y = x
        for params in self.params:
            y = jnp.flip(y + self._shift(params, y), -1)
        return y, jnp.zeros(x.shape[:-1], x.dtype)

    def inverse_and_log_det(self, y: Float[Array, "*batch n"]) -> tuple[Float[Array, "*batch n"], Float[Array, "*batch"]]:
        """The points that move to `y`, and log |det J| = 0."""
        x = y
        for params in reversed(self.params):
            x = self._undo(params, jnp.flip(x, -1))
        return x, jnp.zeros(y.shape[:-1], y.dtype)

    def _shift(self, params: dict[str, Array], x: Array) -> Array:
        return self.made.apply({"params": params}, x)

    def _undo(self, params: dict[str, Array], y: Array) -> Array:
        """Solves x + m(x) = y: each pass makes one dimension more right, the first one first."""
        # Where a loop of fixed length is a scan, it can be differentiated.
        return lax.fori_loop(0, y.shape[-1], lambda _, x: y - self._shift(params, x), y)

    def same_as(self, other: distrax.Bijector) -> bool:
        """Whether the other is the same map because it was made of the same arrays, not just of equal ones."""
        if not isinstance(other, MeanOnlyFlow) or self.made != other.made:
            return False
        ours, theirs = jax.tree.leaves(self.params), jax.tree.leaves(other.params)
        return len(ours) == len(theirs) and all(a is b for a, b in zip(ours, theirs, strict=True))


class AutoregressiveFlow(nn.Module):
    """The parameters of a `MeanOnlyFlow`.

    Attributes:
      dimensions: Of z.
      steps: MADEs one after another.
      width: Units of each hidden layer of a MADE.
      depth: Hidden layers of a MADE.
    """

    dimensions: int
    steps: int
    width: int
    depth: int

    @nn.compact
    def __call__(self) -> MeanOnlyFlow:
        """The flow."""
        # Without a parent: the flow calls it by itself, with the parameters it is given.
        made, like = MADE(self.width, self.depth, parent=None), jnp.zeros(self.dimensions)
        params = [self.param(f"step_{i}", lambda key: dict(made.init(key, like)["params"])) for i in range(self.steps)]
        return MeanOnlyFlow(made, params)


def is_flow(distribution: distrax.DistributionLike) -> bool:
    """Whether a distribution is one of ours moved by a `MeanOnlyFlow`; to distrax every Gaussian is a transformed one."""
    return isinstance(distribution, distrax.Transformed) and isinstance(distribution.bijector, MeanOnlyFlow)


def without_common_flow(
    e: distrax.DistributionLike, m: distrax.DistributionLike
) -> tuple[distrax.DistributionLike, distrax.DistributionLike, Callable[[Array], Array]]:
    """Encoder and marginal without the flow that moves both, and that flow.

    An invertible map of both leaves the rate as it is, so where e and m end in the same flow the rate is that of what they begin
    with, and the flow need not be inverted.

    Args:
      e: e(z|x).
      m: m(z).

    Returns:
      e, m and a function to apply to draws of e: the bases and the flow if they share one, else e and m and the identity.
    """
    if is_flow(e) and is_flow(m) and e.bijector.same_as(m.bijector):
        return e.distribution, m.distribution, e.bijector.forward
    return e, m, lambda z: z
