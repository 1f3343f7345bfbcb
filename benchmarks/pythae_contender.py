"""`pythae`: its trainer, on its VAE with the same gated layers."""

import logging
import tempfile
from typing import Any

import numpy as np
import torch
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.trainers.training_callbacks import CallbackHandler, TrainingCallback

from benchmarks import torch_models
from benchmarks.cases import Probe, Problem
from rd_elbo.sweep import grid

# What it does otherwise, which is why its losses are not compared.
DIFFERENCES = "one model; log-variances; BCE of probabilities; its loader, by example; beta = 1"


class _Encoder(BaseEncoder):  # type: ignore[misc]
    def __init__(self, member: grid.Member):
        super().__init__()
        self.own = torch_models.DenseEncoder(member)

    def forward(self, x: torch.Tensor) -> Any:
        h = (2 * x - 1).flatten(1)
        for layer in self.own.hidden:
            h = torch.nn.functional.glu(layer(h), -1)
        return ModelOutput(embedding=self.own.mean(h), log_covariance=self.own.scale(h))


class _Decoder(BaseDecoder):  # type: ignore[misc]
    def __init__(self, member: grid.Member):
        super().__init__()
        self.own = torch_models.MLPDecoder(member)

    def forward(self, z: torch.Tensor) -> Any:
        like = torch.empty(len(z), 1, 28, 28, device="meta")
        return ModelOutput(reconstruction=self.own(z, like).sigmoid())


class Pythae:
    """One model by pythae's own training step, for its speed per step of a model."""

    members, unit, note = 1, 1, DIFFERENCES

    def __init__(self, problem: Problem):
        member = problem.case.member
        self._problem, self._epoch, self._folder = problem, 0, tempfile.TemporaryDirectory()
        # It announces every step of setting up.
        logging.disable(logging.INFO)
        config = VAEConfig((1, 28, 28), member.latent, reconstruction_loss="bce")
        model = VAE(config, _Encoder(member), _Decoder(member))
        training = BaseTrainerConfig(
            output_dir=self._folder.name,
            num_epochs=1,
            per_device_train_batch_size=member.batch_size,
            learning_rate=member.learning_rate,
            no_cuda=True,
        )
        examples = torch.from_numpy(problem.data[problem.rows.reshape(-1)])
        self._examples = examples[:, None].float()
        self._trainer = BaseTrainer(model, self._dataset(1), training_config=training)
        self._trainer.prepare_training()
        # A progress bar is no part of a step.
        self._trainer.callback_handler = CallbackHandler([TrainingCallback()], model)
        logging.disable(logging.NOTSET)

    def _dataset(self, steps: int) -> BaseDataset:
        size = steps * self._problem.case.batch
        return BaseDataset(self._examples[:size], torch.zeros(size))

    def run(self, steps: int) -> None:
        """An epoch of so many batches."""
        self._epoch += 1
        self._trainer.train_loader = self._trainer.get_train_dataloader(self._dataset(steps))
        self._trainer.train_step(self._epoch)

    def probed(self, probe: Probe) -> tuple[np.ndarray, Any]:
        """Nothing to compare: it trains a similar model, not the same."""
        return probe.loss, None

    def arranged(self, tree: Any) -> Any:
        """The tree."""
        return tree
