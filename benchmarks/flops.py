"""Operations of a step, counted by hand from the architecture.

Only products of matrices and convolutions count, two operations for a multiplication and addition.
Gates count, since both of their halves are products. A product costs as much for the gradient of
its kernel as forward, and as much again for the gradient of its input. A layer that reads pixels
needs none of the latter. Padding counts as pixels do, and so do masked taps and masked weights,
which every contender multiplies by.
"""

from collections.abc import Iterator

from rd_elbo.models.family import Architecture

# Multiplications forward of one example, and whether the layer's input needs a gradient.
Layer = tuple[int, bool]
_PIXELS, _HALF, _QUARTER = 28 * 28, 14 * 14, 7 * 7
_CROP, _PLANES = 3 * 5, 4


def per_step(member: Architecture, batch: int, forward: bool = False) -> float:
    """Operations of one member's step on 28x28 images.

    Args:
      member: The architecture; of the parts, those below.
      batch: Examples of the step.
      forward: Whether to leave out the gradients.
    """
    layers = [*_ENCODERS[member.encoder](member), *_DECODERS[member.decoder](member)]
    layers += _PRIORS[member.prior](member)
    passes = (lambda inner: 1) if forward else (lambda inner: 3 if inner else 2)
    return 2.0 * batch * sum(products * passes(inner) for products, inner in layers)


def _dense(a: Architecture) -> Iterator[Layer]:
    yield _PIXELS * 2 * a.encoder_width, False
    for _ in range(a.encoder_depth - 1):
        yield a.encoder_width * 2 * a.encoder_width, True
    yield a.encoder_width * 2 * a.latent, True


def _conv(a: Architecture) -> Iterator[Layer]:
    before = 1
    for size, (pixels, smaller) in enumerate(((_PIXELS, _HALF), (_HALF, _QUARTER))):
        channels = a.encoder_width * 2**size
        for i in range(a.encoder_depth):
            places = smaller if i == a.encoder_depth - 1 else pixels
            yield places * 25 * before * 2 * channels, size + i > 0
            before = channels
    yield _QUARTER * before * 2 * 8 * a.encoder_width, True
    yield 8 * a.encoder_width * 2 * a.latent, True


def _mlp(a: Architecture) -> Iterator[Layer]:
    before = a.latent
    for _ in range(a.decoder_depth):
        yield before * 2 * a.decoder_width, True
        before = a.decoder_width
    yield before * _PIXELS, True


def _deconv(a: Architecture) -> Iterator[Layer]:
    before, width = a.latent, a.decoder_width
    for level, places in enumerate((_QUARTER, _HALF, _PIXELS)):
        for i in range(a.decoder_depth):
            channels = 2 * width if level == 0 or (level == 1 and i == 0) else width
            if i == 0:
                # Each pixel of the smaller image paints a whole filter; z paints the first image.
                taps = _QUARTER if level == 0 else places // 4 * 25
            else:
                taps = places * (16 if level == 2 else 25)
            yield taps * before * 2 * channels, True
            before = channels
    yield _PIXELS * 25 * before, True


def _pixelcnn(a: Architecture) -> Iterator[Layer]:
    width = a.decoder_width
    yield a.latent * _PIXELS * _PLANES, True
    for i in range(a.decoder_depth + 1):
        yield _PIXELS * _CROP * (width if i else 1) * 2 * width, i > 0
        yield _PIXELS * _PLANES * 2 * width, True
    yield _PIXELS * (width + _PLANES), True


def _normal(a: Architecture) -> Iterator[Layer]:
    yield from ()


def _maf(a: Architecture) -> Iterator[Layer]:
    for _ in range(a.flow_steps):
        yield a.latent * a.flow_width, True
        for _ in range(a.flow_depth - 1):
            yield a.flow_width**2, True
        yield a.flow_width * a.latent, True


_ENCODERS = {"dense": _dense, "conv": _conv}
_DECODERS = {"mlp": _mlp, "deconv": _deconv, "pixelcnn": _pixelcnn}
_PRIORS = {"normal": _normal, "maf": _maf}
