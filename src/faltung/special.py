"""Special functions under the names of `torch.special`."""

from __future__ import annotations

from faltung.convenience import log_softmax, softmax
from faltung.ops.activation import sigmoid as expit
from faltung.ops.composed import xlogy
from faltung.ops.reduce import logsumexp
from faltung.ops.special import digamma, erf, erfc, erfinv, i0, logit, polygamma, sinc
from faltung.ops.special import digamma as psi
from faltung.ops.special import lgamma as gammaln
from faltung.ops.unary import exp2, expm1, log1p, round

__all__ = [
    "digamma", "erf", "erfc", "erfinv", "exp2", "expit", "expm1", "gammaln", "i0", "log1p", "log_softmax", "logit",
    "logsumexp", "polygamma", "psi", "round", "sinc", "softmax", "xlogy",
]  # fmt: skip
