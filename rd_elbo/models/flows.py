"""Normalising flows: mean-only and affine autoregressive, and affine coupling.

A mean-only autoregressive flow is z_i -> z_i + m_i(z_1, ..., z_{i-1}), with shifts m from a MADE.
It moves points and never stretches space: its Jacobian is triangular with ones on the diagonal, so
all log-determinants are zero. One direction takes one pass of the MADE, the other one per
dimension.

- An inverse autoregressive flow (Kingma et al. 2016) is quick to sample from, as an encoder needs.
- A masked autoregressive flow (Papamakarios et al. 2017) is the same map the other way round. It is
  quick to score, as a prior needs.

An affine flow, z_i -> (z_i - m_i) exp(-s_i), also has scales, and so densities that are narrow in
some places and wide in others:

- Autoregressive (MAF), m_i and s_i read all dimensions before i.
- By coupling (RealNVP, Dinh et al. 2017), they read half of the dimensions, which stay as they are.
  Both directions take one pass.
"""

from collections.abc import Callable, Sequence

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from rd_elbo.models.flow_networks import MADE, Coupler

# A step stretches or shrinks by at most e to this power, so that densities stay finite.
_MOST_LOG_SCALE = 3.0


class MeanOnlyFlow(distrax.Bijector):
    """Steps z -> reverse(z + m(z)).

    Forward takes a pass of each MADE; inverse goes dimension by dimension. The order of the
    dimensions is reversed from step to step, so that none is always the first.

    Attributes:
      made: Network of all steps, without parameters.
      params: Parameters of each step, arrays.
    """

    def __init__(self, made: MADE, params: list[dict[str, Array]]):
        super().__init__(event_ndims_in=1, is_constant_jacobian=False, is_constant_log_det=True)
        self.made, self.params = made, list(params)

    def forward_and_log_det(
        self, x: Float[Array, "*batch n"]
    ) -> tuple[Float[Array, "*batch n"], Float[Array, "*batch"]]:
        """The moved points, and log |det J| = 0."""
        y = x
        for params in self.params:
            y = jnp.flip(y + self._shift(params, y), -1)
        return y, jnp.zeros(x.shape[:-1], x.dtype)

    def inverse_and_log_det(
        self, y: Float[Array, "*batch n"]
    ) -> tuple[Float[Array, "*batch n"], Float[Array, "*batch"]]:
        """The points that move to `y`, and log |det J| = 0."""
        x = y
        for params in reversed(self.params):
            x = self._undo(params, jnp.flip(x, -1))
        return x, jnp.zeros(y.shape[:-1], y.dtype)

    def _shift(self, params: dict[str, Array], x: Array) -> Array:
        return self.made.apply({"params": params}, x)

    def _undo(self, params: dict[str, Array], y: Array) -> Array:
        """Solve x + m(x) = y: each pass makes one more dimension right."""
        # Where a loop of fixed length is a scan, it can be differentiated.
        return lax.fori_loop(0, y.shape[-1], lambda _, x: y - self._shift(params, x), y)

    def same_as(self, other: distrax.Bijector) -> bool:
        """Whether the other is the same map, of the same arrays and not of equal ones."""
        if not isinstance(other, MeanOnlyFlow) or self.made != other.made:
            return False
        ours, theirs = jax.tree.leaves(self.params), jax.tree.leaves(other.params)
        return len(ours) == len(theirs) and all(a is b for a, b in zip(ours, theirs, strict=True))


def _shift_and_log_scale(
    outputs: Float[Array, "*batch outputs"],
) -> tuple[Float[Array, "*batch n"], Float[Array, "*batch n"]]:
    """Split a network's outputs into shifts and smoothly bounded log-scales."""
    shift, log_scale = jnp.split(outputs, 2, axis=-1)
    return shift, _MOST_LOG_SCALE * jnp.tanh(log_scale / _MOST_LOG_SCALE)


