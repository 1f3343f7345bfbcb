"""Normalising flows: mean-only and affine autoregressive ones, and affine coupling.

A mean-only autoregressive flow, z_i -> z_i + m_i(z_1, ..., z_{i-1}) with the shifts m from a MADE,
moves points and never stretches space: its Jacobian is triangular with ones on the diagonal, so all
log-determinants are zero. One direction takes one pass of the MADE, the other one pass per
dimension. An inverse autoregressive flow (Kingma et al. 2016) is quick to sample from, which an
encoder needs; a masked autoregressive flow (Papamakarios et al. 2017) is the same map the other way
round, and quick to score, which a prior needs.

An affine flow has scales as well, z_i -> (z_i - m_i) exp(-s_i), and so densities that are narrow in
some places and wide in others. Autoregressive (MAF), m_i and s_i look at all dimensions before i;
by coupling (RealNVP, Dinh et al. 2017), they look at half of the dimensions, which stay as they
are, and both directions take one pass.
"""

import itertools
from collections.abc import Callable, Sequence

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

# Shifts start small, so that a flow starts near the identity, but not at zero, where weights before
# the last have no gradient.
_FIRST_SHIFTS = 0.1
# Variance of the first log-scales: small, since those of all steps add up in an exponent.
_FIRST_LOG_SCALES = 0.01
# A step stretches or shrinks by at most e to this power, so that densities stay finite.
_MOST_LOG_SCALE = 3.0


def made_masks(dimensions: int, width: int, depth: int) -> list[np.ndarray]:
    """Which weights of a MADE may differ from zero (Germain et al. 2015), from input to output.

    Unit k of a hidden layer may look at inputs 1 to d_k only; output i looks at units of a degree d
    below i. Degrees run through 1, ..., dimensions - 1, again and again in a wide layer; a layer
    narrower than that spreads what it has over them, and then an output may miss some of the inputs
    before it.

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
    """A dense ReLU network whose output i depends on the inputs before i alone.

    Alemi et al. 2018, App. A.

    Attributes:
      width: Units of each hidden layer.
      depth: Hidden layers.
      affine: Whether each dimension has a log-scale besides its shift.
    """

    width: int
    depth: int
    affine: bool = False

    @nn.compact
    def __call__(self, z: Float[Array, "*batch n"]) -> Float[Array, "*batch outputs"]:
        """One shift for each dimension; an affine flow adds one log-scale, not yet bounded."""
        masks = made_masks(z.shape[-1], self.width, self.depth)
        if self.affine:
            masks[-1] = np.tile(masks[-1], (1, 2))
        return _dense_relu(self, z, masks, self.affine)


def _dense_relu(module: nn.Module, h: Array, masks: Sequence[np.ndarray], affine: bool) -> Array:
    """Dense layers of a module, with ReLU between.

    Each has a mask (inputs, outputs) of its weights.
    """
    for i, mask in enumerate(masks):
        last = i == len(masks) - 1
        variance: float | np.ndarray = 2.0
        if last:
            halves = (_FIRST_SHIFTS, _FIRST_LOG_SCALES)
            variance = np.repeat(halves, mask.shape[1] // 2) if affine else _FIRST_SHIFTS
        kernel = module.param(f"kernel_{i}", _masked_init(mask, variance), mask.shape)
        h = h @ (kernel if mask.all() else kernel * mask)
        h = h + module.param(f"bias_{i}", nn.initializers.zeros, mask.shape[1:])
        h = h if last else nn.relu(h)
    return h


def _masked_init(mask: np.ndarray, variance: float | np.ndarray) -> nn.initializers.Initializer:
    """Normal weights whose sums have `variance` times the variance of their inputs.

    A `variance` of 2 makes up for the half that ReLU drops.
    """
    inputs = np.maximum(mask.sum(0), 1)
    return lambda key, shape, dtype=jnp.float32: (
        jax.random.normal(key, shape, dtype) * np.sqrt(variance / inputs).astype(dtype)
    )


class Coupler(nn.Module):
    """A dense ReLU network of a coupling step.

    From the dimensions that the step leaves alone to shifts and log-scales of the others.

    Attributes:
      width: Units of each hidden layer.
      depth: Hidden layers.
      moved: Dimensions that are moved.
    """

    width: int
    depth: int
    moved: int

    @nn.compact
    def __call__(self, z: Float[Array, "*batch n"]) -> Float[Array, "*batch outputs"]:
        """One shift and then one log-scale, not yet bounded, for each moved dimension."""
        sizes = (z.shape[-1], *[self.width] * self.depth, 2 * self.moved)
        return _dense_relu(
            self,
            z,
            [np.ones(shape, np.float32) for shape in itertools.pairwise(sizes)],
            affine=True,
        )


class MeanOnlyFlow(distrax.Bijector):
    """Steps z -> reverse(z + m(z)): forward in a pass of each MADE, inverse dimension by dimension.

    The order of the dimensions is reversed from step to step, so that none is always the first.
    Holds arrays only.

    Attributes:
      made: The network, one for all steps.
      params: Parameters of each step.
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
        """Solves x + m(x) = y: each pass makes one dimension more right, the first one first."""
        # Where a loop of fixed length is a scan, it can be differentiated.
        return lax.fori_loop(0, y.shape[-1], lambda _, x: y - self._shift(params, x), y)

    def same_as(self, other: distrax.Bijector) -> bool:
        """Whether the other is the same map: made of the same arrays, not of equal ones."""
        if not isinstance(other, MeanOnlyFlow) or self.made != other.made:
            return False
        ours, theirs = jax.tree.leaves(self.params), jax.tree.leaves(other.params)
        return len(ours) == len(theirs) and all(a is b for a, b in zip(ours, theirs, strict=True))


