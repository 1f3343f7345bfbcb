r"""A linear VAE trained along beta lies on the exact rate-distortion curve of its Gaussian source.

    python -m experiments.gaussian --workdir=runs/gaussian
    python -m experiments.gaussian --workdir=runs/gaussian_quick \
        --config=configs/gaussian.py:quick  # seconds

Claim: every learned point is within 0.02 nats of the curve that reverse water-filling gives. Under
a minute on two cores.
"""

from ml_collections import ConfigDict, config_dict


def get_config(form: str = "full") -> ConfigDict:
    """The configuration; `form` is "full" or "quick"."""
    if form not in ("full", "quick"):
        raise ValueError(f"form={form!r}: expected 'full' or 'quick'.")
    quick = form == "quick"
    config = ConfigDict()
    config.name = "gaussian"
    # The source: variances along directions drawn at random, about a random mean.
    config.variances = (4.0, 2.0, 1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125)
    config.examples = 512 if quick else 16384
    config.data_seed = 0
    # Standard deviation of the decoder; at beta the water level is beta noise^2.
    config.noise = 0.5
    config.betas = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.5, 4.0, 7.0, 12.0, 20.0)
    # As many latent dimensions as the source has, and too few.
    config.latents = (8, 3)
    config.seeds = 2
    # Draws of z for every example, of the measurement by sampling.
    config.draws = 4 if quick else 32
    config.steps = 50 if quick else 8000
    config.batch_size = 256
    # Large: the latents have to turn to the source's axes, which is slow where distortion outweighs
    # rate.
    config.learning_rate = 3e-2
    config.schedule = "half_linear"
    execution = {
        "devices": config_dict.placeholder(int),
        "vmap_size": config_dict.placeholder(int),
        "dtype": "float32",
    }
    config.population = ConfigDict(execution)
    return config
