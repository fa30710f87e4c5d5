"""Sums of products, written as equations."""

from __future__ import annotations

import string
from typing import Any

import numpy as np

from faltung.ops.diagonals import diagonal
from faltung.ops.matmul import matmul
from faltung.ops.reduce import sum as sum_
from faltung.tensor import Tensor


def einsum(equation: Any, *operands: Any) -> Tensor:
    """Sums of products written with a letter per dimension, such as "bij,bjk->bik"; "..." stands for further
    dimensions.
    """
    if len(operands) == 1 and isinstance(operands[0], tuple | list):
        operands = tuple(operands[0])
    if isinstance(equation, Tensor):
        equation, operands = _equation_of_lists(equation, operands)
    if not operands:
        raise ValueError("einsum: must provide at least one operand.")
    inputs, output = _parse_equation(equation.replace(" ", ""), operands)
    terms = [_without_repeats(x, letters) for x, letters in zip(operands, inputs)]
    x, letters = terms[0]
    for position in range(1, len(terms)):
        y, other = terms[position]
        later = set(output).union(*[set(term[1]) for term in terms[position + 1 :]])
        x, letters = _contract(x, letters, y, other, later)
    dropped = [letter for letter in letters if letter not in output]
    if dropped:
        x = sum_(x, tuple(letters.index(letter) for letter in dropped))
        letters = [letter for letter in letters if letter in output]
    return x.permute([letters.index(letter) for letter in output])


def _equation_of_lists(first: Tensor, rest: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]]:
    """einsum(x, [0, 1], y, [1, 2], [0, 2]) as an equation."""
    items = [first, *rest]
    tensors = items[0 : len(items) - len(items) % 2 : 2]
    lists = [_letters_of(numbers) for numbers in items[1::2]]
    equation = ",".join(lists)
    if len(items) % 2:
        equation += "->" + _letters_of(items[-1])
    return equation, tuple(tensors)


def _letters_of(numbers: Any) -> str:
    return "".join("..." if n is Ellipsis else string.ascii_letters[n] for n in numbers)


def _parse_equation(equation: str, operands: tuple[Any, ...]) -> tuple[list[list[str]], list[str]]:
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if len(terms) != len(operands):
        raise RuntimeError(
            f"einsum: fewer or more operands were provided than specified in the equation: {len(operands)} for "
            f"{equation!r}."
        )
    inputs, rank = [], 0
    for position, (term, x) in enumerate(zip(terms, operands)):
        named = len(term.replace("...", ""))
        extra = x._data.ndim - named
        if extra < 0 or (extra and "..." not in term):
            raise RuntimeError(
                f"einsum: the number of subscripts in the equation ({named}) does not match the number of dimensions "
                f"({x._data.ndim}) for operand {position} and no ellipsis was given."
            )
        rank = max(rank, extra)
        inputs.append((term, extra))
    split = [_split_term(term, extra) for term, extra in inputs]
    hidden = [f"_{i}" for i in range(rank)][::-1]
    if arrow:
        output = _split_term(right, rank if "..." in right else 0)
    else:
        counts = [letter for term in split for letter in term if not letter.startswith("_")]
        output = hidden + sorted(letter for letter in set(counts) if counts.count(letter) == 1)
    known = {letter for term in split for letter in term}
    for letter in output:
        if letter not in known or output.count(letter) > 1:
            raise RuntimeError(
                f"einsum: output subscript {letter} must appear once, and in the equation's inputs: {equation!r}."
            )
    return split, output


def _split_term(term: str, extra: int) -> list[str]:
    """Letters of a term; hidden dimensions are _0, _1, ... counted from the last."""
    before, dots, after = term.partition("...")
    hidden = [f"_{i}" for i in range(extra)][::-1] if dots else []
    letters = [*before, *hidden, *after]
    for letter in [*before, *after]:
        if letter not in string.ascii_letters:
            raise RuntimeError(f"einsum: subscripts must be in [a-zA-Z] but found {letter!r}.")
    return letters


def _without_repeats(x: Tensor, letters: list[str]) -> tuple[Tensor, list[str]]:
    """A letter that stands twice in one term takes the diagonal."""
    letters = list(letters)
    while True:
        repeated = next((letter for letter in letters if letters.count(letter) > 1), None)
        if repeated is None:
            return x, letters
        first = letters.index(repeated)
        second = letters.index(repeated, first + 1)
        x = diagonal(x, 0, first, second)
        letters = [letter for i, letter in enumerate(letters) if i not in (first, second)] + [repeated]


def _contract(x: Tensor, a: list[str], y: Tensor, b: list[str], later: set[str]) -> tuple[Tensor, list[str]]:
    """Product of two terms as one batched matrix product, summed over the letters nobody needs later."""
    sizes: dict[str, int] = {}
    for letters, tensor in ((a, x), (b, y)):
        for letter, size in zip(letters, tensor._data.shape):
            present = sizes.get(letter, 1)
            if present != size and 1 not in (present, size):
                raise RuntimeError(
                    f"einsum: operands do not broadcast with remapped shapes: subscript {letter} has sizes {present} "
                    f"and {size}."
                )
            sizes[letter] = max(present, size) if 0 not in (present, size) else 0
    batch = [letter for letter in a if letter in b and letter in later]
    summed = [letter for letter in a if letter in b and letter not in later]
    left = [letter for letter in a if letter not in b]
    right = [letter for letter in b if letter not in a]
    x = _arranged(x, a, batch + left + summed, sizes)
    y = _arranged(y, b, batch + summed + right, sizes)
    lead = [sizes[letter] for letter in batch]
    rows, inner, columns = [int(np.prod([sizes[c] for c in group])) for group in (left, summed, right)]
    product = matmul(x.reshape([*lead, rows, inner]), y.reshape([*lead, inner, columns]))
    letters = batch + left + right
    return product.reshape([sizes[letter] for letter in letters]), letters


def _arranged(x: Tensor, letters: list[str], order: list[str], sizes: dict[str, int]) -> Tensor:
    moved = x.permute([letters.index(letter) for letter in order])
    found: Tensor = moved.expand([sizes[letter] for letter in order])
    return found
