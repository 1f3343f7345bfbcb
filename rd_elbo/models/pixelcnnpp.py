"""An autoregressive decoder of the form of PixelCNN++ (Salimans et al. 2017), with linear gating (Alemi et al. 2018, App. A).

Two streams of features run through six blocks at full, half, quarter, quarter, half and full size, with shortcuts between blocks of
one size. The *down* stream knows the rows above a pixel; the *right* stream knows the pixels to its left as well, and it hears the
down stream. Causality comes from where the filters lie, above or to the left, and not from masks, which would compute what they
throw away; only the first, tiny filter of the right stream has one. Not every pixel sees all of its past: in odd rows the coarse
levels know nothing newer than two rows up, and only they reach further to the side than the full-size filters do.

In what the paper leaves open this is not the published PixelCNN++: it has as many layers on the way down as on the way up, drops
the earliest shortcut of the two larger sizes, and grows images by filters that do not overlap.

The network is a list of nodes, and `_apply` computes any rectangle of a node from the rectangle of its source that its filter
covers. Scoring takes whole images, node by node. Sampling computes a row of the down stream as soon as the rows above are drawn,
and the right stream pixel by pixel. Each is stored and computed once; the coarse nodes run only where a coarse pixel begins.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from rd_elbo.models.causal import CausalImage, readout_kernel
from rd_elbo.models.layers import GatedDense, Pair, biased, conv, gate, in_dtype_of, lecun_pair
from rd_elbo.models.likelihoods import with_outputs

_INPUT = -1
# Planes made from z for all layers.
_PLANES = 4
# The image, what z says, and ones, by which a filter knows the frame of zeros from the image.
_INPUT_CHANNELS = 3
_LEVELS = 3
# Every array that filters read is framed by this much: two rows above, a column at each side.
_ABOVE, _LEFT, _RIGHT = 2, 1, 1
# The right stream's first filter sees the row above and the pixel to the left: the rest of its last row is still to come.
_FIRST_MASK = np.array([[1, 1, 1], [1, 0, 0]], np.float32)


@dataclasses.dataclass(frozen=True)
class Node:
    """One layer of one stream; sources are indices of nodes before it.

    Attributes:
      stream: "down" or "right".
      level: Halvings of the image: it is 2^level times smaller.
      source: Source that the filter reads, `_INPUT` or a node.
      kernel: (rows, columns) of the filter.
      offset: Rows above and columns left of the pixel at which the filter begins.
      kind: "linear" or "gated", filters of stride 1; "shrink", linear of stride 2; "grow", which makes four pixels of each.
      besides: Nodes read at the pixel itself.
      residual: Node that the result is added to, if any.
    """

    stream: str
    level: int
    source: int
    kernel: Pair
    offset: Pair
    kind: str
    besides: tuple[int, ...] = ()
    residual: int | None = None

    @property
    def stride(self) -> int:
        """Of the filter."""
        return 2 if self.kind == "shrink" else 1


@functools.cache
def nodes(depth: int) -> tuple[Node, ...]:
    """The network with `depth` residual layers in each of the six blocks, in the order in which it is computed."""
    network: list[Node] = []
    filters = {"down": ((2, 3), (1, 1)), "right": ((2, 2), (1, 1))}

    def add(*args: Any, **kwargs: Any) -> int:
        network.append(Node(*args, **kwargs))
        return len(network) - 1

    def block(level: int, at: dict[str, int], shortcuts: Sequence[dict[str, int]]) -> list[dict[str, int]]:
        made = []
        for layer in range(depth):
            for stream, others in (("down", ()), ("right", ("down",))):
                kernel, offset = filters[stream]
                besides = [at[other] for other in others]
                besides += [shortcuts[layer][stream]] if shortcuts else []
                middle = add(stream, level, at[stream], kernel, offset, "gated", tuple(besides))
                at = {**at, stream: add(stream, level, middle, kernel, offset, "gated", residual=at[stream])}
            made.append(at)
        return made

    at = {"down": add("down", 0, _INPUT, (2, 3), (2, 1), "linear"), "right": add("right", 0, _INPUT, (2, 3), (1, 1), "linear")}
    passed: list[list[dict[str, int]]] = []
    for level in range(_LEVELS):
        if level:
            at = {s: add(s, level, at[s], *filters[s], "shrink") for s in filters}
        passed.append([at, *block(level, at, ())])
        at = passed[-1][-1]
    # The way back takes the layers of a size in reverse; at the smallest, the last of them is where it starts.
    for level in reversed(range(_LEVELS)):
        remaining = passed[level][::-1]
        if level == _LEVELS - 1:
            remaining = remaining[1:]
        else:
            at = {s: add(s, level, at[s], (1, 1), (0, 0), "grow") for s in filters}
        at = block(level, at, remaining[:depth])[-1]
    return tuple(network)


def _apply(
    node: Node, params: dict[str, Array], window: Array, besides: Sequence[Array], residual: Array | None, planes: Array
) -> Array:
    """Compute a rectangle of a node.

    Args:
      node: Node to compute.
      params: `kernel` (rows, columns, inputs, halves, width), `bias` (halves, width) and, with something besides, `besides`
        (sources, width, halves, width) and, where it reads what z says, `planes` (planes, halves, width); a "linear" or "shrink"
        node has one half, a gated one two.
      window: (batch, rows, columns, inputs), all that the filter meets.
      besides: (batch, height, width, width) sources read at the pixel itself.
      residual: Array that the result is added to, or None.
      planes: (batch, height, width, planes) feature planes made from z, for all layers; none if layers do not read z.

    Returns:
      (batch, height, width, width of the network).
    """
    kernel = in_dtype_of(window, params["kernel"])
    h = conv(window, kernel.reshape(*kernel.shape[:3], -1), strides=(node.stride, node.stride))
    h = biased(h.reshape(*h.shape[:-1], *kernel.shape[3:]), params["bias"])
    for source, weights in zip(besides, params["besides"] if besides else (), strict=True):
        h = h + _pointwise(source, weights)
    if "planes" in params:
        h = h + _pointwise(planes, params["planes"])
    h = gate(h) if node.kind == "gated" else h[..., 0, :]
    return h if residual is None else residual + h


def _pointwise(source: Array, kernel: Array) -> Array:
    """A linear map at each pixel, by a kernel (inputs, halves, width)."""
    h = source @ in_dtype_of(source, kernel).reshape(len(kernel), -1)
    return h.reshape(*h.shape[:-1], *kernel.shape[1:])


def _grow(params: dict[str, Array], coarse: Array) -> Array:
    """Four pixels of each: (batch, height, width, inputs) to (batch, 2 height, 2 width, width)."""
    kernel = in_dtype_of(coarse, params["kernel"][..., 0, :])
    # All four are channels of one matrix product.
    four = coarse @ kernel.transpose(2, 0, 1, 3).reshape(coarse.shape[-1], -1)
    h = biased(four.reshape(*four.shape[:-1], 2, 2, -1).swapaxes(2, 3), params["bias"][0])
    return h.reshape(len(h), h.shape[1] * 2, -1, h.shape[-1])


def _frame(h: Array) -> Array:
    return jnp.pad(h, ((0, 0), (_ABOVE, 0), (_LEFT, _RIGHT), (0, 0)))


def _unmasked(index: int, params: dict[str, Array]) -> dict[str, Array]:
    """The parameters of a node with the taps gone that the first filter of the right stream must not have."""
    if index != 1:
        return params
    return {**params, "kernel": params["kernel"] * jnp.asarray(_FIRST_MASK, params["kernel"].dtype)[:, :, None, None, None]}


def _inputs(images: Array, planes: Array) -> Array:
    return jnp.concatenate([images, planes[..., :1], jnp.ones_like(images)], axis=-1)


def _at_levels(planes: Array) -> list[Array]:
    """What z says to all layers, at each level: the first of the pixels that one there stands for."""
    return [planes[:, :: 2**level, :: 2**level, 1:] for level in range(_LEVELS)]


def _sizes(shape: Sequence[int]) -> list[Pair]:
    """(height, width) at each level."""
    return [(-(-shape[0] // 2**level), -(-shape[1] // 2**level)) for level in range(_LEVELS)]


class PixelCNNPP(CausalImage):
    """The distribution that `PixelCNNPPDecoder` makes.

    Attributes:
      params: `nodes`, a list in the order of `nodes(depth)`, and `kernel` (width,) and `bias` () of the final 1x1 convolution to
        one logit; or to two outputs, on a last axis.
      planes: (*batch, height, width, planes) feature planes: the input channel, then those for all layers, if any.
      depth: Residual layers in each block.
      likelihood: Distribution of a pixel, see `CausalImage`.
    """

    def __init__(self, params: Any, planes: Float[Array, "*batch height width planes"], depth: int, likelihood: str = "bernoulli"):
        super().__init__(params, planes, likelihood)
        self.depth = depth

    def _outputs(self, images: Array, planes: Array) -> Array:
        image, from_z, sizes = _inputs(images, planes), _at_levels(planes), _sizes(self.event_shape)
        values: list[Array] = []
        for i, node in enumerate(nodes(self.depth)):
            params, source = _unmasked(i, self.params["nodes"][i]), image if node.source == _INPUT else values[node.source]
            if node.kind == "grow":
                height, width = sizes[node.level]
                values.append(_grow(params, source)[:, :height, :width])
                continue
            window = _frame(source)[:, _ABOVE - node.offset[0] :, _LEFT - node.offset[1] :]
            (height, width), stride = sizes[node.level], node.stride
            window = window[:, : (height - 1) * stride + node.kernel[0], : (width - 1) * stride + node.kernel[1]]
            residual = None if node.residual is None else values[node.residual]
            values.append(_apply(node, params, window, [values[b] for b in node.besides], residual, from_z[node.level]))
        return self._readout(values[-1])

    def _readout(self, h: Array) -> Array:
        return h @ self.params["kernel"] + self.params["bias"]

    def _draw(self, planes: Array, noise: Array) -> Array:
        sizes, (rows, columns) = _sizes(self.event_shape), self.event_shape
        batch, width = len(planes), self.params["kernel"].shape[0]
        image = _frame(_inputs(jnp.zeros((batch, rows, columns, 1), planes.dtype), planes))
        from_z = _at_levels(planes)
        kept = [_frame(jnp.zeros((batch, *sizes[node.level], width), planes.dtype)) for node in nodes(self.depth)]

        def row(carry: tuple[Array, list[Array]], at: tuple[Array, Array]) -> tuple[tuple[Array, list[Array]], Array]:
            (image, kept), (r, uniforms) = carry, at
            kept = self._fresh("down", image, kept, from_z, r, None)

            def pixel(carry: tuple[Array, list[Array]], at: tuple[Array, Array]) -> tuple[tuple[Array, list[Array]], Array]:
                (image, kept), (c, uniform) = carry, at
                kept = self._fresh("right", image, kept, from_z, r, c)
                h = lax.dynamic_slice(kept[-1], (0, r + _ABOVE, c + _LEFT, 0), (batch, 1, 1, width))
                drawn = self._pixel(self._readout(h)[:, 0, 0], uniform).astype(planes.dtype)
                read = self._read(drawn, planes)[:, None, None, None]
                return (lax.dynamic_update_slice(image, read, (0, r + _ABOVE, c + _LEFT, 0)), kept), drawn

            return lax.scan(pixel, (image, kept), (jnp.arange(columns), uniforms))

        _, drawn = lax.scan(row, (image, kept), (jnp.arange(rows), noise.reshape(rows, columns, batch)))
        return drawn.transpose(2, 0, 1)

    def _fresh(self, stream: str, image: Array, kept: list[Array], from_z: list[Array], r: Array, c: Array | None) -> list[Array]:
        """`kept` with the nodes of a stream computed at row r, and column c, or all columns where there is none.

        Coarse nodes are computed where one of their pixels begins; between, what is there is put back.
        """
        network, kept = nodes(self.depth), list(kept)
        mine = [i for i, node in enumerate(network) if node.stream == stream]
        while mine:
            # Nodes of one level in a row share one decision whether to run.
            level = network[mine[0]].level
            together = [i for i in mine if all(network[j].level == level for j in mine if j <= i)]
            mine = mine[len(together) :]
            here = (r >> level, None if c is None else c >> level)
            old = [self._at(kept[i], level, here) for i in together]
            compute = functools.partial(self._compute, together, image, kept, from_z, here)
            if level == 0:
                new = compute()
            else:
                begins = (r % 2**level == 0) & (True if c is None else c % 2**level == 0)
                new = lax.cond(begins, compute, lambda old=old: old)
            for i, value in zip(together, new, strict=True):
                kept[i] = lax.dynamic_update_slice(
                    kept[i], value, (0, here[0] + _ABOVE, (0 if here[1] is None else here[1]) + _LEFT, 0)
                )
        return kept

    def _at(self, framed: Array, level: int, here: tuple[Array, Array | None]) -> Array:
        """The pixel, or row, `here` of a kept array."""
        width = _sizes(self.event_shape)[level][1] if here[1] is None else 1
        start = (0, here[0] + _ABOVE, (0 if here[1] is None else here[1]) + _LEFT, 0)
        return lax.dynamic_slice(framed, start, (len(framed), 1, width, framed.shape[-1]))

    def _compute(
        self, together: list[int], image: Array, kept: list[Array], from_z: list[Array], here: tuple[Array, Array | None]
    ) -> list[Array]:
        """The pixel, or row, `here` of some nodes, of which all else that they look at is kept."""
        network = nodes(self.depth)
        new: dict[int, Array] = {}

        def value(index: int) -> Array:
            return new[index] if index in new else self._at(kept[index], network[index].level, here)

        for i in together:
            node, params = network[i], _unmasked(i, self.params["nodes"][i])
            (r, c), stride = here, node.stride
            if node.kind == "grow":
                new[i] = self._grown(node, params, kept[node.source], here)
                continue
            length = _sizes(self.event_shape)[node.level][1] if c is None else 1
            framed = image if node.source == _INPUT else kept[node.source]
            start = (0, r * stride + _ABOVE - node.offset[0], (0 if c is None else c * stride) + _LEFT - node.offset[1], 0)
            columns = (length - 1) * stride + node.kernel[1]
            window = lax.dynamic_slice(framed, start, (len(framed), node.kernel[0], columns, framed.shape[-1]))
            if node.source in new:
                # Computed just now and not yet kept: it is the end of the filter's last row, or all of it but the frame.
                first = node.offset[1]
                window = window.at[:, -1, first : first + new[node.source].shape[2]].set(new[node.source][:, 0, : columns - first])
            residual = None if node.residual is None else value(node.residual)
            planes = from_z[node.level]
            planes = lax.dynamic_slice(planes, (0, r, 0 if c is None else c, 0), (len(planes), 1, length, planes.shape[-1]))
            new[i] = _apply(node, params, window, [value(b) for b in node.besides], residual, planes)
        return [new[i] for i in together]

    def _grown(self, node: Node, params: dict[str, Array], coarse: Array, here: tuple[Array, Array | None]) -> Array:
        r, c = here
        source = self._at(coarse, node.level + 1, (r >> 1, None if c is None else c >> 1))
        four = _grow(params, source)
        part = lax.dynamic_slice_in_dim(four, r % 2, 1, axis=1)
        if c is None:
            return part[:, :, : _sizes(self.event_shape)[node.level][1]]
        return lax.dynamic_slice_in_dim(part, c % 2, 1, axis=2)


class PixelCNNPPDecoder(nn.Module):
    """Decoder `+` (Alemi et al. 2018, App. A): z, through a gated dense layer, is an input channel beside the image.

    Attributes:
      width: Channels of every layer.
      depth: Residual layers in each of the six blocks.
      image_shape: (height, width) of the images.
      z_in_every_layer: Whether every residual layer also reads z, by linear maps: one to feature planes, which all layers share,
        and one of each layer from these to its channels. The paper has none.
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
        plane = GatedDense(self.image_shape[0] * self.image_shape[1], name="plane")(z)
        plane = plane.reshape(*z.shape[:-1], *self.image_shape, 1)
        if self.z_in_every_layer:
            planes = nn.Dense(self.image_shape[0] * self.image_shape[1] * _PLANES, name="planes")(z).astype(z.dtype)
            plane = jnp.concatenate([plane, planes.reshape(*z.shape[:-1], *self.image_shape, _PLANES)], axis=-1)
        params = {
            "nodes": [self._node(f"node_{i:02d}", node) for i, node in enumerate(nodes(self.depth))],
            "kernel": self.param("readout_kernel", readout_kernel, self.width, self.likelihood),
            "bias": self.param("readout_bias", nn.initializers.zeros, with_outputs((), self.likelihood)),
        }
        return PixelCNNPP(params, plane, self.depth, self.likelihood)

    def _node(self, name: str, node: Node) -> dict[str, Any]:
        halves = 2 if node.kind == "gated" else 1
        inputs = _INPUT_CHANNELS if node.source == _INPUT else self.width
        taps = (2, 2) if node.kind == "grow" else node.kernel
        params = {
            "kernel": self.param(f"{name}_kernel", self._init(node), (*taps, inputs, halves, self.width)),
            "bias": self.param(f"{name}_bias", nn.initializers.zeros, (halves, self.width)),
        }
        if node.besides:
            shape = (self.width, halves, self.width)
            params["besides"] = [self.param(f"{name}_beside_{i}", lecun_pair, shape) for i in range(len(node.besides))]
        if self.z_in_every_layer and node.residual is not None:
            # Small, since it is added in every layer: together they say about as much as one.
            small = lambda *a: 0.3 * lecun_pair(*a)  # noqa: E731
            params["planes"] = self.param(f"{name}_planes", small, (_PLANES, halves, self.width))
        return params

    def _init(self, node: Node) -> Any:
        # Each pixel of a grown image hears one tap of the four.
        return (lambda key, shape: 2 * lecun_pair(key, shape)) if node.kind == "grow" else lecun_pair
