"""TensorProduct: Clebsch-Gordan products of two features along chosen instructions, with e3nn's modes and weights.

A mode says what becomes of the channels u of the left and v of the right side: "uvu" and "uvv" keep one of them,
"uuu" pairs them, "uvuv" keeps both, "uvw" and "uuw" mix them into new channels w.  The coupling is a compiled
kernel; the mixing is one matrix product for each instruction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from irrepc.algebra.irreps import Block, Irrep, Irreps
from irrepc.algebra.recipe import Label, Path, ProductRecipe, labels
from irrepc.errors import InputError, IrrepsError
from irrepc.runtime.load import check_choice, load

MODES = ("uvw", "uvu", "uvv", "uuw", "uuu", "uvuv")
_PAIRED = ("uuw", "uuu")
_MIXED = ("uvw", "uuw")


class Instruction(NamedTuple):
    """left[i1] ⊗ right[i2] -> out[i_out] in a mode; path_weight multiplies the variance of the path."""

    i1: int
    i2: int
    i_out: int
    mode: str
    has_weight: bool
    path_weight: float = 1.0


class _Step(NamedTuple):
    """What happens to one block of a kernel's output."""

    width: int
    components: int
    slot: int
    coefficient: float
    weight: slice | None
    matrix: tuple[int, int] | None


class _Group(nn.Module):
    """The instructions that share one kernel: those that pair channels, or those that cross them."""

    def __init__(self, recipe: ProductRecipe, extents: dict[str, int], steps: list[_Step], backend: str) -> None:
        super().__init__()
        self.recipe, self.steps = recipe, tuple(steps)
        names = dict.fromkeys(a for label in (*recipe.left, *recipe.right) for a in label.axes)
        self._extents = tuple(extents[name] for name in names)
        self._kernel = load(recipe, backend)
        self._widths = tuple(s.width for s in steps)
        self._weights = tuple(s.weight for s in steps if s.weight is not None and s.matrix is None)

    def forward(self, x: Tensor, y: Tensor, weight: Tensor) -> list[tuple[int, Tensor]]:
        """Contributions (slot, tensor (rows, components · channels))."""
        inputs = [x, y]
        if self._weights:
            inputs.append(torch.cat([weight[..., s] for s in self._weights], -1))
        z = self._kernel(*inputs, *self._extents)
        out = []
        for step, part in zip(self.steps, z.split_with_sizes(self._widths, 1), strict=True):
            if step.matrix is not None and step.weight is not None:
                part = part.reshape(-1, step.components, step.matrix[0])
                matrix = weight[..., step.weight]
                part = (part @ matrix.reshape(*matrix.shape[:-1], *step.matrix)).flatten(1)
            out.append((step.slot, part * step.coefficient if step.coefficient != 1.0 else part))
        return out


