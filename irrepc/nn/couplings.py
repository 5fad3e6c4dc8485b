"""Couplings: Clebsch-Gordan couplings of two features along instructions, with weights and coefficients given.

The arithmetic of tensor products, without parameters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from irrepc.algebra.irreps import Irreps
from irrepc.algebra.recipe import Label, Path, ProductRecipe, Recipe, labels
from irrepc.runtime.load import load

MODES = ("uvw", "uvu", "uvv", "uuw", "uuu", "uvuv", "uvu<v", "u<vw")
PAIRED = ("uuw", "uuu")
MIXED = ("uvw", "uuw", "u<vw")
_TRIANGLE = ("uvu<v", "u<vw")


class Coupling(NamedTuple):
    """coefficient · left[i1] ⊗ right[i2] -> out[i_out] in a mode; the coefficient multiplies √(2l_out+1)·w3j."""

    i1: int
    i2: int
    i_out: int
    mode: str
    has_weight: bool
    coefficient: float


class Loaded:
    """A kernel with the name by which it is found, so that what holds it can be copied and pickled."""

    __slots__ = ("backend", "function", "recipe")

    def __init__(self, recipe: Recipe, backend: str) -> None:
        self.recipe, self.backend = recipe, backend
        self.function = load(recipe, backend)

    def __call__(self, *arguments: Any) -> Any:
        """As the function that `load` gives."""
        return self.function(*arguments)

    def __reduce__(self) -> tuple[type[Loaded], tuple[Recipe, str]]:
        return Loaded, (self.recipe, self.backend)


class Couplings(nn.Module):
    """For each output block the sum of the couplings that lead to it.

    shared  True: one flat weight for all rows; False: one for each row

    The flat weight holds the weighted couplings in order, each as `weight_shape` says. "uvu<v" and "u<vw" take of all
    pairs those with u < v; "uuw" without weights sums over u.
    """

    def __init__(
        self, irreps1: Irreps, irreps2: Irreps, irreps_out: Irreps, couplings: Sequence[Coupling],
        shared: bool, backend: str,
    ) -> None:  # fmt: skip
        super().__init__()
        self._widths = tuple(b.dim for b in irreps_out)
        shapes = [weight_shape(c, irreps1, irreps2, irreps_out) if c.has_weight else (0,) for c in couplings]
        starts = [sum(map(math.prod, shapes[:n])) for n in range(len(shapes) + 1)]
        self.weight_numel = starts[-1]
        groups: list[_Group] = []
        for paired in (False, True):
            chosen = [n for n, c in enumerate(couplings) if (c.mode in PAIRED) == paired]
            if chosen:
                places = [(couplings[n], shapes[n], starts[n]) for n in chosen]
                groups.append(_Group(paired, irreps1, irreps2, irreps_out, places, shared, backend))
        # what one kernel writes may be the output as it stands, as in a convolution that keeps its channels
        self._whole = len(groups) == 1 and groups[0].slots() == (*range(len(irreps_out)),)
        self.groups = nn.ModuleList(groups)

    def forward(self, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        """x (rows, irreps1.dim), y (rows, irreps2.dim), weight ([rows,] weight_numel) -> (rows, irreps_out.dim).

        Features are ir_mul; an output block to which nothing leads is zero.
        """
        written: list[Tensor] = [group(x, y, weight) for group in self.groups]
        if self._whole:
            return written[0]
        sums: list[Tensor | None] = [None] * len(self._widths)
        for group, z in zip(self.groups, written, strict=True):
            for slot, part in group.finished(z, weight):  # type: ignore[operator]
                before = sums[slot]
                sums[slot] = part if before is None else before + part
        rows = x.shape[0]
        blocks = [
            x.new_zeros(rows, width) if part is None else part.flatten(1)
            for part, width in zip(sums, self._widths, strict=True)
        ]
        return torch.cat(blocks, 1) if blocks else x.new_zeros(rows, 0)


def weight_shape(c: Coupling, irreps1: Irreps, irreps2: Irreps, irreps_out: Irreps) -> tuple[int, ...]:
    """The shape of the weights of one coupling, channels of the two sides and new ones, as e3nn's path_shape."""
    a, b, w = irreps1[c.i1].mul, irreps2[c.i2].mul, irreps_out[c.i_out].mul
    pairs = a * (b - 1) // 2
    shapes = {"uvw": (a, b, w), "uuw": (a, w), "uuu": (a,), "uvu<v": (pairs,), "u<vw": (pairs, w)}
    return shapes.get(c.mode, (a, b))


class _Step(NamedTuple):
    """What happens to one block of a kernel's output.

    scale     what is not yet in it when it leaves the kernel
    weight    (start, stop) of the weights that come after the kernel
    matrix    (channels, new channels) where they mix channels
    """

    components: int
    slot: int
    scale: float
    weight: tuple[int, int] | None
    matrix: tuple[int, int] | None
    triangle: str | None


