"""Writes random.npz: PyTorch's numbers for the draws in tests/cases/random.py. Run where PyTorch is installed.

PyTorch's own numbers of `bernoulli_(p)`, dropout and `exponential_` differ on Intel CPUs, where MKL draws them.
"""

from pathlib import Path

import numpy as np
import torch

from tests.cases.random import DRAWS

if __name__ == "__main__":
    stored = {}
    for name, draw in DRAWS.items():
        torch.manual_seed(draw.seed)
        stored[name] = draw.call(torch).numpy()
    np.savez_compressed(Path(__file__).with_name("random.npz"), **stored)
