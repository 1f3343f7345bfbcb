"""The numbers in which the members of one program may differ."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

from rd_elbo.aliases import Renamed
from rd_elbo.errors import BadInput, number, whole
from rd_elbo.objectives import SETTINGS
from rd_elbo.training import regularisation

_ABOVE_ZERO = ("target_weight", "multiplier_rate", "learning_rate")
_AT_LEAST_ZERO = ("beta", "target_rate", "free_bits", "kl_warmup_fraction")


@dataclasses.dataclass(frozen=True)
class Hyperparameters(Renamed):
    """Numbers in which members of one population differ.

    >>> import rd_elbo as rd
    >>> rd.Hyperparameters(seed=1, beta=0.5).learning_rate
    0.001

    Attributes:
      seed: Source of all randomness of the member.
      beta: Weight of the rate (objectives "beta" and "free_bits").
      target_rate: Rate to hold, nats (objective "target_rate").
      target_weight: Weight of |target_rate - R|.
      target_distortion: Distortion to hold, nats (objective "target_distortion").
      multiplier_rate: Speed of the multiplier of that objective, which moves by a factor of at
        most 1 + this a step; where it is much faster than the model learns, the two swing.
      free_bits: Rate without cost, nats (objective "free_bits").
      kl_warmup_fraction: Part of the training, 0 to 1, in which the weight of the rate rises.
      learning_rate: Peak step size.
      divergence_threshold: Loss of a batch, nats, above which the member counts as diverged;
        infinite allows any finite loss.
      ema_decay: Decay of a moving average of the parameters, 0 to below 1, which is evaluated
        beside the last ones; 0 keeps none. See `training.regularisation.moved_average`.
      dropout: Probability, 0 to below 1, that a hidden unit is dropped in training; for models with
        layers `models.dropout.Dropout`. Flows and causal networks have none.
      shift: Pixels by which an image moves at most in training, in each direction; see
        `training.regularisation.shifted`. 0 moves none.
    """

    seed: int = 0
    beta: float = 1.0
    target_rate: float = 0.0
    target_weight: float = 2.0
    target_distortion: float = 0.0
    multiplier_rate: float = 0.003
    free_bits: float = 0.0
    kl_warmup_fraction: float = 0.0
    learning_rate: float = 1e-3
    divergence_threshold: float = math.inf
    ema_decay: float = 0.0
    dropout: float = 0.0
    shift: int = 0

    def __post_init__(self) -> None:
        own: dict[str, float] = {"seed": whole("seed", self.seed, 0)}
        own |= {field: number(field, getattr(self, field)) for field in _AT_LEAST_ZERO}
        own |= {field: number(field, getattr(self, field), above=True) for field in _ABOVE_ZERO}
        # Of a density.
        own["target_distortion"] = number("target_distortion", self.target_distortion, -math.inf)
        # Of what is infinite by default there is no other check.
        if self.divergence_threshold != math.inf:
            bound = number("divergence_threshold", self.divergence_threshold, above=True)
            own["divergence_threshold"] = bound
        if own["kl_warmup_fraction"] > 1:
            raise BadInput(
                f"kl_warmup_fraction={self.kl_warmup_fraction!r}: expected at most 1, a part of "
                "training."
            )
        for field, value in (own | regularisation.checked(vars(self))).items():
            object.__setattr__(self, field, value)


def check_effect(members: Iterable[Any], objective: str, other_peak: bool) -> None:
    """Raise `BadInput` for a number of a member that its training does not use.

    Args:
      members: Objects with some fields of `Hyperparameters`.
      objective: The objective of all members, a key of `objectives.OBJECTIVES`.
      other_peak: Whether something replaces the members' own learning rates.
    """
    of_some = {field for fields in SETTINGS.values() for field in fields}
    unused = dict.fromkeys(of_some - {*SETTINGS[objective]}, f"objective is {objective!r}")
    if other_peak:
        unused["learning_rate"] = "learning_rate or optimizer of the call replaces it"
    for member in members:
        for field, why in unused.items():
            default = getattr(Hyperparameters, field)
            if (value := getattr(member, field, default)) != default:
                raise BadInput(
                    f"{field}={value!r}: expected no value, got one without effect, since {why}. "
                    "Leave it out."
                )
