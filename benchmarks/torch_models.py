"""The same models as modules of PyTorch, and our parameters arranged for them.

Of an odd number of paddings the odd one is ours at the end, and PyTorch's at the beginning. So
convolutional models here see mirrored images, through mirrored filters, and need no padding apart.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from rd_elbo.exact import toy
from rd_elbo.models.flow_networks import made_masks
from rd_elbo.models.pixelcnn import causal_mask
from rd_elbo.sweep import grid

Tensor = torch.Tensor
Arrays = dict[str, np.ndarray]


class DenseEncoder(nn.Module):
    """Mean and scale of e(z|x)."""

    def __init__(self, member: grid.Member):
        super().__init__()
        sizes = [28 * 28, *[member.encoder_width] * member.encoder_depth]
        self.hidden = nn.ModuleList(nn.Linear(a, 2 * b) for a, b in itertools.pairwise(sizes))
        self.mean = nn.Linear(sizes[-1], member.latent)
        self.scale = nn.Linear(sizes[-1], member.latent)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, latent) each."""
        h = (2 * x - 1).flatten(1)
        for layer in self.hidden:
            h = functional.glu(layer(h), -1)
        return self.mean(h), functional.softplus(self.scale(h)) + 1e-5


class ConvEncoder(nn.Module):
    """Mean and scale of e(z|x), of mirrored images."""

    def __init__(self, member: grid.Member):
        super().__init__()
        width, depth = member.encoder_width, member.encoder_depth
        layers, before = [], 1
        for size in range(2):
            for i in range(depth):
                channels, stride = width * 2**size, 2 if i == depth - 1 else 1
                layers.append(nn.Conv2d(before, 2 * channels, 5, stride, padding=2))
                before = channels
        self.convs = nn.ModuleList(layers)
        self.whole = nn.Conv2d(before, 16 * width, 7)
        self.mean = nn.Linear(8 * width, member.latent)
        self.variance = nn.Linear(8 * width, member.latent)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, latent) each."""
        h = 2 * x[:, None] - 1
        for layer in [*self.convs, self.whole]:
            h = functional.glu(layer(h), 1)
        h = h.flatten(1)
        return self.mean(h), (functional.softplus(self.variance(h)) + 1e-10).sqrt()


class MLPDecoder(nn.Module):
    """Logits of d(x|z)."""

    def __init__(self, member: grid.Member):
        super().__init__()
        sizes = [member.latent, *[member.decoder_width] * member.decoder_depth]
        self.hidden = nn.ModuleList(nn.Linear(a, 2 * b) for a, b in itertools.pairwise(sizes))
        self.logits = nn.Linear(sizes[-1], 28 * 28)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        """(batch, height, width)."""
        for layer in self.hidden:
            z = functional.glu(layer(z), -1)
        return self.logits(z).view(x.shape)


class DeconvDecoder(nn.Module):
    """Logits of d(x|z), of mirrored images."""

    def __init__(self, member: grid.Member):
        super().__init__()
        width, depth, before, layers = member.decoder_width, member.decoder_depth, member.latent, []
        for level in range(3):
            for i in range(depth):
                channels = 2 * width if level == 0 or (level == 1 and i == 0) else width
                if i:
                    how: dict[str, int] = {"kernel_size": 4 if level == 2 else 5}
                    how["padding"] = 1 if level == 2 else 2
                elif level:
                    how = {"kernel_size": 5, "stride": 2, "padding": 2, "output_padding": 1}
                else:
                    how = {"kernel_size": 7}
                layers.append(nn.ConvTranspose2d(before, 2 * channels, **how))
                before = channels
        self.deconvs = nn.ModuleList(layers)
        self.logits = nn.Conv2d(before, 1, 5, padding=2)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        """(batch, height, width)."""
        h = z[:, :, None, None]
        for layer in self.deconvs:
            h = functional.glu(layer(h), 1)
            # A filter of even size leaves a row and a column more than there are.
            if layer.kernel_size == (4, 4):
                h = h[:, :, 1:, 1:]
        return self.logits(h)[:, 0]


class PixelCNN(nn.Module):
    """Logits of d(x|z), each pixel's given the pixels before it: masked convolutions."""

    def __init__(self, member: grid.Member, planes: int = 4):
        super().__init__()
        width, layers = member.decoder_width, range(member.decoder_depth + 1)
        self.planes = nn.Linear(member.latent, 28 * 28 * planes)
        self.layers = nn.ModuleList(nn.Conv2d(width if i else 1, 2 * width, (3, 5)) for i in layers)
        for i in layers:
            mask = torch.from_numpy(causal_mask(includes_centre=i > 0))
            self.register_buffer(f"mask_{i}", mask)
        self.said = nn.ModuleList(nn.Conv2d(planes, 2 * width, 1, bias=False) for _ in layers)
        self.readout = nn.Conv2d(width, 1, 1)
        self.readout_plane = nn.Conv2d(planes, 1, 1, bias=False)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        """(batch, height, width)."""
        planes = self.planes(z).view(len(z), 28, 28, -1).permute(0, 3, 1, 2)
        h = x[:, None]
        for i, (layer, said) in enumerate(zip(self.layers, self.said, strict=True)):
            weight = layer.weight * getattr(self, f"mask_{i}")
            read = functional.conv2d(functional.pad(h, (2, 2, 2, 0)), weight, layer.bias)
            read = functional.glu(read + said(planes), 1)
            h = h + read if i else read
        return (self.readout(h) + self.readout_plane(planes))[:, 0]


