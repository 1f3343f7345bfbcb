"""An autoregressive decoder of the form of PixelCNN++, with linear gating.

See Salimans et al. 2017 and Alemi et al. 2018, App. A; `streams` has the network.

Scoring takes whole images, node by node. Sampling computes a row of the down stream as soon as the
rows above are drawn, and the right stream pixel by pixel. Each is stored and computed once; the
coarse nodes run only where a coarse pixel begins.
"""

import functools
import itertools
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from rd_elbo.models import streams
from rd_elbo.models.causal import CausalImage, readout_kernel
from rd_elbo.models.layers import Dense, GatedDense, lecun_pair
from rd_elbo.models.likelihoods import with_outputs
from rd_elbo.models.streams import ABOVE, INPUT, LEFT, Node, nodes, sizes

# The image, the plane of z, and ones, by which a filter knows the frame of zeros from the image.
_INPUT_CHANNELS = 3
# Planes made from z for all layers.
_PLANES = 4


class _Place(NamedTuple):
    """A pixel; or a whole row, if the column is None."""

    row: Array
    column: Array | None = None

    @property
    def start(self) -> tuple[Array, Array | int]:
        """The first pixel."""
        return self.row, 0 if self.column is None else self.column

    def at_level(self, level: int) -> "_Place":
        """The place at a level that covers this one of the full size."""
        column = None if self.column is None else self.column >> level
        return _Place(self.row >> level, column)

    def begins(self, level: int) -> Array:
        """Whether a pixel of that level begins here."""
        row_begins = self.row % 2**level == 0
        return row_begins if self.column is None else row_begins & (self.column % 2**level == 0)


class _Drawing(NamedTuple):
    """The arrays of images that are being drawn.

    Attributes:
      image: (batch, height + 2, width + 2, 3) framed input of the network.
      kept: (batch, height + 2, width + 2, width of the network) framed result of each node.
    """

    image: Array
    kept: list[Array]


