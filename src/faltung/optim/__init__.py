"""Optimizers, and the schedules of their learning rates."""

from faltung.optim import lr_scheduler as lr_scheduler
from faltung.optim.adadelta import Adadelta
from faltung.optim.adafactor import Adafactor
from faltung.optim.adagrad import Adagrad
from faltung.optim.adam import Adam, AdamW
from faltung.optim.adamax import Adamax
from faltung.optim.asgd import ASGD
from faltung.optim.lbfgs import LBFGS
from faltung.optim.muon import Muon
from faltung.optim.nadam import NAdam
from faltung.optim.optimizer import Optimizer
from faltung.optim.radam import RAdam
from faltung.optim.rmsprop import RMSprop
from faltung.optim.rprop import Rprop
from faltung.optim.sgd import SGD
from faltung.optim.sparse_adam import SparseAdam

__all__ = [
    "ASGD",
    "LBFGS",
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Muon",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SparseAdam",
    "lr_scheduler",
]
