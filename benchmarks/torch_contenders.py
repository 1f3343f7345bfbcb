"""PyTorch models: one after another, and stacked under `torch.func.vmap`."""

import copy
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.cases import Probe, Problem
from benchmarks.torch_models import VAE, Toy, arranged

Tensor = torch.Tensor
_B1, _B2, _EPS = 0.9, 0.999, 1e-8
# Steps by which two ways of one contender are compared, to keep the faster one.
_TRIED = 3
# Toys that are trained one after another; the others would take as long.
_SAMPLE = 64


def models_of(problem: Problem) -> list[nn.Module]:
    """A module for each member, with our parameters."""
    member, exact = problem.case.member, problem.case.exact
    arrays, models = arranged(member, problem.params, exact), []
    for i in range(problem.members):
        model: nn.Module = Toy() if exact else VAE(member)
        own = {name: torch.from_numpy(np.array(array[i])) for name, array in arrays.items()}
        _, unknown = model.load_state_dict(own, strict=False)
        lacking = {name for name, _ in model.named_parameters()} - own.keys()
        if unknown or lacking:
            raise ValueError(f"parameters={sorted({*unknown, *lacking})}: expected in both")
        models.append(model)
    return models


def _mirrored(problem: Problem, images: np.ndarray) -> np.ndarray:
    """Images as the modules see them, see `torch_models`; a copy."""
    mirror = not problem.case.exact and problem.case.member.encoder == "conv"
    return (images[:, ::-1, ::-1] if mirror else images).copy()


class _Data:
    """Batches and noise, made inside a step."""

    def __init__(self, problem: Problem):
        self._images = torch.from_numpy(_mirrored(problem, problem.data))
        self._rows = torch.from_numpy(problem.rows)
        self.dtype = getattr(torch, problem.spec.dtype)
        self._latent, self._drawn = problem.latent, not problem.case.exact

    def batch(self, at: int, members: int | None = None) -> tuple[Tensor, Tensor]:
        """Examples and noise of a step; of so many members, or of one without their axis."""
        rows = self._rows[at % len(self._rows)]
        if members is not None:
            rows = rows.expand(members, -1)
        x = self._images[rows].to(self.dtype)
        shape = (*rows.shape, self._latent)
        return x, torch.randn(shape, dtype=self.dtype) if self._drawn else x[..., :1]

    def probe(self, problem: Problem, probe: Probe) -> tuple[Tensor, Tensor]:
        """The probe's examples, mirrored if the model's are, and its noise."""
        x = torch.from_numpy(_mirrored(problem, probe.x))
        return x, torch.from_numpy(probe.noise.copy())


def _fastest(ways: dict[str, Callable[[], None]]) -> str:
    """The name of the way that takes the least time, each warmed up once."""
    times = {}
    for name, way in ways.items():
        way()
        began = time.perf_counter()
        for _ in range(_TRIED):
            way()
        times[name] = time.perf_counter() - began
    return min(times, key=lambda name: times[name])


class Torch:
    """`torch`: one model after another, channels_last, fused or foreach Adam."""

    unit, note = 1, ""

    def __init__(self, problem: Problem):
        if problem.case.exact:
            problem = problem.pick(*range(min(_SAMPLE, problem.members)))
        self.members, self._problem, self._at = problem.members, problem, 0
        self._data, self._betas = _Data(problem), problem.betas.tolist()
        self._models = self._fresh(problem)
        if not problem.case.forward:
            how = _fastest({name: self._trial(name) for name in ("fused", "foreach")})
            self._optimizers = [self._adam(model, how) for model in self._models]
            self.note = f"{how} Adam"

    def _fresh(self, problem: Problem) -> list[nn.Module]:
        convolves = problem.case.member.encoder == "conv" or problem.case.member.decoder != "mlp"
        models = models_of(problem)
        if convolves and not problem.case.exact:
            models = [model.to(memory_format=torch.channels_last) for model in models]
        return models

    def _adam(self, model: nn.Module, how: str) -> torch.optim.Optimizer:
        rate = self._problem.learning_rate
        return torch.optim.Adam(model.parameters(), rate, (_B1, _B2), _EPS, **{how: True})

    def _trial(self, how: str) -> Callable[[], None]:
        model = self._fresh(self._problem.pick(0))[0]
        optimizer = self._adam(model, how)
        return lambda: self._train(model, optimizer, self._betas[0], 0, 1)

    def _train(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, beta: float, at: int, steps: int
    ) -> None:
        for i in range(steps):
            optimizer.zero_grad(set_to_none=True)
            rate, distortion = model(*self._data.batch(at + i))
            (beta * rate.mean() + distortion.mean()).backward()
            optimizer.step()

    def run(self, steps: int) -> None:
        """Make so many steps of one member after another, or evaluate so many batches."""
        if self._problem.case.forward:
            with torch.inference_mode():
                for model in self._models:
                    for i in range(steps):
                        model(*self._data.batch(i % self._problem.case.batches))
            return
        for model, optimizer, beta in zip(self._models, self._optimizers, self._betas, strict=True):
            self._train(model, optimizer, beta, self._at, steps)
        self._at += steps

    def probed(self, probe: Probe) -> tuple[np.ndarray, Any]:
        """Losses and gradients of fresh models."""
        few = self._problem.pick(*range(len(probe.loss)))
        x, noise = self._data.probe(self._problem, probe)
        losses, gradients = [], []
        for model, own, beta in zip(self._fresh(few), noise, self._betas, strict=False):
            rate, distortion = model(x, own)
            loss = beta * rate.mean() + distortion.mean()
            loss.backward()
            losses.append(loss.item())
            gradients.append({name: p.grad.numpy() for name, p in model.named_parameters()})
        names = gradients[0]
        return np.array(losses), {n: np.stack([g[n] for g in gradients]) for n in names}

    def arranged(self, tree: Any) -> Any:
        """Our parameters by their names in a module."""
        return arranged(self._problem.case.member, tree, self._problem.case.exact)