class TensorProduct(nn.Module):
    """out = Σ over instructions of (weighted) couplings of x and y, equal to e3nn's o3.TensorProduct.

    instructions            as e3nn: (i1, i2, i_out, mode, has_weight[, path_weight])
    irrep_normalization     "component", "norm" or "none"
    path_normalization      "element", "path" or "none"
    shared_weights          True: one flat `weight` parameter; False: weights are given for each row in the call

    The flat weight holds the weighted instructions in order, each (mul1, mul2, mul_out) as its mode says.
    Features are in ir_mul layout (e3nn's is mul_ir: interop/e3nn_layout.py).
    Raises IrrepsError for an instruction that is not possible.
    """

    weight: Tensor

    def __init__(
        self,
        irreps1: Irreps | str,
        irreps2: Irreps | str,
        irreps_out: Irreps | str,
        instructions: Sequence[Instruction | tuple[int, int, int, str, bool] | tuple[int, int, int, str, bool, float]],
        *,
        irrep_normalization: str = "component",
        path_normalization: str = "element",
        shared_weights: bool = True,
        backend: str = "auto",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.irreps1, self.irreps2, self.irreps_out = Irreps.of(irreps1), Irreps.of(irreps2), Irreps.of(irreps_out)
        self.instructions = tuple(Instruction(*i) for i in instructions)
        self.shared_weights, self.backend = shared_weights, check_choice(backend)
        for i in self.instructions:
            self._check(i)
        self._coefficients = self._normalise(irrep_normalization, path_normalization)
        shapes = [self._weight_shape(i) if i.has_weight else () for i in self.instructions]
        sizes = [math.prod(s) if s else 0 for s in shapes]
        starts = [sum(sizes[:n]) for n in range(len(sizes))]
        self.weight_numel = sum(sizes)
        self.weight_slices = tuple(slice(a, a + n) for a, n in zip(starts, sizes, strict=True))
        groups = [
            self._group(paired, shapes, irrep_normalization == "component")
            for paired in (False, True)
            if any((i.mode in _PAIRED) == paired for i in self.instructions)
        ]
        self.groups = nn.ModuleList(groups)
        self._widths = tuple(b.dim for b in self.irreps_out)
        if shared_weights:
            self.weight = nn.Parameter(torch.randn(self.weight_numel, dtype=dtype))

    def forward(self, x: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
        """x (rows, irreps1.dim), y (rows, irreps2.dim) -> (rows, irreps_out.dim).

        weight (rows, weight_numel), needed exactly when the weights are not shared; InputError otherwise.
        """
        if (weight is None) != self.shared_weights:
            given, wanted = ("none", "(rows, weight_numel)") if weight is None else ("some", "none: they are shared")
            raise InputError(f"tensor_product: got {given} weights; expected {wanted}")
        if x.shape[0] != y.shape[0]:
            raise InputError(f"tensor_product: got {x.shape[0]} rows of x and {y.shape[0]} of y; expected as many")
        used = self.weight if weight is None else weight
        sums: list[Tensor | None] = [None] * len(self._widths)
        for group in self.groups:
            for slot, part in group(x, y, used):
                before = sums[slot]
                sums[slot] = part if before is None else before + part
        rows = x.shape[0]
        pieces = [x.new_zeros(rows, w) if s is None else s for s, w in zip(sums, self._widths, strict=True)]
        return torch.cat(pieces, 1) if pieces else x.new_zeros(rows, 0)

    def extra_repr(self) -> str:
        """For repr."""
        return (
            f"{self.irreps1} x {self.irreps2} -> {self.irreps_out}, {len(self.instructions)} instructions, "
            f"{self.weight_numel} weights, backend={self.backend}"
        )

    def _check(self, i: Instruction) -> None:
        a, b, c = self.irreps1[i.i1], self.irreps2[i.i2], self.irreps_out[i.i_out]
        product = a.irrep * b.irrep
        if c.irrep not in product:
            raise IrrepsError(
                f"tensor_product: output {c.irrep} is not in {a.irrep} ⊗ {b.irrep} = {'+'.join(map(str, product))}; "
                f"drop {c.irrep} or raise lmax of the inputs"
            )
        if i.mode not in MODES:
            raise IrrepsError(f"tensor_product: got mode {i.mode!r}; expected one of {', '.join(MODES)}")
        channels = {"uvu": a.mul, "uvv": b.mul, "uuu": a.mul, "uvuv": a.mul * b.mul}.get(i.mode, c.mul)
        if c.mul != channels:
            raise IrrepsError(f"tensor_product: mode {i.mode} of {a} and {b} gives {channels} channels; got {c}")
        if i.mode in _PAIRED and a.mul != b.mul:
            raise IrrepsError(f"tensor_product: mode {i.mode} pairs channels; got {a} and {b}; expected equal numbers")
        if i.mode in _MIXED and not i.has_weight:
            raise IrrepsError(f"tensor_product: mode {i.mode} mixes channels; expected has_weight=True")

    def _weight_shape(self, i: Instruction) -> tuple[int, ...]:
        a, b, c = self.irreps1[i.i1].mul, self.irreps2[i.i2].mul, self.irreps_out[i.i_out].mul
        return {"uvw": (a, b, c), "uuw": (a, c), "uuu": (a,)}.get(i.mode, (a, b))

    def _normalise(self, irrep_normalization: str, path_normalization: str) -> tuple[float, ...]:
        """e3nn's path coefficients, without the √(2l+1) that the kernel holds under "component"."""
        for given, kinds in ((irrep_normalization, ("component", "norm")), (path_normalization, ("element", "path"))):
            if given not in (*kinds, "none"):
                raise IrrepsError(f"tensor_product: got normalization {given!r}; expected {', '.join(kinds)} or none")

        def fan(i: Instruction) -> int:
            a, b = self.irreps1[i.i1].mul, self.irreps2[i.i2].mul
            return {"uvw": a * b, "uvu": b, "uvv": a, "uuw": a}.get(i.mode, 1)

        out = []
        for i in self.instructions:
            together = [j for j in self.instructions if j.i_out == i.i_out]
            share = {"element": sum(fan(j) for j in together), "path": fan(i) * len(together), "none": 1}
            variance = i.path_weight / share[path_normalization]
            if irrep_normalization == "norm":
                variance *= self.irreps1[i.i1].irrep.dim * self.irreps2[i.i2].irrep.dim
            out.append(math.sqrt(variance))
        return tuple(out)

    def _group(self, paired: bool, shapes: list[tuple[int, ...]], component: bool) -> _Group:
        """One kernel for the instructions that pair channels (or for those that cross them)."""
        chosen = [n for n, i in enumerate(self.instructions) if (i.mode in _PAIRED) == paired]
        left, extents = labels(self.irreps1, "u")
        if paired:
            # Channels are paired one to one, so both sides name the same axis for the same multiplicity.
            names = {mul: name for name, mul in extents.items()}
            right = tuple(
                Label((names[b.mul],), b.irrep) if b.mul in names else Label((f"v{n}",), b.irrep)
                for n, b in enumerate(self.irreps2)
            )
            extents |= {label.axes[0]: b.mul for label, b in zip(right, self.irreps2, strict=True)}
        else:
            right, more = labels(self.irreps2, "v", scalar_ones=True)
            extents |= more
        out: list[Label] = []
        paths: list[Path] = []
        steps: list[_Step] = []
        for n in chosen:
            i = self.instructions[n]
            irrep: Irrep = self.irreps_out[i.i_out].irrep
            a, b = left[i.i1].axes, right[i.i2].axes
            axes = {"uvu": a, "uvv": b, "uuu": a, "uuw": a}.get(i.mode, a + b)
            channels = math.prod(extents[name] for name in axes)
            weighted = i.has_weight and i.mode not in _MIXED
            paths.append(Path(i.i1, i.i2, len(out), weighted))
            out.append(Label(axes, irrep))
            matrix = (channels, shapes[n][-1]) if i.mode in _MIXED else None
            weight = self.weight_slices[n] if i.has_weight else None
            steps.append(_Step(irrep.dim * channels, irrep.dim, i.i_out, self._coefficients[n], weight, matrix))
        any_weighted = any(p.weighted for p in paths)
        kind = "none" if not any_weighted else "shared" if self.shared_weights else "row"
        recipe = ProductRecipe(left, right, tuple(out), tuple(paths), weights=kind, component=component)
        return _Group(recipe, extents, steps, self.backend)


class FullyConnectedTensorProduct(TensorProduct):
    """Every path to every output block, all channels mixed ("uvw"), as e3nn's class of this name."""

    def __init__(
        self,
        irreps1: Irreps | str,
        irreps2: Irreps | str,
        irreps_out: Irreps | str,
        *,
        irrep_normalization: str = "component",
        path_normalization: str = "element",
        shared_weights: bool = True,
        backend: str = "auto",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        a, b, c = Irreps.of(irreps1), Irreps.of(irreps2), Irreps.of(irreps_out)
        super().__init__(
            a,
            b,
            c,
            [
                Instruction(i, j, k, "uvw", True)
                for i, x in enumerate(a)
                for j, y in enumerate(b)
                for k, z in enumerate(c)
                if z.irrep in x.irrep * y.irrep
            ],
            irrep_normalization=irrep_normalization,
            path_normalization=path_normalization,
            shared_weights=shared_weights,
            backend=backend,
            dtype=dtype,
        )


def full_tensor_product(irreps1: Irreps | str, irreps2: Irreps | str, *, backend: str = "auto") -> TensorProduct:
    """All irreps of the product, nothing mixed ("uvuv"), no weights; output blocks sorted by (l, p)."""
    a, b = Irreps.of(irreps1), Irreps.of(irreps2)
    found = [
        (Block(x.mul * y.mul, irrep), i, j)
        for i, x in enumerate(a)
        for j, y in enumerate(b)
        for irrep in x.irrep * y.irrep
    ]
    order = sorted(range(len(found)), key=lambda n: (found[n][0].irrep, n))
    instructions = [Instruction(found[n][1], found[n][2], k, "uvuv", False) for k, n in enumerate(order)]
    return TensorProduct(a, b, Irreps(tuple(found[n][0] for n in order)), instructions, backend=backend)


def elementwise_tensor_product(
    irreps1: Irreps | str, irreps2: Irreps | str, *, backend: str = "auto"
) -> TensorProduct:
    """Channel by channel ("uuu"), no weights, as e3nn's ElementwiseTensorProduct.

    Blocks are cut so that both sides have equal multiplicities; raises IrrepsError when the numbers of irreps differ.
    """
    a, b = Irreps.of(irreps1).simplify(), Irreps.of(irreps2).simplify()
    if a.num_irreps != b.num_irreps:
        raise IrrepsError(f"elementwise_tensor_product: got {a.num_irreps} and {b.num_irreps} irreps; expected as many")
    left, right = list(a), list(b)
    i = 0
    while i < len(left):
        short = min(left[i].mul, right[i].mul)
        for side in (left, right):
            if side[i].mul > short:
                side[i : i + 1] = [Block(short, side[i].irrep), Block(side[i].mul - short, side[i].irrep)]
        i += 1
    out: list[Block] = []
    instructions: list[Instruction] = []
    for n, (x, y) in enumerate(zip(left, right, strict=True)):
        for irrep in x.irrep * y.irrep:
            instructions.append(Instruction(n, n, len(out), "uuu", False))
            out.append(Block(x.mul, irrep))
    return TensorProduct(Irreps(tuple(left)), Irreps(tuple(right)), Irreps(tuple(out)), instructions, backend=backend)