def _shift_and_log_scale(
    outputs: Float[Array, "*batch outputs"],
) -> tuple[Float[Array, "*batch n"], Float[Array, "*batch n"]]:
    """The two halves of a network's outputs, the second bounded smoothly."""
    shift, log_scale = jnp.split(outputs, 2, axis=-1)
    return shift, _MOST_LOG_SCALE * jnp.tanh(log_scale / _MOST_LOG_SCALE)


class AffineFlow(distrax.Bijector):
    """Steps z -> reverse((z - m(z)) exp(-s(z))).

    Forward takes a pass of each MADE, inverse goes dimension by dimension. The order of the
    dimensions is reversed from step to step, as in `MeanOnlyFlow`. Holds arrays only.

    Attributes:
      made: The affine network, one for all steps.
      params: Parameters of each step.
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
        """Solves (x - m(x)) exp(-s(x)) = y for one dimension after another."""
        dimension = jnp.arange(y.shape[-1])

        def one(i: Array, x: Array) -> Array:
            shift, log_scale = self._of(params, x)
            # Dimensions to come stay zero: a scale of guesses of them might overflow.
            return jnp.where(dimension == i, y * jnp.exp(log_scale) + shift, x)

        return lax.fori_loop(0, y.shape[-1], one, jnp.zeros_like(y))


def coupling_halves(dimensions: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Which dimensions step number `step` of a coupling flow looks at, and which it moves.

    Halves take turns, then even and odd ones, and so on, so that every pair of dimensions meets.

    Returns:
      Indices of the dimensions looked at, and of those moved; the latter are at least one if `step`
      is even.
    """
    index = np.arange(dimensions)
    moved = index >= dimensions // 2 if step % 4 < 2 else index % 2 != dimensions % 2
    # With a single dimension, steps of even number move it, by a number, and the others do nothing.
    moved = moved if step % 2 == 0 else ~moved
    return index[~moved], index[moved]


class CouplingFlow(distrax.Bijector):
    """Steps z_B -> (z_B - m(z_A)) exp(-s(z_A)), with A and B of `coupling_halves`.

    Both directions take one pass of each step. Holds arrays only.

    Attributes:
      couplers: The network of each step.
      params: Parameters of each step.
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
            looked_at, moved, shift, log_scale = self._halves(step, x)
            x = self._joined(step, looked_at, (moved - shift) * jnp.exp(-log_scale))
            log_det = log_det - log_scale.sum(-1)
        return x, log_det

    def inverse_and_log_det(
        self, y: Float[Array, "*batch n"]
    ) -> tuple[Float[Array, "*batch n"], Float[Array, "*batch"]]:
        """The points that move to `y`, and log |det J| of that map back."""
        log_det = jnp.zeros(y.shape[:-1], y.dtype)
        for step in reversed(range(len(self.params))):
            looked_at, moved, shift, log_scale = self._halves(step, y)
            y = self._joined(step, looked_at, moved * jnp.exp(log_scale) + shift)
            log_det = log_det + log_scale.sum(-1)
        return y, log_det

    def _halves(self, step: int, z: Array) -> tuple[Array, Array, Array, Array]:
        """The dimensions looked at, those moved, and the shifts and log-scales of the latter."""
        looked_at, moved = (z[..., index] for index in coupling_halves(z.shape[-1], step))
        outputs = self.couplers[step].apply({"params": self.params[step]}, looked_at)
        return looked_at, moved, *_shift_and_log_scale(outputs)

    def _joined(self, step: int, looked_at: Array, moved: Array) -> Array:
        parts = jnp.concatenate([looked_at, moved], axis=-1)
        return parts[..., np.argsort(np.concatenate(coupling_halves(parts.shape[-1], step)))]


class AutoregressiveFlow(nn.Module):
    """The parameters of a `MeanOnlyFlow`, or, if `affine`, of an `AffineFlow`.

    Attributes:
      dimensions: Dimensions of z.
      steps: MADEs one after another.
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
        made, like = (
            MADE(self.width, self.depth, self.affine, parent=None),
            jnp.zeros(self.dimensions),
        )
        params = [
            self.param(f"step_{i}", lambda key: dict(made.init(key, like)["params"]))
            for i in range(self.steps)
        ]
        return AffineFlow(made, params) if self.affine else MeanOnlyFlow(made, params)


class RealNVP(nn.Module):
    """The parameters of a `CouplingFlow` (Dinh et al. 2017).

    Attributes:
      dimensions: Dimensions of z.
      steps: Couplings one after another.
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
    """Whether a distribution is one of ours moved by a `MeanOnlyFlow`.

    To distrax every Gaussian is a transformed one.
    """
    return isinstance(distribution, distrax.Transformed) and isinstance(
        distribution.bijector, MeanOnlyFlow
    )


def without_common_flow(
    e: distrax.DistributionLike, m: distrax.DistributionLike
) -> tuple[distrax.DistributionLike, distrax.DistributionLike, Callable[[Array], Array]]:
    """Encoder and prior without the flow that moves both, and that flow.

    An invertible map of both leaves the rate as it is. Where e and m end in the same flow, the rate
    is that of their bases, and the flow need not be inverted.

    Args:
      e: e(z|x).
      m: m(z).

    Returns:
      e, m and a function to apply to draws of e: the bases and the flow if they share one, else e
      and m and the identity.
    """
    if is_flow(e) and is_flow(m) and e.bijector.same_as(m.bijector):
        return e.distribution, m.distribution, e.bijector.forward
    return e, m, lambda z: z