class _Group(nn.Module):
    """The couplings that share one kernel: those that pair channels, or those that cross them."""

    def __init__(
        self, paired: bool, irreps1: Irreps, irreps2: Irreps, irreps_out: Irreps,
        places: Sequence[tuple[Coupling, tuple[int, ...], int]], shared: bool, backend: str,
    ) -> None:  # fmt: skip
        super().__init__()
        left, right, extents = _sides(paired, irreps1, irreps2)
        out: list[Label] = []
        paths: list[Path] = []
        steps: list[_Step] = []
        runs: list[tuple[int, int, float]] = []
        for c, shape, start in places:
            irrep, stop = irreps_out[c.i_out].irrep, start + math.prod(shape)
            a, b = left[c.i1].axes, right[c.i2].axes
            summed = c.mode == "uuw" and not c.has_weight
            axes = () if summed else {"uvu": a, "uvv": b, "uuu": a, "uuw": a}.get(c.mode, a + b)
            after = c.mode in MIXED or c.mode in _TRIANGLE  # weights that the kernel cannot multiply by itself
            weighted = c.has_weight and not after
            if weighted:
                runs = _joined_run(runs, (start, stop, c.coefficient))
            paths.append(Path(c.i1, c.i2, len(out), weighted))
            out.append(Label(axes, irrep))
            triangle = None
            if c.mode in _TRIANGLE:
                triangle, mul = f"pairs{len(steps)}", irreps1[c.i1].mul
                u, v = torch.triu_indices(mul, mul, 1)
                self.register_buffer(triangle, u * mul + v, persistent=False)
            matrix = (math.prod(shape[:-1]), shape[-1]) if c.has_weight and c.mode in MIXED else None
            scale = 1.0 if weighted else c.coefficient
            steps.append(
                _Step(irrep.dim, c.i_out, scale, (start, stop) if c.has_weight and after else None, matrix, triangle)
            )
        kind = "none" if not runs else "shared" if shared else "row"
        self.recipe = ProductRecipe(left, right, tuple(out), tuple(paths), weights=kind)
        names = dict.fromkeys(a for label in (*left, *right) for a in label.axes)
        self._extents = tuple(extents[name] for name in names)
        self._widths = tuple(label.irrep.dim * math.prod(extents[a] for a in label.axes) for label in out)
        self._kernel = Loaded(self.recipe, backend)
        self._steps, self._runs, self._shared = tuple(steps), tuple(runs), shared

    def forward(self, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        """What the kernel writes, (rows, Σ components · channels)."""
        inputs = [x, y]
        if self._runs:
            # coefficients go into the weights: they are fewer than what they multiply
            parts = [_scaled(weight[..., start:stop], scale) for start, stop, scale in self._runs]
            inputs.append(parts[0] if len(parts) == 1 else torch.cat(parts, -1))
        z: Tensor = self._kernel(*inputs, *self._extents)
        return z

    def finished(self, z: Tensor, weight: Tensor) -> list[tuple[int, Tensor]]:
        """Of what the kernel has written the contributions (slot, (rows, components, channels))."""
        blocks = z.split_with_sizes(self._widths, 1)
        return [(s.slot, self._after(s, block, weight)) for s, block in zip(self._steps, blocks, strict=True)]

    def slots(self) -> tuple[int, ...]:
        """The output blocks in the order in which the kernel writes them; none where something follows the kernel."""
        finished = all(s.scale == 1.0 and s.weight is None and s.triangle is None for s in self._steps)
        return tuple(s.slot for s in self._steps) if finished else ()

    def _after(self, step: _Step, block: Tensor, weight: Tensor) -> Tensor:
        """The weights that mix channels, or that belong to pairs u < v."""
        part = torch.unflatten(block, 1, (step.components, block.shape[1] // step.components))
        if step.triangle is not None:
            part = part.index_select(2, self.get_buffer(step.triangle))
        if step.weight is None:
            return _scaled(part, step.scale)
        chosen = weight[..., step.weight[0] : step.weight[1]]
        if step.matrix is None:
            return part * _scaled(chosen, step.scale).unsqueeze(-2)
        matrix = torch.unflatten(chosen, -1, step.matrix)
        return part @ _scaled(matrix, step.scale) if self._shared else _scaled(part @ matrix, step.scale)


def _sides(
    paired: bool, irreps1: Irreps, irreps2: Irreps
) -> tuple[tuple[Label, ...], tuple[Label, ...], dict[str, int]]:
    """The labels of both sides and the extents of their channel axes."""
    left, extents = labels(irreps1, "u")
    if not paired:
        right, more = labels(irreps2, "v", scalar_ones=True)
        return left, right, extents | more
    # Channels are paired one to one, so both sides name the same axis for the same multiplicity.
    names = {mul: name for name, mul in extents.items()}
    right = tuple(
        Label((names[b.mul],), b.irrep) if b.mul in names else Label((f"v{n}",), b.irrep) for n, b in enumerate(irreps2)
    )
    return left, right, extents | {label.axes[0]: b.mul for label, b in zip(right, irreps2, strict=True)}


def _joined_run(runs: list[tuple[int, int, float]], new: tuple[int, int, float]) -> list[tuple[int, int, float]]:
    """Slices of the flat weight with their coefficients; neighbours with the same one are one slice."""
    if runs and runs[-1][1:] == (new[0], new[2]):
        return [*runs[:-1], (runs[-1][0], new[1], new[2])]
    return [*runs, new]


def _scaled(x: Tensor, scale: float) -> Tensor:
    return x if scale == 1.0 else x * scale
