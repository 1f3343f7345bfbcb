"""Parameters drawn by NumPy: initialising a module compiles an operation for each shape it has."""

import jax
import numpy as np


def random_params(module, *args, scale=0.5, seed=9):
    """Random parameters of a module, none of them at the zero that biases start from."""
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *args))
    random = np.random.RandomState(seed)

    def draw(leaf):
        return jax.numpy.asarray(scale * random.normal(size=leaf.shape), leaf.dtype)

    return jax.tree.map(draw, shapes)
