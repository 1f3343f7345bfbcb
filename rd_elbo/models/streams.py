"""The network of a PixelCNN++: a list of nodes, each a layer of a stream.

Two streams of features run through six blocks at full, half, quarter, quarter, half and full size,
with shortcuts between blocks of one size. The *down* stream knows the rows above a pixel. The
*right* stream also knows the pixels to its left, and reads the down stream.

Causality comes from the places of the filters, above or to the left, and not from masks, which
would compute what they throw away. Only the first, tiny filter of the right stream has a mask. Not
every pixel sees all of its past. In odd rows the coarse levels know nothing newer than two rows up.
Only they reach further to the side than the full-size filters do.

Salimans et al. 2017 differ in details that Alemi et al. 2018 leave open. The network here has as
many layers on the way down as on the way up. It drops the earliest shortcut of the two larger
sizes, and grows images by filters that do not overlap.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from rd_elbo.models.geometry import UNPADDED, Padding, Pair
from rd_elbo.models.layers import biased, conv_to_halves, gate, pointwise

INPUT = -1
LEVELS = 3
# The most that filters reach beyond an image. Images that are being drawn are framed by as much.
ABOVE, LEFT, RIGHT = 2, 1, 1
# The right stream's first filter sees the row above and the pixel to the left: the rest of its last
# row is still to come.
_FIRST_RIGHT, _FIRST_MASK = 1, np.array([[1, 1, 1], [1, 0, 0]], np.float32)

# (rows, columns) of a stream's filters, and rows above and columns left of the pixel.
_FILTERS: dict[str, tuple[Pair, Pair]] = {
    "down": ((2, 3), (1, 1)),
    "right": ((2, 2), (1, 1)),
}
# The newest node of each stream.
_Heads = dict[str, int]


@dataclasses.dataclass(frozen=True)
class Node:
    """One layer of one stream; sources are indices of nodes before it.

    Attributes:
      stream: Stream of the node, "down" or "right".
      level: Halvings of the image: its size is divided by 2^level.
      source: Source that the filter reads, `INPUT` or a node.
      kernel: (rows, columns) of the filter.
      offset: Rows above and columns left of the pixel at which the filter begins.
      kind: "linear" or "gated", filters of stride 1; "shrink", a linear one of stride 2; or "grow",
        a linear map of each pixel to four.
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
        """Steps of the filter down and to the right, pixels."""
        return 2 if self.kind == "shrink" else 1

    def padding(self, source: Sequence[int], size: Pair) -> Padding:
        """Padding of a source of one size with which the filter gives a result of another."""
        ends = zip(source, size, self.kernel, self.offset, strict=True)
        after = ((m - 1) * self.stride + k - before - n for n, m, k, before in ends)
        rows, columns = zip(self.offset, after, strict=True)
        return rows, columns


@functools.cache
def nodes(depth: int) -> tuple[Node, ...]:
    """List the nodes of a network in the order in which they are computed.

    Args:
      depth: Residual layers in each of the six blocks.
    """
    network: list[Node] = []

    def add(stream: str, level: int, source: int, kernel: Pair, offset: Pair, *rest: Any) -> int:
        network.append(Node(stream, level, source, kernel, offset, *rest))
        return len(network) - 1

    def residual_layer(level: int, heads: _Heads, shortcut: _Heads) -> _Heads:
        for stream, filters in _FILTERS.items():
            besides = [heads["down"]] if stream == "right" else []
            besides += [shortcut[stream]] if shortcut else []
            source = heads[stream]
            middle = add(stream, level, source, *filters, "gated", tuple(besides))
            heads = {**heads, stream: add(stream, level, middle, *filters, "gated", (), source)}
        return heads

    # The heads at the start of a level and after each of its layers, on the way down.
    passed: list[list[_Heads]] = []
    heads = {
        "down": add("down", 0, INPUT, (2, 3), (2, 1), "linear"),
        "right": add("right", 0, INPUT, (2, 3), (1, 1), "linear"),
    }
    for level in range(LEVELS):
        if level:
            heads = {s: add(s, level, heads[s], *_FILTERS[s], "shrink") for s in _FILTERS}
        passed.append([heads])
        for _ in range(depth):
            heads = residual_layer(level, heads, {})
            passed[-1].append(heads)
    # The way up takes the layers of a size in reverse. At the smallest it starts at the last.
    for level in reversed(range(LEVELS)):
        shortcuts = passed[level][::-1]
        if level == LEVELS - 1:
            shortcuts = shortcuts[1:]
        else:
            heads = {s: add(s, level, heads[s], (1, 1), (0, 0), "grow") for s in _FILTERS}
        for shortcut in shortcuts[:depth]:
            heads = residual_layer(level, heads, shortcut)
    return tuple(network)


