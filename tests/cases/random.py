"""Random draws as calls that both libraries understand: PyTorch's numbers are stored, Faltung's compared with them.

Each case starts from `manual_seed(seed)`. Two draws in one case show that the first left the stream where PyTorch
leaves it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Draw:
    """`exact`: equal to the last bit; otherwise to the last place or two of float32, where log, cos and sin differ."""

    call: Callable[[Any], Any]
    exact: bool = True
    seed: int = 42


def _sizes(sizes: tuple[int, ...], make: Callable[[Any, int], Any], exact: bool = True) -> dict[str, Draw]:
    """One case per size; the number drawn after it is appended."""
    return {
        str(n): Draw(lambda t, n=n: t.cat([make(t, n).double().flatten(), t.rand(2, dtype=t.float64)]), exact)
        for n in sizes
    }


def _table() -> dict[str, Draw]:
    around = (0, 1, 2, 7, 15, 16, 17, 31, 32, 33, 100)
    few = (1, 16, 33)
    families: dict[str, dict[str, Draw]] = {
        "rand": _sizes(around, lambda t, n: t.rand(n)),
        "rand_double": _sizes(few, lambda t, n: t.rand(n, dtype=t.float64)),
        "rand_half": _sizes(few, lambda t, n: t.rand(n, dtype=t.float16)),
        "uniform": _sizes(few, lambda t, n: t.empty(n).uniform_(-0.3, 0.7)),
        "randn": _sizes(around, lambda t, n: t.randn(n), exact=False),
        "randn_double": _sizes(around, lambda t, n: t.randn(n, dtype=t.float64), exact=False),
        "normal": _sizes(few, lambda t, n: t.empty(n).normal_(1.5, 2.5), exact=False),
        "normal_two_numbers": _sizes(few, lambda t, n: t.normal(2.0, 3.0, (n,)), exact=False),
        "normal_tensors": _sizes(few, lambda t, n: t.normal(t.arange(n).float(), t.ones(n) / 2), exact=False),
        "randint": _sizes(few, lambda t, n: t.randint(10, (n,))),
        "randint_negative": _sizes(few, lambda t, n: t.randint(-7, 3, (n,), dtype=t.int32)),
        "randint_last_narrow": _sizes(few, lambda t, n: t.randint(0, 2**28 - 1, (n,))),
        "randint_first_wide": _sizes(few, lambda t, n: t.randint(0, 2**28, (n,))),
        "randint_64_bits": _sizes(few, lambda t, n: t.randint(-(2**40), 2**50, (n,))),
        "random": _sizes(few, lambda t, n: t.empty(n).random_()),
        "random_int32": _sizes(few, lambda t, n: t.empty(n, dtype=t.int32).random_()),
        "random_uint8": _sizes(few, lambda t, n: t.empty(n, dtype=t.uint8).random_(3, 200)),
        "randperm": _sizes((0, 1, 2, 3, 17, 100), lambda t, n: t.randperm(n)),
        "bernoulli": _sizes(few, lambda t, n: t.bernoulli(t.linspace(0, 1, n))),
        "bernoulli_double": _sizes(few, lambda t, n: t.bernoulli(t.linspace(0, 1, n, dtype=t.float64))),
        "exponential": _sizes(few, lambda t, n: t.empty(n).exponential_(1.5), exact=False),
        "log_normal": _sizes(few, lambda t, n: t.empty(n).log_normal_(0.5, 0.25), exact=False),
        "cauchy": _sizes(few, lambda t, n: t.empty(n).cauchy_(1.0, 0.5), exact=False),
        "geometric": _sizes(few, lambda t, n: t.empty(n).geometric_(0.3)),
        "multinomial": _sizes((2, 16, 33), lambda t, n: t.multinomial(t.arange(1.0, n + 1), 2)),
        "multinomial_one": _sizes((2, 16, 33), lambda t, n: t.multinomial(t.arange(1.0, n + 1), 1)),
        "multinomial_again": _sizes((2, 16, 33), lambda t, n: t.multinomial(t.arange(1.0, n + 1), 20, True)),
    }
    table = {f"{family}[{size}]": draw for family, draws in families.items() for size, draw in draws.items()}
    table |= {
        "complex": Draw(lambda t: t.rand(5, dtype=t.complex64)),
        "bernoulli_scalar": Draw(lambda t: t.empty(40).bernoulli_(0.3)),
        "dropout": Draw(lambda t: t.nn.functional.dropout(t.ones(40), 0.3)),
        "seed_above_32_bits": Draw(lambda t: t.rand(4), seed=2**40 + 7),
        "seed_negative": Draw(lambda t: t.rand(4), seed=-1),
        "kept_normal": Draw(lambda t: t.cat([t.randn(3), t.randn(20), t.randn(2)]), exact=False),
        "transposed_uniform": Draw(lambda t: t.empty(3, 4).t().uniform_()),
        "transposed_normal": Draw(lambda t: t.empty(8, 4).t().normal_(), exact=False),
        "strided_uniform": Draw(lambda t: t.zeros(6, 8)[:, ::2].uniform_()),
        "multinomial_rows": Draw(lambda t: t.multinomial(t.arange(1.0, 13).reshape(3, 4), 3)),
        "state": Draw(lambda t: (t.randn(3), t.get_rng_state())[1]),
    }
    return table


DRAWS = _table()
