"""Tensors: one order of a kernel by an emitted module whose functions take torch tensors, as those for CUDA do.

Free-standing: it needs torch and an emitted module, and travels with every generated package.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch

from .operands import Signature, Wanted, row_counts, separate, shape_of


class OnTensors:
    """One order as a function of tensors on the module's device, on torch's current stream there.

    The module's function takes contiguous operands, an Index for each index, extents, and `wanted`, a bool for each
    output; it allocates what it returns, a tensor or a tuple of tensors, None where not wanted.
    """

    def __init__(self, module: ModuleType, name: str, s: Signature) -> None:
        self._module, self._function, self._signature = module, getattr(module, name), s

    def __call__(self, wanted: Wanted, arguments: Sequence[Any]) -> Sequence[torch.Tensor | None]:
        """Which outputs; operands, index tensors, extents -> the outputs, None where not wanted."""
        s, first = self._signature, arguments[0]
        operands, indices, extents = separate(s, arguments)
        counts = row_counts(s, operands, indices)
        given = [
            first.new_zeros(shape_of(a, s, counts, extents)) if t is None else t.contiguous()
            for a, t in zip(s.inputs, operands, strict=True)
        ]
        rows = [self._module.Index(*(t.contiguous() for t in index)) for index in indices]
        result = self._function(*given, *rows, *extents, wanted=tuple(wanted))
        outputs: Sequence[torch.Tensor | None] = result if isinstance(result, tuple) else (result,)
        return outputs
