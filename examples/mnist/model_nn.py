"""The CNN written with nn: every layer owns its parameters."""

import faltung as torch
from faltung import nn


class CNN(nn.Module):
    """(N, 1, 28, 28) images to (N, 10) scores."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn1 = nn.Conv2d(in_channels=1, out_channels=16, kernel_size=5)
        self.relu1 = nn.ReLU()
        self.maxpool1 = nn.MaxPool2d(kernel_size=2)

        self.cnn2 = nn.Conv2d(in_channels=16, out_channels=32, kernel_size=5)
        self.relu2 = nn.ReLU()
        self.maxpool2 = nn.MaxPool2d(kernel_size=2)

        self.linear1 = nn.Linear(4 * 4 * 32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.maxpool1(self.relu1(self.cnn1(x)))  # (N, 16, 12, 12)
        out = self.maxpool2(self.relu2(self.cnn2(out)))  # (N, 32, 4, 4)
        return self.linear1(out.view(x.size(0), -1))
