"""Training and evaluation, the same for every way to write the model."""

import sys
import time
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

import faltung as torch
import faltung.nn.functional as F
from faltung import nn, optim
from faltung.utils.data import DataLoader, TensorDataset

BATCH = 64
LEARNING_RATE = 0.05
MOMENTUM = 0.9


@dataclass
class History:
    """The loss of every step, and the time that all steps took together."""

    losses: list[float] = field(default_factory=list)
    images: int = 0
    time_s: float = 0.0

    @property
    def images_per_s(self) -> float:
        return self.images / self.time_s


def train(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, *, epochs: int, seed: int, title: str
) -> History:
    """Train `model` in place by SGD with momentum, the rate falling along a half cosine; shows a progress bar."""
    order = torch.Generator().manual_seed(seed)
    loader: DataLoader = DataLoader(TensorDataset(images, labels), batch_size=BATCH, shuffle=True, generator=order)
    optimizer = optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs * len(loader))
    history = History()
    model.train()
    pause_s = 0.1 if sys.stderr.isatty() else 5.0  # a log need not hold every state of the bar
    with tqdm(total=epochs * len(images), desc=title, unit=" images", unit_scale=True, mininterval=pause_s) as bar:
        start_s = time.perf_counter()
        for _ in range(epochs):
            for batch, targets in loader:
                optimizer.zero_grad()
                loss = F.cross_entropy(model(batch), targets)
                loss.backward()
                optimizer.step()
                schedule.step()
                history.losses.append(loss.item())
                bar.update(len(batch))
                bar.set_postfix(loss=f"{history.losses[-1]:.4f}", refresh=False)
        history.time_s = time.perf_counter() - start_s
    history.images = epochs * len(images)
    return history


def scores(model: nn.Module, images: torch.Tensor, batch: int = 500) -> np.ndarray:
    """The model's answer to each image, (N, 10), in eval mode and without gradients."""
    model.eval()
    with torch.no_grad():
        parts = [model(images[i : i + batch]).numpy() for i in range(0, len(images), batch)]
    return np.concatenate(parts)
