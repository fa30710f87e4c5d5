"""Optimizers and schedules as calls that both libraries understand."""

from collections.abc import Callable
from typing import Any

import numpy as np

Make = Callable[[np.ndarray], Any]

STEPS = 20

# name -> (class, arguments)
OPTIMIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": ("SGD", {}),
    "sgd_momentum": ("SGD", {"lr": 0.1, "momentum": 0.9}),
    "sgd_nesterov": ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    "sgd_dampening": ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.2, "maximize": True}),
    "adam": ("Adam", {}),
    "adam_amsgrad": ("Adam", {"lr": 0.01, "weight_decay": 0.1, "amsgrad": True, "betas": (0.8, 0.99), "eps": 1e-6}),
    "adam_decoupled": ("Adam", {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    "adamw": ("AdamW", {}),
    "adamw_amsgrad": ("AdamW", {"lr": 0.01, "amsgrad": True, "maximize": True}),
    "adamax": ("Adamax", {"weight_decay": 0.1}),
    "nadam": ("NAdam", {"weight_decay": 0.1}),
    "nadam_decoupled": ("NAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    "radam": ("RAdam", {"lr": 0.01, "weight_decay": 0.1}),
    "radam_decoupled": ("RAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True}),
    "rmsprop": ("RMSprop", {}),
    "rmsprop_centered": ("RMSprop", {"momentum": 0.9, "centered": True, "weight_decay": 0.1}),
    "adagrad": ("Adagrad", {"lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.2}),
    "adadelta": ("Adadelta", {"weight_decay": 0.1}),
    "asgd": ("ASGD", {"lambd": 0.1, "lr": 0.1}),
    "asgd_averaging": ("ASGD", {"weight_decay": 0.1, "t0": 5}),
    "rprop": ("Rprop", {}),
    "rprop_maximize": ("Rprop", {"maximize": True, "step_sizes": (1e-3, 0.02)}),
    "adafactor": ("Adafactor", {"weight_decay": 0.1}),
    "adafactor_clipped": ("Adafactor", {"maximize": True, "d": 2.0, "eps": (1e-6, 1e-2)}),
    "muon": ("Muon", {}),
    "muon_match": ("Muon", {"nesterov": False, "adjust_lr_fn": "match_rms_adamw", "lr": 0.01}),
}
SHAPES = [(7, 5), (5,), (3, 2, 3, 3), ()]
REAL_ONLY = {"Adafactor", "Muon"}
BFLOAT16 = {"Muon"}  # its iterations round to 8 bits: a sum in another order can come out a whole step away


def draw(random: np.random.RandomState, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    values = random.randn(*shape)
    if np.dtype(dtype).kind == "c":
        values = values + 1j * random.randn(*shape)
    return np.asarray(values).astype(dtype)


def train(optim: Any, make: Make, name: str, dtype: str = "float32", steps: int = STEPS) -> tuple[list[Any], Any]:
    """Parameters after so many steps along noisy gradients of |p|^2 / 7, and the optimizer."""
    cls, options = OPTIMIZERS[name]
    random = np.random.RandomState(0)
    shapes = [(7, 5), (5, 9)] if cls == "Muon" else SHAPES
    params = [make(draw(random, shape, dtype)) for shape in shapes]
    for param in params:
        param.requires_grad_()
    optimizer = getattr(optim, cls)(params, **options)
    for _ in range(steps):
        for param, shape in zip(params, shapes, strict=True):
            noise = draw(random, shape, dtype)
            param.grad = make(np.asarray(noise + param.detach().numpy() * noise.dtype.type(2 / 7)))
        optimizer.step()
    return params, optimizer


# name -> build(lr_scheduler, optimizer with two groups)
SCHEDULES: dict[str, Callable[[Any, Any], Any]] = {
    "lambda": lambda s, o: s.LambdaLR(o, lambda epoch: 0.95**epoch),
    "lambda_each": lambda s, o: s.LambdaLR(o, [lambda epoch: 0.95**epoch, lambda epoch: 1 / (epoch + 1)]),
    "multiplicative": lambda s, o: s.MultiplicativeLR(o, lambda epoch: 0.95),
    "step": lambda s, o: s.StepLR(o, 3, gamma=0.5),
    "multi_step": lambda s, o: s.MultiStepLR(o, [3, 3, 7], gamma=0.5),
    "constant": lambda s, o: s.ConstantLR(o, 0.25, 4),
    "linear": lambda s, o: s.LinearLR(o, 0.25, 0.9, 6),
    "exponential": lambda s, o: s.ExponentialLR(o, 0.9),
    "polynomial": lambda s, o: s.PolynomialLR(o, 7, 2.0),
    "cosine": lambda s, o: s.CosineAnnealingLR(o, 7, 0.01),
    "warm_restarts": lambda s, o: s.CosineAnnealingWarmRestarts(o, 3, 2, 0.01),
    "warm_restarts_equal": lambda s, o: s.CosineAnnealingWarmRestarts(o, 4),
    "sequential": lambda s, o: s.SequentialLR(
        o, [s.ConstantLR(o, 0.1, 2), s.ExponentialLR(o, 0.9), s.CosineAnnealingLR(o, 5)], [3, 7]
    ),
    "chained": lambda s, o: s.ChainedScheduler([s.ConstantLR(o, 0.1, 4), s.ExponentialLR(o, 0.9)]),
    "cyclic": lambda s, o: s.CyclicLR(o, 0.01, 0.5, 4, 3),
    "cyclic_halving": lambda s, o: s.CyclicLR(o, [0.01, 0.02], [0.5, 0.6], 4, mode="triangular2"),
    "cyclic_exponential": lambda s, o: s.CyclicLR(o, 0.01, 0.5, 4, mode="exp_range", gamma=0.9),
    "cyclic_own": lambda s, o: s.CyclicLR(o, 0.01, 0.5, 4, scale_fn=lambda x: 0.8**x, scale_mode="iterations"),
    "one_cycle": lambda s, o: s.OneCycleLR(o, 0.5, 25),
    "one_cycle_three_phases": lambda s, o: s.OneCycleLR(
        o, [0.5, 0.7], epochs=5, steps_per_epoch=6, three_phase=True, anneal_strategy="linear"
    ),
}
WITHOUT_JUMPS = {"sequential", "chained"}  # their step() takes no epoch


def two_groups(optim: Any, make: Make, cls: str = "SGD", **options: Any) -> Any:
    """An optimizer with two parameter groups, of rates 0.5 and 1.5."""
    groups = [{"params": [make(np.zeros(2, np.float32))], "lr": lr} for lr in (0.5, 1.5)]
    return getattr(optim, cls)(groups, lr=0.1, **options)


def follow(optim: Any, make: Make, name: str, cls: str, steps: int = 20) -> list[list[float]]:
    """Rates and momentums of both groups, step by step."""
    optimizer = two_groups(optim, make, cls, **({"momentum": 0.9} if cls == "SGD" else {}))
    scheduler = SCHEDULES[name](optim.lr_scheduler, optimizer)
    rows = []
    for _ in range(steps):
        momentums = [group["betas"][0] if cls == "Adam" else group["momentum"] for group in optimizer.param_groups]
        rows.append([*scheduler.get_last_lr(), *momentums])
        optimizer.step()
        scheduler.step()
    return rows
