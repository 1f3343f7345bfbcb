"""From a gradient to a step: schedules of the learning rate, Adam, Muon, and optax's optimizers.

An optimizer sees the gradient of one member, so a global norm is that member's own.
"""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, PyTree

from rd_elbo import references, sources
from rd_elbo.errors import choice
from rd_elbo.training import muon

_WARMUP = 0.05
# Where a gradient vanishes there is no direction to scale up.
_SMALLEST_NORM = 1e-7
# Squares of larger elements, or sums of such squares, would overflow float32.
_LARGEST = 1e15
_B1, _EPS = 0.9, 1e-8

# Learning-rate multipliers as functions of the part of the training done.
SCHEDULES: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {
        "constant": lambda progress: jnp.ones_like(progress),
        "cosine": lambda progress: 0.5 * (1 + jnp.cos(jnp.pi * progress)),
        # Alemi et al. 2018, section 4: flat for the first half, then linear to zero.
        "half_linear": lambda progress: jnp.minimum(1.0, 2 - 2 * progress),
        # Small steps while Adam's moments are young, and at the end.
        "warmup_cosine": lambda progress: (
            jnp.minimum(1.0, progress / _WARMUP) * 0.5 * (1 + jnp.cos(jnp.pi * progress))
        ),
    }
)


def normalised(gradient: PyTree) -> PyTree:
    """Divide each tensor of a gradient by its own norm; a tensor of zeros stays zero.

    Yu et al. 2017, as Alemi et al. 2018 trained. Adam alone forgets the scale of a tensor's
    gradients slowly. Normalised, the scale does not matter and no step is an outlier.
    """
    return jax.tree.map(lambda g: g / (jnp.sqrt(jnp.sum(g**2)) + _SMALLEST_NORM), gradient)


def checked(gradient: PyTree) -> tuple[PyTree, Bool[Array, ""]]:
    """Bound a gradient, and say whether it is finite.

    A tensor with elements above 1e15 is scaled down to that: squares stay finite in float32. The
    scale is a number of each tensor, so that it costs no further pass over memory.

    Args:
      gradient: A gradient, of any structure.

    Returns:
      The gradient, and whether all of its elements were finite; nothing is squared, so 1e20 is.
    """
    leaves, tree = jax.tree.flatten(gradient)
    if not leaves:
        return gradient, jnp.asarray(True)
    largest = [jnp.max(jnp.abs(leaf)) for leaf in leaves]
    scaled = [g * jnp.minimum(1, _LARGEST / m) for g, m in zip(leaves, largest, strict=True)]
    return jax.tree.unflatten(tree, scaled), jnp.isfinite(jnp.max(jnp.stack(largest)))


def adam(
    params: PyTree,
    moments: optax.ScaleByAdamState,
    gradient: PyTree,
    step_size: Float[Array, ""],
    alive: Bool[Array, ""],
    b2: float,
) -> tuple[PyTree, optax.ScaleByAdamState]:
    """Make one step of Adam (Kingma & Ba 2015), or none.

    The numbers are those of `optax.adam`. Parameters are computed from the new moments, behind a
    barrier: computed from the old ones, as XLA on CPU would have it, both are needed at once and
    copied in every step. The freeze of a member is in the same passes over memory.

    Args:
      params: Parameters.
      moments: State of `optax.scale_by_adam`.
      gradient: Gradient, like `params`.
      step_size: Learning rate of this step.
      alive: () bool, whether to make the step.
      b2: Decay of the second moment; that of the first is 0.9.

    Returns:
      New parameters and moments.
    """

    def if_alive(new: Array, old: Array) -> Array:
        return jnp.where(alive, new, old)

    count = if_alive(moments.count + 1, moments.count)
    mu = jax.tree.map(lambda m, g: if_alive(_B1 * m + (1 - _B1) * g, m), moments.mu, gradient)
    nu = jax.tree.map(lambda v, g: if_alive(b2 * v + (1 - b2) * g * g, v), moments.nu, gradient)
    mu, nu = lax.optimization_barrier((mu, nu))
    # Scalars are divided, not whole tensors.
    exponent = count.astype(step_size.dtype)
    scale_mu, scale_nu = step_size / (1 - _B1**exponent), 1 / jnp.sqrt(1 - b2**exponent)

    def move(p: Array, m: Array, v: Array) -> Array:
        return if_alive(p - scale_mu * m / (scale_nu * jnp.sqrt(v) + _EPS), p)

    params = jax.tree.map(move, params, mu, nu)
    return params, moments._replace(count=count, mu=mu, nu=nu)


