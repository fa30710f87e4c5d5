"""Writes init_values.npz: what PyTorch's nn.init and default layers give for a seed. Run where PyTorch is installed."""

from pathlib import Path

import numpy as np
import torch

from tests.nn.test_init import CASES, LAYERS, draw

if __name__ == "__main__":
    stored = {name: draw(torch, torch.nn.init, name).numpy() for name in CASES}
    for name, build in LAYERS.items():
        torch.manual_seed(0)
        for key, value in build(torch.nn).state_dict().items():
            stored[f"{name}.{key}"] = value.numpy()
    np.savez_compressed(Path(__file__).with_name("init_values.npz"), **stored)