class PixelCNNPP(CausalImage):
    """The distribution that `PixelCNNPPDecoder` makes.

    Attributes:
      params: `nodes`, a list in the order of `streams.nodes`; `kernel` (width,) and `bias` () of
        the final 1x1 convolution to one logit, or to two outputs on a last axis.
      planes: (*batch, height, width, planes) feature planes: the input channel, then those for all
        layers, if any.
      depth: Residual layers in each block.
      likelihood: Distribution of a pixel, see `CausalImage`.
    """

    def __init__(
        self,
        params: Any,
        planes: Float[Array, "*batch height width planes"],
        depth: int,
        likelihood: str = "bernoulli",
    ):
        super().__init__(params, planes, likelihood)
        self.depth = depth

    def _outputs(self, images: Array, planes: Array) -> Array:
        image, from_z = _inputs(images, planes), _at_levels(planes)
        values: list[Array] = []
        for i, node in enumerate(nodes(self.depth)):
            params = streams.masked(i, self.params["nodes"][i])
            source = image if node.source == INPUT else values[node.source]
            height, width = sizes(self.event_shape)[node.level]
            if node.kind == "grow":
                values.append(streams.grow(params, source)[:, :height, :width])
                continue
            besides = [values[b] for b in node.besides]
            residual = None if node.residual is None else values[node.residual]
            planes_here = from_z[node.level]
            others = besides, residual, planes_here
            padding = node.padding(source.shape[1:3], (height, width))
            values.append(streams.apply_node(node, params, source, *others, padding))
        return self._readout(values[-1])

    def _readout(self, h: Array) -> Array:
        return h @ self.params["kernel"] + self.params["bias"]

    def _draw(self, planes: Array, noise: Array) -> Array:
        (rows, columns), batch = self.event_shape, len(planes)
        from_z = _at_levels(planes)

        def blank(level: int, channels: int) -> Array:
            shape = (batch, *sizes(self.event_shape)[level], channels)
            return jnp.zeros(shape, planes.dtype)

        drawing = _Drawing(
            streams.frame(_inputs(blank(0, 1), planes)),
            [
                streams.frame(blank(node.level, len(self.params["kernel"])))
                for node in nodes(self.depth)
            ],
        )

        def row(drawing: _Drawing, at: tuple[Array, Array]) -> tuple[_Drawing, Array]:
            r, uniforms = at
            drawing = self._updated("down", drawing, from_z, _Place(r))

            def pixel(drawing: _Drawing, at: tuple[Array, Array]) -> tuple[_Drawing, Array]:
                c, uniform = at
                here = _Place(r, c)
                drawing = self._updated("right", drawing, from_z, here)
                outputs = self._readout(self._at(drawing.kept[-1], 0, here))[:, 0, 0]
                drawn = self._pixel(outputs, uniform).astype(planes.dtype)
                read = self._read(drawn, planes)[:, None, None, None]
                return drawing._replace(image=_put(drawing.image, read, here)), drawn

            return lax.scan(pixel, drawing, (jnp.arange(columns), uniforms))

        by_row = noise.reshape(rows, columns, batch)
        _, drawn = lax.scan(row, drawing, (jnp.arange(rows), by_row))
        return drawn.transpose(2, 0, 1)

    def _updated(
        self, stream: str, drawing: _Drawing, from_z: list[Array], place: _Place
    ) -> _Drawing:
        """Compute the nodes of a stream at a place.

        Coarse nodes are computed where one of their pixels begins; elsewhere they stay.
        """
        network, kept = nodes(self.depth), list(drawing.kept)
        mine = [i for i, node in enumerate(network) if node.stream == stream]
        # Neighbouring nodes of one level share one decision whether to run.
        for level, group in itertools.groupby(mine, lambda i: network[i].level):
            together, here = list(group), place.at_level(level)
            now = _Drawing(drawing.image, kept)
            compute = functools.partial(self._compute, together, now, from_z, here)
            if level == 0:
                new = compute()
            else:
                old = [self._at(kept[i], level, here) for i in together]
                new = lax.cond(place.begins(level), compute, lambda old=old: old)
            for i, value in zip(together, new, strict=True):
                kept[i] = _put(kept[i], value, here)
        return drawing._replace(kept=kept)

    def _at(self, framed: Array, level: int, here: _Place) -> Array:
        """The values of a kept array at a place of its level."""
        r, c = here.start
        shape = (len(framed), 1, self._length(level, here), framed.shape[-1])
        return lax.dynamic_slice(framed, (0, r + ABOVE, c + LEFT, 0), shape)

    def _length(self, level: int, here: _Place) -> int:
        """The number of pixels of a place of a level."""
        return sizes(self.event_shape)[level][1] if here.column is None else 1

    def _compute(
        self, together: list[int], drawing: _Drawing, from_z: list[Array], here: _Place
    ) -> list[Array]:
        """Compute some nodes at a place of their level, from all that is kept."""
        network, kept = nodes(self.depth), drawing.kept
        new: dict[int, Array] = {}

        def value(index: int) -> Array:
            return new[index] if index in new else self._at(kept[index], network[index].level, here)

        for i in together:
            node, params = network[i], streams.masked(i, self.params["nodes"][i])
            if node.kind == "grow":
                new[i] = self._grown(node, params, kept[node.source], here)
                continue
            (r, c), length = here.start, self._length(node.level, here)
            (rows, columns), (above, left), stride = node.kernel, node.offset, node.stride
            columns += (length - 1) * stride
            framed = drawing.image if node.source == INPUT else kept[node.source]
            start = (0, r * stride + ABOVE - above, c * stride + LEFT - left, 0)
            shape = (len(framed), rows, columns, framed.shape[-1])
            window = lax.dynamic_slice(framed, start, shape)
            if node.source in new:
                # Computed just now and not yet kept: it is the end of the filter's last row, or all
                # of it but the frame.
                fresh = new[node.source]
                end = left + fresh.shape[2]
                window = window.at[:, -1, left:end].set(fresh[:, 0, : columns - left])
            besides = [value(b) for b in node.besides]
            residual = None if node.residual is None else value(node.residual)
            planes = from_z[node.level]
            shape = (len(planes), 1, length, planes.shape[-1])
            planes = lax.dynamic_slice(planes, (0, r, c, 0), shape)
            new[i] = streams.apply_node(node, params, window, besides, residual, planes)
        return [new[i] for i in together]

    def _grown(self, node: Node, params: dict[str, Array], coarse: Array, here: _Place) -> Array:
        """Compute a "grow" node at a place of its level."""
        four = streams.grow(params, self._at(coarse, node.level + 1, here.at_level(1)))
        part = lax.dynamic_slice_in_dim(four, here.row % 2, 1, axis=1)
        if here.column is None:
            return part[:, :, : self._length(node.level, here)]
        return lax.dynamic_slice_in_dim(part, here.column % 2, 1, axis=2)


