"""The toy model of Alemi et al. 2018: the ELBO drops the code, a target rate keeps it.

Both hold from any small initialisation.

    python -m experiments.toy --workdir=runs/toy
    python -m experiments.toy --workdir=runs/toy_quick --config=configs/toy.py:quick  # seconds

Claim: over 1,024 initialisations the ELBO ends at R <= 0.005 and R + D <= H + 0.001 in at least 99
%, a target rate of 0.5 at |R - 0.5| <= 0.001 and R + D <= H + 0.005 in at least 97 %. Under two
minutes on two cores.
"""

from ml_collections import ConfigDict, config_dict


def get_config(form: str = "full") -> ConfigDict:
    """The configuration; `form` is "full" or "quick"."""
    if form not in ("full", "quick"):
        raise ValueError(f"form={form!r}: expected 'full' or 'quick'.")
    quick = form == "quick"
    config = ConfigDict()
    config.name = "toy"
    config.codes = 30
    config.initialisations = 16 if quick else 1024
    config.initial_scale = 0.1
    config.target_rate = 0.5
    config.target_weight = 2.0
    # How many of the initialisations are also trained with the weight of 1 that the paper prints,
    # and from far apart.
    config.printed_weight = 8 if quick else 256
    config.wide = 8 if quick else 128
    config.wide_scale = 1.0
    config.wide_steps = 20 if quick else 9000
    # The curve: so many initialisations at each beta and at each target rate.
    config.curve_initialisations = 2 if quick else 16
    config.betas = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 1.0, 1.01, 1.02, 1.05, 1.1, 1.25, 1.5, 2.0)
    # A run comes from R = 0 up to its target, and fails to reach the diagonal at high ones. There
    # the weight is annealed: the run learns to auto-encode first and comes down from there.
    config.target_rates = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
    config.high_target_rates = (1.75, 2.0, 2.25, 2.5, 2.75)
    config.kl_warmup_fraction = 0.5
    config.steps = 20 if quick else 2500
    # Adam with a short memory of squared gradients: with the usual 0.999 two target-rate runs in a
    # hundred end in a worse optimum.
    config.adam_b2 = 0.95
    config.schedule = "cosine"
    config.elbo_learning_rate = 0.01
    config.learning_rate = 0.1
    config.population = ConfigDict(
        {"devices": config_dict.placeholder(int), "vmap_size": 16, "dtype": "float64"}
    )
    return config
