"""The forms of convolutions on CPU against XLA's own convolution and its autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rd_elbo.models import cpu_conv
from rd_elbo.models.geometry import Geometry, same_padding

CAUSAL = Geometry((6, 12), (3, 5))
SAME = Geometry((4, 8), (3, 3), padding=same_padding((4, 8), (3, 3), (1, 1)))
EVEN = Geometry((4, 8), (4, 4), padding=same_padding((4, 8), (4, 4), (1, 1)))
ODD = Geometry((4, 7), (3, 3), padding=same_padding((4, 7), (3, 3), (1, 1)))
CUT = Geometry((5, 8), (3, 5), padding=((0, 1), (-2, 4)))
STRIDED = Geometry((6, 8), (5, 5), (2, 2), same_padding((6, 8), (5, 5), (2, 2)))


@pytest.mark.parametrize(
    ("geometry", "inputs", "outputs", "columns"),
    [
        (CAUSAL, 1, 16, 2),
        (CAUSAL, 4, 8, 4),
        (SAME, 8, 4, 4),
        (SAME, 16, 17, 1),
        (EVEN, 3, 2, 8),
        (ODD, 2, 3, 1),
        (CUT, 8, 16, 2),
        (STRIDED, 3, 2, 1),
    ],
)
@pytest.mark.parametrize("tile", [1, 2**21], ids=["an example a tile", "one tile"])
def test_maps_are_those_of_xla(x64, monkeypatch, geometry, inputs, outputs, columns, tile):
    monkeypatch.setattr(cpu_conv, "_TILE", tile)
    assert cpu_conv._columns(geometry, inputs, outputs) == columns
    draw = np.random.RandomState(0).randn
    x, w = draw(4, *geometry.size, inputs), draw(*geometry.kernel, inputs, outputs)
    dy = draw(4, *geometry.result, outputs)

    def convolve(x, w):
        return cpu_conv.convolve(x, w, geometry.strides, geometry.padding)

    def expected(x, w, dy):
        y, back = jax.vjp(convolve, x, w)
        return (y, *back(dy))

    def ours(x, w, dy):
        return (
            cpu_conv.forward(geometry, x, w),
            cpu_conv.input_gradient(geometry, dy, w),
            cpu_conv.kernel_gradient(geometry, x, dy),
        )

    for got, wanted in zip(*jax.jit(lambda *a: (ours(*a), expected(*a)))(x, w, dy), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12)


def test_tiles_are_even_where_the_batch_allows_it(monkeypatch):
    monkeypatch.setattr(cpu_conv, "_TILE", 7 * 4 * 2 * 32)
    shapes = [jax.ShapeDtypeStruct((100, *SAME.size, 1), jnp.float32)] * 2
    text = str(jax.make_jaxpr(lambda x, dy: cpu_conv.kernel_gradient(SAME, x, dy))(*shapes))
    assert "length=25" in text
