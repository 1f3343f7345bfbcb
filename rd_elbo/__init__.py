"""rd_elbo: where a latent-variable model sits in the rate-distortion plane.

-ELBO = R + D says nothing about what a code carries. This package trains families of models, many
at a time, and reports the rate R and the distortion D of each, after Alemi et al., "Fixing a Broken
ELBO" (ICML 2018). All numbers are in nats.

    from rd_elbo.sweep import config, run

    plan = config.load({"name": "mine", "blocks": {"mlp": {"decoder": "mlp", "beta": (0.1, 1.0)}}})
    for point in run.run(plan, "runs/mine").points:
        print(point["beta"], point["split"], point["rate"], point["distortion"])

Layers, each usable without the one above: science (information, objectives, models, exact),
training (a population of any models on a mesh of devices), sweep (a grid, a run directory, resume,
shards). Reports (plotting, gallery, compare) read tables.
"""