def sizes(shape: Sequence[int]) -> list[Pair]:
    """(height, width) at each level of an image of that shape."""
    return [(-(-shape[0] // 2**level), -(-shape[1] // 2**level)) for level in range(LEVELS)]


def frame(h: Array) -> Array:
    """Pad images (batch, height, width, channels) with the frame that filters read."""
    return jnp.pad(h, ((0, 0), (ABOVE, 0), (LEFT, RIGHT), (0, 0)))


def masked(index: int, params: dict[str, Array]) -> dict[str, Array]:
    """Zero the taps that the first filter of the right stream must not have.

    Args:
      index: Index of the node in the network.
      params: Parameters of the node, see `apply_node`.
    """
    if index != _FIRST_RIGHT:
        return params
    kernel = params["kernel"]
    mask = jnp.asarray(_FIRST_MASK, kernel.dtype)[:, :, None, None, None]
    return {**params, "kernel": kernel * mask}


def apply_node(
    node: Node,
    params: dict[str, Any],
    window: Array,
    besides: Sequence[Array],
    residual: Array | None,
    planes: Array,
    padding: Padding = UNPADDED,
) -> Array:
    """Compute a rectangle of a node, all but a "grow" one.

    A "linear" or "shrink" node has one half, a gated one two.

    Args:
      node: Node to compute.
      params: `kernel` (rows, columns, inputs, halves, width) and `bias` (halves, width); `besides`,
        a list of (width, halves, width), and `planes` (planes, halves, width), where the node reads
        them.
      window: (batch, rows, columns, inputs) rectangle of the source that the filter covers.
      besides: (batch, height, width, width of the network) sources read at the pixel itself.
      residual: Array that the result is added to, or None.
      planes: (batch, height, width, planes) feature planes made from z, for all layers.
      padding: Zeros added to the window.

    Returns:
      (batch, height, width, width of the network).
    """
    strides = (node.stride, node.stride)
    h = conv_to_halves(window, params["kernel"], params["bias"], padding, strides)
    for source, weights in zip(besides, params["besides"] if besides else (), strict=True):
        h = h + pointwise(source, weights)
    if "planes" in params:
        h = h + pointwise(planes, params["planes"])
    h = gate(h) if node.kind == "gated" else h[..., 0, :]
    return h if residual is None else residual + h


def grow(params: dict[str, Array], coarse: Array) -> Array:
    """Compute a "grow" node: four pixels of each.

    Args:
      params: `kernel` (2, 2, inputs, 1, width) and `bias` (1, width).
      coarse: (batch, height, width, inputs) source.

    Returns:
      (batch, 2 height, 2 width, width).
    """
    kernel = params["kernel"][..., 0, :].transpose(2, 0, 1, 3)
    # All four are channels of one matrix product.
    four = pointwise(coarse, kernel.reshape(len(kernel), 4, -1))
    h = biased(four.reshape(*four.shape[:-2], 2, 2, -1).swapaxes(2, 3), params["bias"][0])
    return h.reshape(len(h), h.shape[1] * 2, -1, h.shape[-1])