class TorchFunc:
    """`torch_func`: stacked parameters, `vmap(grad)`, and Adam on stacked tensors."""

    unit, note = 1, ""

    def __init__(self, problem: Problem):
        self.members, self._problem, self._at = problem.members, problem, 0
        self._data, self._betas = _Data(problem), torch.from_numpy(problem.betas.copy())
        self._params, self._buffers = self._stacked(problem)
        self._base = copy.deepcopy(models_of(problem.pick(0))[0]).to("meta")
        self._mu = [torch.zeros_like(p) for p in self._params.values()]
        self._nu = [torch.zeros_like(p) for p in self._params.values()]
        self._gradient = torch.func.vmap(torch.func.grad_and_value(self._loss))

    @staticmethod
    def _stacked(problem: Problem) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        params, buffers = torch.func.stack_module_state(models_of(problem))
        return {name: p.detach() for name, p in params.items()}, buffers

    def _terms(self, params: Any, buffers: Any, x: Tensor, noise: Tensor) -> Any:
        return torch.func.functional_call(self._base, (params, buffers), (x, noise))

    def _loss(self, params: Any, buffers: Any, x: Tensor, noise: Tensor, beta: Tensor) -> Tensor:
        rate, distortion = self._terms(params, buffers, x, noise)
        return beta * rate.mean() + distortion.mean()

    def run(self, steps: int) -> None:
        """Make so many steps of all members, or evaluate so many batches."""
        if self._problem.case.forward:
            with torch.inference_mode():
                for i in range(steps):
                    own = self._data.batch(i % self._problem.case.batches, self.members)
                    torch.func.vmap(self._terms)(self._params, self._buffers, *own)
            return
        for _ in range(steps):
            x, noise = self._data.batch(self._at, self.members)
            own = self._params, self._buffers, x, noise, self._betas
            self._at += 1
            self._adam(self._gradient(*own)[0])

    def _adam(self, gradients: dict[str, Tensor]) -> None:
        params = list(self._params.values())
        own = [gradients[name] for name in self._params]
        torch._foreach_lerp_(self._mu, own, 1 - _B1)
        torch._foreach_mul_(self._nu, _B2)
        torch._foreach_addcmul_(self._nu, own, own, 1 - _B2)
        below = torch._foreach_sqrt(self._nu)
        torch._foreach_div_(below, (1 - _B2**self._at) ** 0.5)
        torch._foreach_add_(below, _EPS)
        size = self._problem.learning_rate / (1 - _B1**self._at)
        torch._foreach_addcdiv_(params, self._mu, below, -size)

    def probed(self, probe: Probe) -> tuple[np.ndarray, Any]:
        """Losses and gradients of fresh parameters."""
        few = self._problem.pick(*range(len(probe.loss)))
        x, noise = self._data.probe(self._problem, probe)
        x = x.expand(few.members, *x.shape)
        own = *self._stacked(few), x, noise, self._betas[: few.members]
        gradients, losses = self._gradient(*own)
        return losses.numpy(), {name: g.numpy() for name, g in gradients.items()}

    def arranged(self, tree: Any) -> Any:
        """Our parameters by their names in a module."""
        return arranged(self._problem.case.member, tree, self._problem.case.exact)
