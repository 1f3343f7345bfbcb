"""rd_elbo: where a latent-variable model sits in the rate-distortion plane.

-ELBO = R + D says nothing about what a code carries. This package trains families of models, many at a time, and reports the rate R
and the distortion D of each, after Alemi et al., "Fixing a Broken ELBO" (ICML 2018). All numbers are in nats.

    from rd_elbo import data, evaluate, grid, train

    digits = data.load("mnist_static")
    members = grid.product(grid.Member(decoder="mlp"), beta=(0.1, 0.5, 1.0), seed=(0, 1))
    for group in grid.groups(members, digits.image_shape):
        for point in evaluate.evaluate(train.train(group, digits), digits):
            print(point["beta"], point["split"], point["rate"], point["distortion"])
"""