def _inputs(images: Array, planes: Array) -> Array:
    """The input of the network, (batch, height, width, 3)."""
    return jnp.concatenate([images, planes[..., :1], jnp.ones_like(images)], axis=-1)


def _at_levels(planes: Array) -> list[Array]:
    """The planes for all layers at each level; a pixel has those of its first one."""
    return [planes[:, :: 2**level, :: 2**level, 1:] for level in range(streams.LEVELS)]


def _put(framed: Array, value: Array, here: _Place) -> Array:
    """Put values at a place of a framed array."""
    r, c = here.start
    return lax.dynamic_update_slice(framed, value, (0, r + ABOVE, c + LEFT, 0))


class PixelCNNPPDecoder(nn.Module):
    """Decoder `+`: a PixelCNN++ with z as an input channel beside the image.

    A gated dense layer makes the channel (Alemi et al. 2018, App. A).

    Attributes:
      width: Channels of every layer.
      depth: Residual layers in each of the six blocks.
      image_shape: (height, width) of the images.
      z_in_every_layer: Whether every residual layer also reads z, by linear maps: one to feature
        planes, which all layers share, and one of each layer from these to its channels. The paper
        has none.
      likelihood: Distribution of a pixel, see `CausalImage`.
    """

    width: int
    depth: int
    image_shape: tuple[int, ...]
    z_in_every_layer: bool = False
    likelihood: str = "bernoulli"

    @nn.compact
    def __call__(self, z: Float[Array, "*batch latent"]) -> PixelCNNPP:
        """d(x|z)."""
        pixels = self.image_shape[0] * self.image_shape[1]
        shape = (*z.shape[:-1], *self.image_shape)
        planes = GatedDense(pixels, name="plane")(z).reshape(*shape, 1)
        if self.z_in_every_layer:
            more = Dense(pixels * _PLANES, name="planes")(z).astype(z.dtype)
            planes = jnp.concatenate([planes, more.reshape(*shape, _PLANES)], axis=-1)
        network = enumerate(nodes(self.depth))
        zeros, outputs = nn.initializers.zeros, with_outputs((), self.likelihood)
        params = {
            "nodes": [self._node(f"node_{i:02d}", node) for i, node in network],
            "kernel": self.param("readout_kernel", readout_kernel, self.width, self.likelihood),
            "bias": self.param("readout_bias", zeros, outputs),
        }
        return PixelCNNPP(params, planes, self.depth, self.likelihood)

    def _node(self, name: str, node: Node) -> dict[str, Any]:
        """The parameters of a node, see `streams.apply_node`."""
        inputs = _INPUT_CHANNELS if node.source == INPUT else self.width
        taps = (2, 2) if node.kind == "grow" else node.kernel
        ends = (2 if node.kind == "gated" else 1, self.width)
        draw = _grow_kernel if node.kind == "grow" else lecun_pair
        params = {
            "kernel": self.param(f"{name}_kernel", draw, (*taps, inputs, *ends)),
            "bias": self.param(f"{name}_bias", nn.initializers.zeros, ends),
        }
        if node.besides:
            params["besides"] = [
                self.param(f"{name}_beside_{i}", lecun_pair, (self.width, *ends))
                for i in range(len(node.besides))
            ]
        if self.z_in_every_layer and node.residual is not None:
            params["planes"] = self.param(f"{name}_planes", _small_pair, (_PLANES, *ends))
        return params


def _grow_kernel(key: Array, shape: tuple[int, ...]) -> Array:
    # Each pixel of a grown image reads one tap of the four.
    return 2 * lecun_pair(key, shape)


def _small_pair(key: Array, shape: tuple[int, ...]) -> Array:
    # Small, since it is added in every layer: together they say about as much as one.
    return 0.3 * lecun_pair(key, shape)