class Optimizer(NamedTuple):
    """How a member moves.

    Attributes:
      init: Function from parameters to the optimizer's state.
      step: Function from parameters, state, gradient, step size and `alive` to new parameters and
        state, which are the old ones where `alive` is False.
    """

    init: Callable[[PyTree], PyTree]
    step: Callable[..., tuple[PyTree, PyTree]]


# From a learning rate to a transformation; or a transformation, which has its own.
Optax: TypeAlias = Callable[[Any], Any] | optax.GradientTransformation


def of_optax(transformation: Optax) -> Optimizer:
    """Make an optimizer of a transformation of optax.

    Args:
      transformation: A function from a learning rate, such as `optax.adamw`, which is called with
        the traced step size of each member and step; or a transformation, which has a learning rate
        of its own.
    """

    def at(step_size: Any) -> Any:
        complete = isinstance(transformation, optax.GradientTransformation)
        return transformation if complete else transformation(step_size)

    def step(
        params: PyTree, state: PyTree, gradient: PyTree, step_size: Array, alive: Array
    ) -> tuple[PyTree, PyTree]:
        updates, moved = at(step_size).update(gradient, state, params)
        new = optax.apply_updates(params, updates), moved
        return jax.tree.map(lambda a, b: jnp.where(alive, a, b), new, (params, state))

    return Optimizer(lambda params: at(0.0).init(params), step)


def _adam(prepare: Callable[[PyTree], PyTree], b2: float) -> Optimizer:
    def step(
        params: PyTree, state: Any, gradient: PyTree, step_size: Array, alive: Array
    ) -> tuple[PyTree, PyTree]:
        return adam(params, state, prepare(gradient), step_size, alive, b2)

    return Optimizer(optax.scale_by_adam().init, step)


def _muon(b2: float) -> Optimizer:
    """Muon for kernels and Adam for the rest, both of normalised gradients."""

    def init(params: PyTree) -> muon.MuonState:
        kernels, rest = muon.split(params)
        momentum = jax.tree.map(jnp.zeros_like, kernels)
        return muon.MuonState(momentum, optax.scale_by_adam().init(rest))

    def step(
        params: PyTree, state: muon.MuonState, gradient: PyTree, step_size: Array, alive: Array
    ) -> tuple[PyTree, PyTree]:
        kernels, rest = muon.split(params)
        of_kernels, of_rest = muon.split(normalised(gradient))
        kernels, momentum = muon.step(kernels, state.momentum, of_kernels, step_size, alive)
        rest, moments = adam(rest, state.moments, of_rest, step_size, alive, b2)
        return muon.joined({**kernels, **rest}, params), muon.MuonState(momentum, moments)

    return Optimizer(init, step)


def clipped_adam(learning_rate: Any) -> optax.GradientTransformation:
    """Adam of gradients whose global norm is bounded by 100; losses are sums over pixels."""
    return optax.chain(optax.clip_by_global_norm(100.0), optax.adam(learning_rate))


def choose_optimizer(name: Any, b2: float = 0.999) -> Optimizer:
    """The optimizer of a name, of a reference such as "optax:adamw", or of a part of optax itself.

    Args:
      name: A key of `OPTIMIZERS`, "package.module:name", or what `of_optax` takes.
      b2: Decay of Adam's second moment, for our own.

    Raises:
      BadInput: If there is none.
    """
    if references.is_reference(name):
        name = references.load("optimizer", name)
    return _optimizer(name, b2)


@functools.lru_cache(maxsize=64)
def _optimizer(name: Any, b2: float) -> Optimizer:
    if callable(name) or isinstance(name, optax.GradientTransformation):
        return of_optax(name)
    choice("optimizer", name, OPTIMIZERS)
    return OPTIMIZERS[name](b2)


def source_of(name: Any) -> str:
    """SHA-256 of the text that a reference leads to; "" for names of ours."""
    own = references.is_reference(name)
    return sources.digest(references.load("optimizer", name)) if own else ""


# From the decay of Adam's second moment, which only our own have a use for.
OPTIMIZERS: Mapping[str, Callable[[float], Optimizer]] = MappingProxyType(
    {
        "adam": lambda b2: _adam(lambda gradient: gradient, b2),
        "normalised_adam": lambda b2: _adam(normalised, b2),
        "muon": _muon,
        "clipped_adam": lambda b2: of_optax(clipped_adam),
        "adamw": lambda b2: of_optax(optax.adamw),
    }
)
