"""Tensors: one order of a kernel by an emitted module whose functions take torch tensors, as those for CUDA do.

Free-standing: it needs torch and an emitted module, and travels with every generated package.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch

from .operands import Loop, Signature, Wanted, shape_of


class OnTensors:
    """One order as a function of tensors on the module's device, on torch's current stream there.

    The module's function takes contiguous operands, an Index for each index, extents, and `wanted`, a bool for each
    output; it allocates what it returns, a tensor or a tuple of tensors, and may return None where not wanted.
    atomic  whether sums may be added up in any order, where that is faster; their last digits then differ by the run
    """

    def __init__(self, module: ModuleType, name: str, s: Signature, *, atomic: bool = False) -> None:
        self._module, self._function, self._signature = module, getattr(module, name), s
        self._options = {"atomic": True} if atomic else {}

    def __call__(self, wanted: Wanted, loop: Loop, operands: Sequence[Any]) -> list[torch.Tensor | None]:
        """Which outputs; rows and channels; operands -> the outputs, None where not wanted."""
        s, first = self._signature, operands[0]
        if loop.made is None:
            loop.made = [self._module.Index(*(t.contiguous() for t in index)) for index in loop.indices]
        given = [
            first.new_zeros(shape_of(a, s, loop)) if t is None else t.contiguous()
            for a, t in zip(s.inputs, operands, strict=True)
        ]
        result = self._function(*given, *loop.made, *loop.extents, wanted=tuple(wanted), **self._options)
        outputs = result if isinstance(result, tuple) else (result,)
        return [t if want else None for t, want in zip(outputs, wanted, strict=True)]
