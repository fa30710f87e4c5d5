"""Writes optimizers.npz and schedules.json: what PyTorch's optimizers and schedulers do. Run where PyTorch is
installed.
"""

import json
from pathlib import Path

import numpy as np
import torch

from tests.cases.optim import OPTIMIZERS, SCHEDULES, follow, train

if __name__ == "__main__":
    stored = {}
    for name in OPTIMIZERS:
        params, _ = train(torch.optim, torch.from_numpy, name)
        for number, param in enumerate(params):
            stored[f"{name}.{number}"] = param.detach().numpy()
    np.savez_compressed(Path(__file__).with_name("optimizers.npz"), **stored)
    rates = {
        f"{name}.{cls}": follow(torch.optim, torch.from_numpy, name, cls)
        for name in SCHEDULES
        for cls in ("SGD", "Adam")
    }
    Path(__file__).with_name("schedules.json").write_text(json.dumps(rates, indent=0) + "\n")
