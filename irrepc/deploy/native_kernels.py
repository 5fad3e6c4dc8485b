"""Kernels of a shared library: calls of the IR, matrix products and activations as named functions of LLVM text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from irrepc.algebra.recipe import Recipe
from irrepc.emit.llvm_activation import Activation, activation_head, llvm_activation
from irrepc.emit.llvm_matrix import MatrixProduct, Tile, llvm_matrix, matrix_head
from irrepc.emit.llvm_rows import is_rowwise, llvm_rows
from irrepc.emit.llvm_text import llvm_function, llvm_head
from irrepc.emit.views import count, gathered, used_inputs
from irrepc.errors import KernelError
from irrepc.frontend.derive import derive
from irrepc.ir.block import Block, schedule, split
from irrepc.ir.kernel import Kernel, Operand
from irrepc.ir.passes import optimise
from irrepc.ir.vjp import vjp


@dataclass(frozen=True, slots=True)
class NativePart:
    """A function `void name(n0, n1, arguments...)` of a call.

    arguments  operands by name, and fields of indices as "sender.values", "sender.order", "sender.start"
    scatter    the index whose rows it runs over; None: the rows of the loop
    outputs    the operands it makes
    weight     numbers it touches for each row of the loop
    """

    name: str
    arguments: tuple[str, ...]
    scatter: str | None
    outputs: tuple[str, ...]
    weight: int


@dataclass(slots=True)
class KernelTexts:
    """The functions asked for so far; the same is made once.

    texts  the LLVM text of each module
    """

    dtype: str
    tile: Tile
    texts: list[str]
    names: dict[object, str]
    calls: dict[object, tuple[NativePart, ...]]

    @staticmethod
    def empty(dtype: str, tile: Tile) -> KernelTexts:
        """None yet, of one number type, with matrix products tiled so."""
        return KernelTexts(dtype, tile, [], {}, {})

    def product(self, product: MatrixProduct) -> str:
        """The name of the function of a matrix product."""
        if product not in self.names:
            name = self.names[product] = f"product_{len(self.names)}"
            self.texts.append(matrix_head(self.dtype) + llvm_matrix(name, product, self.dtype, self.tile))
        return self.names[product]

    def activation(self, activation: Activation) -> str:
        """The name of the function of an activation."""
        if activation not in self.names:
            name = self.names[activation] = f"{activation.function}_{len(self.names)}"
            head = matrix_head(self.dtype) + activation_head(self.dtype)
            self.texts.append(head + llvm_activation(name, activation, self.dtype))
        return self.names[activation]

    def call(
        self, recipe: Recipe, order: int, extents: tuple[int, ...], wanted: tuple[bool, ...]
    ) -> Sequence[NativePart]:
        """The functions of a kernel (order 0) or of its VJP (order 1) that make the wanted outputs."""
        key = (recipe, order, extents, wanted)
        if key not in self.calls:
            number = len(self.calls)
            channels = dict(zip(derive(recipe).channels, extents, strict=True))
            parts = []
            for k, block in enumerate(blocks(recipe, order, wanted)):
                name = f"{recipe.name}{'_back' if order else ''}_{number}_{k}"
                parts.append(self._part(name, block, channels))
            self.calls[key] = tuple(parts)
        return self.calls[key]

    def _part(self, name: str, block: Block, channels: dict[str, int]) -> NativePart:
        kernel = block.kernel
        inputs, outputs = used_inputs(kernel), kernel.outputs
        if any(o.rows is None for o in outputs):
            raise KernelError(f"native: got {kernel.name} with sums over all rows; expected outputs with rows")
        scatter = outputs[0].index
        constants = "\n".join(f"@{axis} = internal constant i64 {channels[axis]}" for axis in kernel.channels)
        write = llvm_rows if is_rowwise(kernel) else llvm_function
        self.texts.append(f"{llvm_head(self.dtype)}\n{constants}\n{write(name, block, self.dtype)}")
        fields = [f"{g}.values" for g in gathered(inputs, scatter)]
        fields += [] if scatter is None else [f"{scatter}.order", f"{scatter}.start"]
        arguments = (*(o.name for o in inputs), *fields, *(o.name for o in outputs))
        weight = sum(operand_width(o, channels) for o in (*inputs, *outputs) if o.rows is not None)
        return NativePart(name, arguments, scatter, tuple(o.name for o in outputs), weight)


def operand_width(operand: Operand, channels: dict[str, int]) -> int:
    """The numbers in a row of an operand."""
    total = 0
    for axes, n in count(operand).items():
        for axis in axes:
            n *= channels[axis]
        total += n
    return total


@lru_cache(maxsize=256)
def kernel_of(recipe: Recipe, order: int) -> Kernel:
    """The kernel of a recipe, or its VJP with respect to all inputs."""
    return vjp(derive(recipe)) if order else derive(recipe)


@lru_cache(maxsize=256)
def blocks(recipe: Recipe, order: int, wanted: tuple[bool, ...]) -> tuple[Block, ...]:
    """The scheduled parts of an order; a derivative is made for the wanted inputs alone."""
    kernel = derive(recipe)
    if order:
        asked = [o.name for o, is_wanted in zip(kernel.inputs, wanted, strict=True) if is_wanted]
        kernel = vjp(kernel, asked)
    return tuple(schedule(optimise(replace(part, name=recipe.name))) for part in split(kernel))