class AffineFlow(distrax.Bijector):
    """Steps z -> reverse((z - m(z)) exp(-s(z))).

    Forward takes a pass of each MADE; inverse goes dimension by dimension. The order of the
    dimensions is reversed from step to step, as in `MeanOnlyFlow`.

    Attributes:
      made: Affine network of all steps, without parameters.
      params: Parameters of each step, arrays.
    """

    def __init__(self, made: MADE, params: list[dict[str, Array]]):
        super().__init__(event_ndims_in=1)
        self.made, self.params = made, list(params)

    def forward_and_log_det(
        self, x: Float[Array, "*batch n"]
    ) -> tuple[Float[Array, "*batch n"], Float[Array, "*batch"]]:
        """The moved points, and log |det J|, minus the sum of all log-scales."""
        y, log_det = x, jnp.zeros(x.shape[:-1], x.dtype)
        for params in self.params:
            shift, log_scale = self._of(params, y)
            y = jnp.flip((y - shift) * jnp.exp(-log_scale), -1)
            log_det = log_det - log_scale.sum(-1)
        return y, log_det

    def inverse_and_log_det(
        self, y: Float[Array, "*batch n"]
    ) -> tuple[Float[Array, "*batch n"], Float[Array, "*batch"]]:
        """The points that move to `y`, and log |det J| of that map back."""
        x, log_det = y, jnp.zeros(y.shape[:-1], y.dtype)
        for params in reversed(self.params):
            x = self._undo(params, jnp.flip(x, -1))
            log_det = log_det + self._of(params, x)[1].sum(-1)
        return x, log_det

    def _of(self, params: dict[str, Array], x: Array) -> tuple[Array, Array]:
        return _shift_and_log_scale(self.made.apply({"params": params}, x))

    def _undo(self, params: dict[str, Array], y: Array) -> Array:
        """Solve (x - m(x)) exp(-s(x)) = y for one dimension after another."""
        dimension = jnp.arange(y.shape[-1])

        def one(i: Array, x: Array) -> Array:
            shift, log_scale = self._of(params, x)
            # Dimensions to come stay zero: a scale of guesses of them might overflow.
            return jnp.where(dimension == i, y * jnp.exp(log_scale) + shift, x)

        return lax.fori_loop(0, y.shape[-1], one, jnp.zeros_like(y))