class Flow(nn.Module):
    """log m(z) of a mean-only masked autoregressive flow to a standard normal."""

    def __init__(self, member: grid.Member):
        super().__init__()
        masks = made_masks(member.latent, member.flow_width, member.flow_depth)
        for i, mask in enumerate(masks):
            self.register_buffer(f"mask_{i}", torch.from_numpy(mask.T.copy()))
        self.steps = nn.ModuleList(
            nn.ModuleList(nn.Linear(*mask.shape) for mask in masks)
            for _ in range(member.flow_steps)
        )

    def forward(self, z: Tensor) -> Tensor:
        """(batch,) nats."""
        for layers in self.steps:
            h = z
            for i, layer in enumerate(layers):
                h = h if i == 0 else functional.relu(h)
                h = functional.linear(h, layer.weight * getattr(self, f"mask_{i}"), layer.bias)
            z = (z + h).flip(-1)
        return _log_normal(z)


def _log_normal(z: Tensor) -> Tensor:
    return -0.5 * (z**2 + np.log(2 * np.pi)).sum(-1)


class VAE(nn.Module):
    """Rate and distortion of examples."""

    def __init__(self, member: grid.Member):
        super().__init__()
        self.encoder = {"dense": DenseEncoder, "conv": ConvEncoder}[member.encoder](member)
        decoders = {"mlp": MLPDecoder, "deconv": DeconvDecoder, "pixelcnn": PixelCNN}
        self.decoder = decoders[member.decoder](member)
        self.prior = Flow(member) if member.prior == "maf" else None

    def forward(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """(batch,) nats each, at z = mean + scale noise."""
        mean, scale = self.encoder(x)
        z = mean + scale * noise
        logits = self.decoder(z, x)
        if self.prior is None:
            rate = 0.5 * (mean**2 + scale**2 - 1 - 2 * scale.log()).sum(-1)
        else:
            rate = _log_normal(noise) - scale.log().sum(-1) - self.prior(z)
        bce = functional.binary_cross_entropy_with_logits(logits, x, reduction="none")
        return rate, bce.flatten(1).sum(-1)


class Toy(nn.Module):
    """The toy model: exact rate and distortion of a distribution over 30 symbols."""

    def __init__(self, codes: int = 30):
        super().__init__()
        for name, size in zip("wbvcl", (codes, codes, *[toy.SYMBOLS] * 2, codes), strict=True):
            self.register_parameter(name, nn.Parameter(torch.zeros(size, dtype=torch.float64)))
        for name, size in (("at_x", toy.SYMBOLS), ("at_z", codes)):
            places = (torch.arange(size, dtype=torch.float64) - (size - 1) / 2) / (size / 2)
            self.register_buffer(name, places)

    def forward(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """(batch,) nats each."""
        log_e = (-((self.at_x[:, None] * self.w - self.b) ** 2)).log_softmax(1)
        log_d = (-((self.at_z[:, None] * self.v - self.c) ** 2)).log_softmax(1)
        joint = x[..., None] * log_e.exp()
        rate = (joint * (log_e - self.l.log_softmax(0))).sum((-1, -2))
        return rate, -(joint * log_d.T).sum((-1, -2))


def arranged(member: grid.Member, tree: Any, exact: bool = False) -> Arrays:
    """Arrange our parameters, or gradients, by their names in a module."""
    if exact:
        parts = {"encoder": "wb", "decoder": "vc", "prior": "l"}
        return {name: tree[part][name] for part, names in parts.items() for name in names}
    own = {f"encoder.{name}": array for name, array in _encoder(member, tree["encoder"])}
    made = {"mlp": _mlp, "deconv": _deconv, "pixelcnn": _pixelcnn}[member.decoder]
    own |= {f"decoder.{name}": array for name, array in made(member, tree["decoder"])}
    if member.prior == "maf":
        flow = tree["prior"]["flow"]
        for s in range(member.flow_steps):
            for i in range(member.flow_depth + 1):
                layer, step = f"prior.steps.{s}.{i}", flow[f"step_{s}"]
                own[f"{layer}.weight"] = np.swapaxes(step[f"kernel_{i}"], 1, 2)
                own[f"{layer}.bias"] = step[f"bias_{i}"]
    return own


Named = Iterator[tuple[str, np.ndarray]]


def _encoder(member: grid.Member, ours: Any) -> Named:
    if member.encoder == "dense":
        for i in range(member.encoder_depth):
            yield from _linear(f"hidden.{i}", ours[f"hidden_{i}"])
    else:
        for i in range(2 * member.encoder_depth):
            name = f"conv_{i // member.encoder_depth}_{i % member.encoder_depth}"
            yield from _filter(f"convs.{i}", ours[name])
        yield from _filter("whole", ours["whole"])
    for name in ("mean", "scale" if member.encoder == "dense" else "variance"):
        yield from _linear(name, ours[name])


def _mlp(member: grid.Member, ours: Any) -> Named:
    for i in range(member.decoder_depth):
        yield from _linear(f"hidden.{i}", ours[f"hidden_{i}"])
    yield from _linear("logits", ours["logits"])


def _deconv(member: grid.Member, ours: Any) -> Named:
    for i in range(3 * member.decoder_depth):
        name = f"deconv_{i // member.decoder_depth}_{i % member.decoder_depth}" if i else "whole"
        yield from _filter(f"deconvs.{i}", ours[name], (0, 3, 4, 1, 2))
    logits = {"kernel": ours["logits_kernel"], "bias": ours["logits_bias"][:, None]}
    yield from _filter("logits", logits, gated=False)


def _pixelcnn(member: grid.Member, ours: Any) -> Named:
    yield from _linear("planes", ours["planes"])
    for i in range(member.decoder_depth + 1):
        layer = {name: ours[f"layer_{i}_{name}"] for name in ("kernel", "bias")}
        yield from _filter(f"layers.{i}", layer, mirrored=False)
        plane = _joined(ours[f"layer_{i}_plane"])
        yield f"said.{i}.weight", np.swapaxes(plane, 1, 2)[..., None, None]
    yield "readout.weight", ours["readout_kernel"][:, None, :, None, None]
    yield "readout.bias", ours["readout_bias"][:, None]
    yield "readout_plane.weight", ours["readout_plane"][:, None, :, None, None]


def _joined(array: np.ndarray) -> np.ndarray:
    """Both halves of a gate on one axis."""
    return array.reshape(*array.shape[:-2], -1)


def _linear(name: str, layer: Any) -> Named:
    kernel, bias = layer["kernel"], layer["bias"]
    if bias.ndim == 3:
        kernel, bias = _joined(kernel), _joined(bias)
    yield f"{name}.weight", np.swapaxes(kernel, 1, 2)
    yield f"{name}.bias", bias


def _filter(
    name: str,
    layer: Any,
    axes: tuple[int, ...] = (0, 4, 3, 1, 2),
    *,
    gated: bool = True,
    mirrored: bool = True,
) -> Named:
    kernel, bias = layer["kernel"], layer["bias"]
    if gated:
        kernel, bias = _joined(kernel), _joined(bias)
    kernel = kernel[:, ::-1, ::-1] if mirrored else kernel
    yield f"{name}.weight", kernel.transpose(axes)
    yield f"{name}.bias", bias
