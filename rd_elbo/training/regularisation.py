"""Parts of training against overfitting and noise: averages of parameters, dropout, shifts.

Each is a number of a member, traced, so members of one program may differ in it. A static switch of
the program says whether any member uses it: programs without it are as if it did not exist.
"""

import inspect
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree, Shaped

from rd_elbo.errors import BadInput, choice, number, whole
from rd_elbo.models.dropout import Dropping

# Parameters that are evaluated: the last ones, or their exponential moving average.
AVERAGINGS = ("none", "ema")
# Switch of `TrainSpec` -> field of a member, which is 0 where it is off.
SWITCHES: Mapping[str, str] = MappingProxyType(
    {"averages": "ema_decay", "drops": "dropout", "shifts": "shift"}
)


def switches(members: Iterable[Any]) -> dict[str, bool]:
    """The switches of a program for members; a field that a member lacks is off."""
    members = list(members)
    return {
        switch: any(getattr(member, field, 0) > 0 for member in members)
        for switch, field in SWITCHES.items()
    }


def check_switches(spec: Any, hparams: Any) -> None:
    """Raise `BadInput` if a member asks for a part that its program does not have.

    Args:
      spec: A `state.TrainSpec`.
      hparams: A `state.HParams` of NumPy arrays.
    """
    for switch, field in SWITCHES.items():
        largest = getattr(hparams, field).max()
        if largest and not getattr(spec, switch):
            raise BadInput(
                f"{field}={largest:g}: expected 0 in a program with {switch}=False. "
                f"Give the program {switch}=True."
            )


def check_dropout(model: Any, params: PyTree, x: Any) -> None:
    """Raise `BadInput` unless the loss of a model depends on the rate of dropout.

    Args:
      model: The model, a `models.vae.Trainable`.
      params: Shapes of its parameters.
      x: Shape of a batch.
    """
    taken = "dropout" in inspect.signature(model.terms).parameters

    def terms(rate: Array, key: Array, params: PyTree, x: Array) -> Any:
        return model.terms(params, x, key, dropout=Dropping(rate, key))

    if taken:
        rate, key = jax.eval_shape(lambda: (jnp.zeros(()), jax.random.key(0)))
        traced = jax.make_jaxpr(terms)(rate, key, params, x).jaxpr
        taken = any(var is traced.invars[0] for equation in traced.eqns for var in equation.invars)
    if not taken:
        raise BadInput(
            "dropout: expected 0, since the model has no dropout layer that `terms` uses. "
            "Put `models.dropout.Dropout` into its encoder or decoder."
        )


def checked(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of the fields of a member, in their own types.

    Raises:
      BadInput: If one is not allowed.
    """
    decay = number("ema_decay", values["ema_decay"])
    if decay >= 1:
        raise BadInput(f"ema_decay={decay!r}: expected a number from 0 to below 1, such as 0.999.")
    rate = number("dropout", values["dropout"])
    if rate >= 1:
        raise BadInput(f"dropout={rate!r}: expected a number from 0 to below 1, such as 0.1.")
    return {"ema_decay": decay, "dropout": rate, "shift": whole("shift", values["shift"], 0)}


def check_shift(shift: float, shape: tuple[int, ...]) -> None:
    """Raise `BadInput` unless examples are images that can move so far.

    Args:
      shift: The largest shift, pixels; 0 is for any examples.
      shape: Shape of an example.
    """
    if shift and len(shape) not in (2, 3):
        raise BadInput(
            f"shift={shift:g}: expected 0 with examples of shape {shape}, since only images "
            "(height, width) or (height, width, channels) can move."
        )
    if shift and shift >= min(shape[:2]):
        raise BadInput(
            f"shift={shift:g}: expected fewer pixels than the {min(shape[:2])} of an image's side."
        )


def shifted(
    images: Shaped[Array, "batch height width *channels"], shift: Array, key: Array
) -> Shaped[Array, "batch height width *channels"]:
    """Move each image by a whole number of pixels down and right, uniform in [-shift, shift].

    Zeros enter, and pixels that leave are lost.

    Args:
      images: A batch of images.
      shift: () the largest shift in each direction, pixels; a whole number of any dtype.
      key: Source of the shifts.

    Returns:
      The images moved, of the same dtype.
    """
    most, size = shift.astype(jnp.int32), images.shape[1:3]
    offsets = jax.random.randint(key, (len(images), 2), -most, most + 1)

    def move(image: Array, offset: Array) -> Array:
        down, right = (jnp.arange(n) - by for n, by in zip(image.shape[:2], offset, strict=True))
        moved = image[jnp.clip(down, 0, size[0] - 1)][:, jnp.clip(right, 0, size[1] - 1)]
        rows, columns = ((at >= 0) & (at < n) for at, n in zip((down, right), size, strict=True))
        inside = (rows[:, None] & columns).reshape(*image.shape[:2], *[1] * (image.ndim - 2))
        return jnp.where(inside, moved, jnp.zeros((), image.dtype))

    return jax.vmap(move)(images, offsets)


def check_averaging(averaging: str, averages: bool) -> None:
    """Raise `BadInput` unless a population has such parameters.

    Args:
      averaging: A name of `AVERAGINGS`.
      averages: Whether members kept an average.
    """
    choice("averaging", averaging, AVERAGINGS)
    if averaging == "ema" and not averages:
        raise BadInput("averaging='ema': expected members with ema_decay above 0, got none.")


def moved_average(
    average: PyTree,
    params: PyTree,
    decay: Float[Array, ""],
    made: Int[Array, ""],
    alive: Bool[Array, ""],
) -> PyTree:
    """Move the exponential moving average of one member's parameters (Polyak & Juditsky 1992).

    average <- d * average + (1 - d) * params, with d = min(decay, (1 + t) / (10 + t)) at step t,
    counted from 0. The average begins at the initial parameters. The warm-up of d takes their
    weight after n steps, the product of all d, below 9! / n^9, so no bias is left to correct.

    A decay of 0 gives the parameters themselves. The weights of a padded unit stay zero.

    Args:
      average: Average before the step.
      params: Parameters after the step.
      decay: () decay, from 0 to below 1.
      made: () steps made before this one.
      alive: () bool, whether the step was made; otherwise the average stays.

    Returns:
      The new average.
    """
    t = made.astype(decay.dtype)
    d = jnp.minimum(decay, (1 + t) / (10 + t))
    return jax.tree.map(
        lambda a, p: jnp.where(alive, d * a + (1 - d) * p, a).astype(p.dtype), average, params
    )
