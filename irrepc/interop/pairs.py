"""Pairs of a tensor of a foreign state_dict and one of ours: read from it, and written back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from irrepc.errors import InputError


class Pair(NamedTuple):
    """ours.reshape(-1)[n] = factor · theirs.reshape(-1)[order[n]].

    name    of their tensor
    ours    a parameter or buffer of our model, written in place
    shape   of their tensor
    order   (numbers,) int64, a permutation; none where both have the same order
    factor  not zero
    """

    name: str
    ours: Tensor
    shape: tuple[int, ...]
    order: Tensor | None = None
    factor: float = 1.0


def read(pairs: Iterable[Pair], left: dict[str, Tensor], package: str) -> None:
    """Fill our tensors, and take theirs out of `left`. Raises InputError for a tensor missing or of another size."""
    with torch.no_grad():
        for name, ours, _, order, factor in pairs:
            if name not in left or left[name].numel() != ours.numel():
                got = tuple(left[name].shape) if name in left else "nothing"
                raise InputError(
                    f"{package}: got {got} for {name}; expected {ours.numel()} numbers, by the configuration"
                )
            theirs = left.pop(name).double().reshape(-1)
            ours.copy_(((theirs if order is None else theirs[order]) * factor).reshape(ours.shape))


def written(pairs: Iterable[Pair]) -> dict[str, Tensor]:
    """Their tensors, on the CPU, in the dtype of ours."""
    out = {}
    for name, ours, shape, order, factor in pairs:
        flat = ours.detach().cpu().reshape(-1) / factor
        out[name] = (flat if order is None else torch.empty_like(flat).index_copy(0, order, flat)).reshape(shape)
    return out
