"""What computes inside an e3nn module after e3nn_replace: products, linear maps, harmonics, extraction.

Each stands in for the code that e3nn generated, takes the same arguments in the same layout (mul_ir), and carries the
same buffers, so that the state_dict keeps its names and shapes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from irrepc.algebra.irreps import Irreps
from irrepc.algebra.recipe import HarmonicsRecipe
from irrepc.errors import InputError
from irrepc.interop.e3nn_layout import Relayout
from irrepc.nn.couplings import Coupling, Couplings, Loaded

# e3nn.util.jit reads this name and says «does not support TorchScript compilation»
_NO_SCRIPT = "unsupported"


class Product(nn.Module):
    """Stands in for the code of o3.TensorProduct; couplings that are empty must have been left out.

    buffers  those of the code it stands in for (e3nn's rounded w3j), kept for the state_dict and not read
    """

    __e3nn_compile_mode__ = _NO_SCRIPT

    def __init__(
        self, irreps1: Irreps, irreps2: Irreps, irreps_out: Irreps, couplings: Sequence[Coupling],
        shared: bool, buffers: Mapping[str, Tensor], backend: str,
    ) -> None:  # fmt: skip
        super().__init__()
        self.irreps1, self.irreps2, self.irreps_out = irreps1, irreps2, irreps_out
        self.shared, self.backend = shared, backend
        self.enter = nn.ModuleList([Relayout(irreps1, to_e3nn=False), Relayout(irreps2, to_e3nn=False)])
        self.couplings = Couplings(irreps1, irreps2, irreps_out, couplings, shared, backend)
        self.leave = Relayout(irreps_out, to_e3nn=True)
        _keep(self, buffers)

    def forward(self, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        """x (..., irreps1.dim), y (..., irreps2.dim), weight (numbers,) or (..., numbers) -> (..., irreps_out.dim)."""
        _check_tracing(self.backend)
        leading, (x, y, *given) = _rows(x, y) if self.shared else _rows(x, y, weight)
        numbers = weight.reshape(self.couplings.weight_numel) if self.shared else given[0]
        z = self.leave(self.couplings(self.enter[0](x), self.enter[1](y), numbers))
        return z.reshape(*leading, self.irreps_out.dim)  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        """For repr."""
        return f"{self.irreps1} x {self.irreps2} -> {self.irreps_out}, backend={self.backend}"


class Scaling(nn.Module):
    """Stands in for the code of a product in which each coupling multiplies channels one by one by scalars.

    couplings  mode "uuu", without weights, one side of degree 0
    """

    __e3nn_compile_mode__ = _NO_SCRIPT

    def __init__(
        self, irreps1: Irreps, irreps2: Irreps, irreps_out: Irreps, couplings: Sequence[Coupling],
        buffers: Mapping[str, Tensor],
    ) -> None:  # fmt: skip
        super().__init__()
        self.couplings, self.out = tuple(couplings), irreps_out
        self.sides = tuple(tuple((b.mul, b.irrep.dim) for b in side) for side in (irreps1, irreps2))
        self.widths = tuple([b.dim for b in side] for side in (irreps1, irreps2))
        _keep(self, buffers)

    def forward(self, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        """x (..., irreps1.dim), y (..., irreps2.dim), no weights -> (..., irreps_out.dim)."""
        leading, (x, y) = _rows(x, y)
        left, right = (
            [
                torch.unflatten(block, 1, shape)
                for block, shape in zip(t.split_with_sizes(widths, 1), shapes, strict=True)
            ]
            for t, widths, shapes in zip((x, y), self.widths, self.sides, strict=True)
        )
        sums: list[Tensor | None] = [None] * len(self.out)
        for c in self.couplings:
            part = left[c.i1] * right[c.i2]
            part = part if c.coefficient == 1.0 else part * c.coefficient
            before = sums[c.i_out]
            sums[c.i_out] = part if before is None else before + part
        blocks = [
            x.new_zeros(x.shape[0], b.dim) if part is None else part.flatten(1)
            for part, b in zip(sums, self.out, strict=True)
        ]
        return _joined(blocks, x).reshape(*leading, self.out.dim)


class Path(NamedTuple):
    """coefficient · W x: from an input block to an output block, with its place in the flat weight."""

    source: int
    target: int
    coefficient: float
    start: int


class LinearMap(nn.Module):
    """Stands in for the code of o3.Linear: one matrix product for each output block.

    paths    where weights lead, those of empty blocks left out
    biases   output blocks that have one, in order
    shared   False: weights for each row
    factors  (f_in, f_out) further channels of both sides, None without
    """

    __e3nn_compile_mode__ = _NO_SCRIPT

    def __init__(
        self, irreps_in: Irreps, irreps_out: Irreps, paths: Sequence[Path], biases: Sequence[int],
        shared: bool, factors: tuple[int, int] | None, buffers: Mapping[str, Tensor],
    ) -> None:  # fmt: skip
        super().__init__()
        self.irreps_in, self.irreps_out, self.shared, self.factors = irreps_in, irreps_out, shared, factors
        self.paths, self.biases = tuple(paths), tuple(biases)
        self.weight_numel = sum(irreps_in[p.source].mul * irreps_out[p.target].mul for p in paths)
        self.bias_widths = [irreps_out[k].dim for k in biases]
        self.widths = [b.dim for b in irreps_in]
        self.enter, self.leave = Relayout(irreps_in, to_e3nn=False), Relayout(irreps_out, to_e3nn=True)
        _keep(self, buffers)

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """x (..., [f_in,] irreps_in.dim), flat weight and bias -> (..., [f_out,] irreps_out.dim)."""
        f_in, f_out = self.factors or (1, 1)
        leading = x.shape[:-1] if self.factors is None else x.shape[:-2]
        rows = math.prod(leading)
        blocks = self.enter(x.reshape(rows * f_in, self.irreps_in.dim)).split_with_sizes(self.widths, 1)
        cube = weight
        if self.paths:  # ([rows,] f_in, f_out, numbers)
            cube = weight.reshape(*(() if self.shared else (-1,)), f_in, f_out, self.weight_numel)
        added: Sequence[Tensor] = ()
        if self.biases:
            added = bias.reshape(-1, f_out, sum(self.bias_widths)).split_with_sizes(self.bias_widths, 2)
        out = []
        for k, block in enumerate(self.irreps_out):
            terms = [p for p in self.paths if p.target == k]
            y = x.new_zeros(rows, f_out, block.dim)
            if terms:
                features = _joined([self._channels(blocks[p.source], p.source, rows) for p in terms], x, 2)
                matrix = _joined([self._matrix(cube, p) for p in terms], x, -2)
                z = torch.unflatten(_times(features, matrix), 2, (f_out, block.mul))
                y = z.transpose(1, 2).reshape(rows, f_out, block.dim)
            for place, target in enumerate(self.biases):
                y = y + added[place] if target == k else y
            out.append(y)
        joined = self.leave(_joined(out, x, 2).reshape(rows * f_out, self.irreps_out.dim))
        return joined.reshape(*leading, *(() if self.factors is None else (f_out,)), self.irreps_out.dim)  # type: ignore[no-any-return]

    def _channels(self, block: Tensor, source: int, rows: int) -> Tensor:
        """(rows · f_in, components · mul) -> (rows, components, f_in · mul)."""
        dim, f_in = self.irreps_in[source].irrep.dim, self.factors[0] if self.factors else 1
        return block.reshape(rows, f_in, dim, self.irreps_in[source].mul).transpose(1, 2).flatten(2)

    def _matrix(self, cube: Tensor, p: Path) -> Tensor:
        """Of the weights ([rows,] f_in, f_out, numbers) those of a path, ([rows,] f_in · mul, f_out · mul_out)."""
        shape = self.irreps_in[p.source].mul, self.irreps_out[p.target].mul
        chosen = torch.unflatten(cube[..., p.start : p.start + math.prod(shape)], -1, shape)
        return chosen.transpose(-3, -2).flatten(-2).flatten(-3, -2) * p.coefficient

    def extra_repr(self) -> str:
        """For repr."""
        return f"{self.irreps_in} -> {self.irreps_out}, {self.weight_numel} weights"


class Harmonics(nn.Module):
    """Stands in for the function inside o3.SphericalHarmonics: solid harmonics, |Y_l|² = 2l + 1, l = 0 ... lmax."""

    __e3nn_compile_mode__ = _NO_SCRIPT

    def __init__(self, lmax: int, backend: str) -> None:
        super().__init__()
        self.lmax, self.backend = lmax, backend
        self._kernel = Loaded(HarmonicsRecipe(lmax), backend)

    def forward(self, lmax: int, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """Components (...) each -> (..., (lmax + 1)²)."""
        _check_tracing(self.backend)
        values: Tensor = self._kernel(torch.stack([x, y, z], -1).reshape(-1, 3))
        return values.reshape(*x.shape, (self.lmax + 1) ** 2)

    def extra_repr(self) -> str:
        """For repr."""
        return f"lmax={self.lmax}, backend={self.backend}"


class Extraction(nn.Module):
    """Stands in for the code of nn.Extract: slices of the input, side by side.

    outputs  for each output the (start, stop) of its pieces
    single   whether one output comes by itself and not in a tuple
    """

    __e3nn_compile_mode__ = _NO_SCRIPT

    def __init__(self, outputs: Sequence[Sequence[tuple[int, int]]], single: bool) -> None:
        super().__init__()
        self.outputs, self.single = tuple(tuple(_merged(pieces)) for pieces in outputs), single

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """(..., width) -> copies of the outputs, (..., their widths)."""
        out = tuple(
            torch.cat([x[..., a:b] for a, b in pieces], -1) if pieces else x.new_zeros(*x.shape[:-1], 0)
            for pieces in self.outputs
        )
        return out[0] if self.single else out


def _rows(*tensors: Tensor) -> tuple[torch.Size, list[Tensor]]:
    """The leading shape that all broadcast to, and the tensors as (rows, width)."""
    shapes = [t.shape[:-1] for t in tensors]
    leading = shapes[0] if all(s == shapes[0] for s in shapes) else torch.broadcast_shapes(*shapes)  # type: ignore[no-untyped-call]
    rows = math.prod(leading)
    return leading, [t.expand(*leading, t.shape[-1]).reshape(rows, t.shape[-1]) for t in tensors]


def _times(features: Tensor, matrix: Tensor) -> Tensor:
    """(rows, components, channels) times a matrix, or times one for each row."""
    if matrix.dim() == 3:
        return features @ matrix
    return torch.unflatten(features.flatten(0, 1) @ matrix, 0, features.shape[:2])


def _joined(parts: Sequence[Tensor], like: Tensor, dim: int = 1) -> Tensor:
    """torch.cat, without a copy of one part, and with an answer for none."""
    if not parts:
        return like.new_zeros(math.prod(like.shape[:-1]), *(0,) * dim)
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim)


def _merged(pieces: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Slices, neighbours joined and empty ones dropped."""
    out: list[tuple[int, int]] = []
    for start, stop in pieces:
        if out and out[-1][1] == start:
            out[-1] = (out[-1][0], stop)
        elif stop > start:
            out.append((start, stop))
    return out


def _keep(module: nn.Module, buffers: Mapping[str, Tensor]) -> None:
    for name, buffer in buffers.items():
        module.register_buffer(name, buffer)


def _check_tracing(backend: str) -> None:
    """torch.jit.trace would take what a compiled kernel writes for a constant."""
    if backend != "torch" and torch._C._get_tracing_state() is not None:
        raise InputError(
            f"e3nn.replace: got torch.jit.trace of the backend {backend!r}; expected torch.compile or torch.export; "
            'or do: replace(module, backend="torch")'
        )
