"""Kept: what a layer makes of its weights alone, made once for frozen weights instead of in every call."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from torch import Tensor

from irrepc.nn.closed_forms import is_transformed

Value = TypeVar("Value")


class Kept(Generic[Value]):
    """The last value, and the state of the weights that it was made of.

    It is made anew whenever a weight was written to in place, moved, or exchanged, and always where a gradient to a
    weight may be asked for, or the call is being compiled or transformed (torch.func). Writing through `weight.data`
    escapes this, as it escapes torch's own checks: write under torch.no_grad() instead, as load_state_dict and the
    optimisers do.
    """

    __slots__ = ("_key", "_value")

    def __init__(self) -> None:
        self._key: tuple[object, ...] | None = None
        self._value: Value | None = None

    def __call__(self, weights: Iterable[Tensor], make: Callable[[], Value]) -> Value:
        """The value that `make` gives for these weights."""
        if is_transformed():
            return make()
        key = []
        for weight in weights:
            if weight.requires_grad or weight.is_inference():
                return make()
            key.append((weight.data_ptr(), weight._version, weight.dtype, weight.device))
        if self._key != tuple(key) or self._value is None:
            self._key, self._value = tuple(key), make()
        return self._value

    def __deepcopy__(self, memo: dict[int, object]) -> Kept[Value]:
        return Kept()  # a copied layer has weights of its own

    def __reduce__(self) -> tuple[type[Kept[Value]], tuple[()]]:
        return Kept, ()
