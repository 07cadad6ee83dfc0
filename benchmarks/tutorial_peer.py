"""The loop of PyTorch's transfer-learning tutorial, as it is written there, on any network: the peer of `transfer.py`.

Random resized crops and flips for training, batches of 4, SGD with rate 0.001 and momentum 0.9, a tenth of it every 7 epochs,
accuracy on `val` after each epoch, the best epoch is kept. Chilamkurthy, "Transfer Learning for Computer Vision Tutorial".
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torchvision import datasets, transforms


def loaders(
    folder: Path, size: int, mean: list[float], std: list[float], batch: int, workers: int
) -> dict[str, object]:
    """`train` and `val`."""
    known = {
        "train": transforms.Compose(
            [transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip(), transforms.ToTensor(),
             transforms.Normalize(mean, std)]
        ),
        "val": transforms.Compose(
            [transforms.Resize(round(size * 256 / 224)), transforms.CenterCrop(size), transforms.ToTensor(),
             transforms.Normalize(mean, std)]
        ),
    }  # fmt: skip
    return {
        part: torch.utils.data.DataLoader(
            datasets.ImageFolder(str(folder / part), known[part]), batch_size=batch, shuffle=True, num_workers=workers
        )
        for part in ("train", "val")
    }


def train_model(
    model: nn.Module, data: dict[str, object], parameters: list[nn.Parameter], epochs: int, told: Callable[[str], None]
) -> tuple[list[float], float]:
    """Accuracies on `val`, epoch by epoch, and the seconds that all of it took."""
    criterion = nn.CrossEntropyLoss()
    optimiser = torch.optim.SGD(parameters, lr=0.001, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimiser, step_size=7, gamma=0.1)
    begun, found = time.perf_counter(), []
    for epoch in range(epochs):
        for phase in ("train", "val"):
            model.train(phase == "train")
            right, count = 0, 0
            for inputs, labels in data[phase]:  # pyright: ignore[reportGeneralTypeIssues]
                optimiser.zero_grad()
                with torch.set_grad_enabled(phase == "train"):
                    outputs = model(inputs)
                    loss = criterion(outputs, labels)
                    if phase == "train":
                        loss.backward()
                        optimiser.step()
                right, count = right + int((outputs.argmax(1) == labels).sum()), count + len(labels)
            if phase == "train":
                scheduler.step()
            else:
                found.append(right / count)
        told(f"epoch {epoch + 1}: {found[-1]:.1%} after {time.perf_counter() - begun:.1f} s")
    return found, time.perf_counter() - begun