def coupling_halves(dimensions: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Choose the dimensions that a step of a coupling flow keeps and moves.

    Halves take turns, then even and odd ones, and so on, so that every pair of dimensions meets.

    Args:
      dimensions: Number of dimensions.
      step: Number of the step, from 0.

    Returns:
      Indices of the kept dimensions, and of the moved ones. An even step moves at least one.
    """
    index = np.arange(dimensions)
    moved = index >= dimensions // 2 if step % 4 < 2 else index % 2 != dimensions % 2
    # A single dimension is moved by even steps, by a number, and by no other.
    moved = moved if step % 2 == 0 else ~moved
    return index[~moved], index[moved]


class CouplingFlow(distrax.Bijector):
    """Steps z_B -> (z_B - m(z_A)) exp(-s(z_A)), with A and B of `coupling_halves`.

    Both directions take one pass of each step.

    Attributes:
      couplers: Network of each step, without parameters.
      params: Parameters of each step, arrays.
    """

    def __init__(self, couplers: Sequence[Coupler], params: Sequence[dict[str, Array]]):
        super().__init__(event_ndims_in=1)
        self.couplers, self.params = list(couplers), list(params)

    def forward_and_log_det(
        self, x: Float[Array, "*batch n"]
    ) -> tuple[Float[Array, "*batch n"], Float[Array, "*batch"]]:
        """The moved points, and log |det J|, minus the sum of all log-scales."""
        log_det = jnp.zeros(x.shape[:-1], x.dtype)
        for step in range(len(self.params)):
            kept, moved, shift, log_scale = self._halves(step, x)
            x = self._joined(step, kept, (moved - shift) * jnp.exp(-log_scale))
            log_det = log_det - log_scale.sum(-1)
        return x, log_det

    def inverse_and_log_det(
        self, y: Float[Array, "*batch n"]
    ) -> tuple[Float[Array, "*batch n"], Float[Array, "*batch"]]:
        """The points that move to `y`, and log |det J| of that map back."""
        log_det = jnp.zeros(y.shape[:-1], y.dtype)
        for step in reversed(range(len(self.params))):
            kept, moved, shift, log_scale = self._halves(step, y)
            y = self._joined(step, kept, moved * jnp.exp(log_scale) + shift)
            log_det = log_det + log_scale.sum(-1)
        return y, log_det

    def _halves(self, step: int, z: Array) -> tuple[Array, Array, Array, Array]:
        """The kept dimensions, the moved ones, and shifts and log-scales of those."""
        kept, moved = (z[..., index] for index in coupling_halves(z.shape[-1], step))
        outputs = self.couplers[step].apply({"params": self.params[step]}, kept)
        return kept, moved, *_shift_and_log_scale(outputs)

    def _joined(self, step: int, kept: Array, moved: Array) -> Array:
        halves = jnp.concatenate([kept, moved], axis=-1)
        return halves[..., np.argsort(np.concatenate(coupling_halves(halves.shape[-1], step)))]


class AutoregressiveFlow(nn.Module):
    """The parameters of a `MeanOnlyFlow`, or, if `affine`, of an `AffineFlow`.

    Attributes:
      dimensions: Dimensions of z.
      steps: Number of MADEs, one after another.
      width: Units of each hidden layer of a MADE.
      depth: Hidden layers of a MADE.
      affine: Whether dimensions are stretched as well as shifted.
    """

    dimensions: int
    steps: int
    width: int
    depth: int
    affine: bool = False

    @nn.compact
    def __call__(self) -> MeanOnlyFlow | AffineFlow:
        """The flow."""
        # Without a parent: the flow calls it by itself, with the parameters it is given.
        made = MADE(self.width, self.depth, self.affine, parent=None)

        def init(key: Array) -> dict[str, Array]:
            return dict(made.init(key, jnp.zeros(self.dimensions))["params"])

        params = [self.param(f"step_{step}", init) for step in range(self.steps)]
        return AffineFlow(made, params) if self.affine else MeanOnlyFlow(made, params)


class RealNVP(nn.Module):
    """The parameters of a `CouplingFlow` (Dinh et al. 2017).

    Attributes:
      dimensions: Dimensions of z.
      steps: Number of couplings, one after another.
      width: Units of each hidden layer of a coupling's network.
      depth: Hidden layers of a coupling's network.
    """

    dimensions: int
    steps: int
    width: int
    depth: int

    @nn.compact
    def __call__(self) -> CouplingFlow:
        """The flow."""
        halves = [coupling_halves(self.dimensions, step) for step in range(self.steps)]
        couplers = [Coupler(self.width, self.depth, len(moved), parent=None) for _, moved in halves]

        def init(key: Array, step: int) -> dict[str, Array]:
            return dict(couplers[step].init(key, jnp.zeros(len(halves[step][0])))["params"])

        params = [self.param(f"step_{step}", init, step) for step in range(self.steps)]
        return CouplingFlow(couplers, params)


def is_flow(distribution: distrax.DistributionLike) -> bool:
    """Whether a distribution is moved by a `MeanOnlyFlow`."""
    # To distrax every Gaussian is a transformed one.
    transformed = isinstance(distribution, distrax.Transformed)
    return transformed and isinstance(distribution.bijector, MeanOnlyFlow)


def without_common_flow(
    e: distrax.DistributionLike, m: distrax.DistributionLike
) -> tuple[distrax.DistributionLike, distrax.DistributionLike, Callable[[Array], Array]]:
    """Separate encoder and prior from the flow that moves both.

    An invertible map of both leaves the rate as it is. So it is that of their bases, and the flow
    need not be inverted.

    Args:
      e: Encoder's distribution e(z|x).
      m: Prior m(z).

    Returns:
      The bases of e and m, and the flow as a function of draws of e. If they share none: e, m and
      the identity.
    """
    if is_flow(e) and is_flow(m) and e.bijector.same_as(m.bijector):
        return e.distribution, m.distribution, e.bijector.forward
    return e, m, lambda z: z
