"""Builder: what the builders of programs share; it collects steps, buffers and constants, and walks layers.

Features are tuples of `Part`s: each block of irreps in columns of its own, wherever those are.  Nothing is moved to put
blocks side by side unless a kernel reads them in one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from torch import Tensor

from irrepc.algebra.irreps import Block, Irreps
from irrepc.algebra.recipe import GateRecipe, HarmonicsRecipe, ProductRecipe, labels
from irrepc.deploy.program import (
    Activate,
    Array,
    Buffer,
    Call,
    Embed,
    Fill,
    Geometry,
    Locate,
    Place,
    Product,
    Segment,
    Step,
)
from irrepc.deploy.tables import Radial, fit
from irrepc.errors import InputError
from irrepc.nn.convolution import Convolution
from irrepc.nn.gate import ACTIVATIONS, Gate, GatePlan
from irrepc.nn.linear import Linear, SpeciesLinear


@dataclass(frozen=True, slots=True)
class Part:
    """A block of features and the columns that hold it, component slow, channel fast."""

    block: Block
    place: Place


@dataclass(slots=True)
class Tabulation:
    """How functions of the distance are tabulated, and, as tables are made, the errors of all of them.

    error, slope_error  the largest errors of a weight, relative to the largest weight, and of a derivative, likewise
    """

    segments: tuple[Segment, ...]
    degree: int
    error: float = 0.0
    slope_error: float = 0.0

    @property
    def rows(self) -> int:
        """How many rows one table has."""
        return sum(s.intervals + self.degree for s in self.segments)


@dataclass(slots=True)
class Builder:
    """A forward program in the making; names are made unique by the layer's number in front."""

    dtype: str
    steps: list[Step] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)

    def buffer(self, name: str, width: int, rows: str = "node", dtype: str = "") -> Place:
        """Declare a buffer; the place of all its columns."""
        self.buffers.append(Buffer(name, rows, width, dtype or self.dtype))
        return Place(name, 0, width)

    def constant(self, name: str, values: Tensor | Array) -> str:
        """Declare a constant in the program's dtype."""
        array = values.detach().double().numpy() if isinstance(values, Tensor) else values
        self.constants[name] = np.ascontiguousarray(array, dtype=self.dtype)
        return name

    def exact(self, name: str, values: Tensor | Array) -> str:
        """Declare a constant of float64 or int64, whatever the program's dtype."""
        array = values.detach().numpy() if isinstance(values, Tensor) else values
        self.constants[name] = np.ascontiguousarray(array)
        return name

    def features(self, name: str, irreps: Irreps) -> tuple[Part, ...]:
        """A buffer for features whose blocks stand in one row."""
        row = self.buffer(name, irreps.dim)
        return row_of(row.buffer, irreps)

    def apart(self, name: str, irreps: Irreps) -> tuple[Part, ...]:
        """A buffer for each block of features."""
        return tuple(Part(b, self.buffer(f"{name}_{k}", b.dim)) for k, b in enumerate(irreps))

    def embedded(self, name: str, values: Tensor) -> str:
        """A buffer with a row of values (species, width) for each atom."""
        row = self.buffer(name, values.shape[1])
        self.steps.append(Embed(self.constant(f"{name}_of", values), row))
        return name

    # ── geometry ─────────────────────────────────────────────────────────────────────────────────

    def geometry(self, sign: int, lmax: int) -> tuple[str, str]:
        """Edge vectors with the sign of the model, and harmonics: the buffers "distance" and "harmonics"."""
        for name in ("vector", "distance"):
            self.buffer(name, 3 if name == "vector" else 1, "edge", "float64")
        self.buffer("direction", 3, "edge")
        self.buffer("harmonics", (lmax + 1) ** 2, "edge")
        self.steps.append(Geometry("vector", "distance", "direction", sign))
        self.steps.append(Call(HarmonicsRecipe(lmax), 0, ("direction",), ("harmonics",), (), ()))
        return "distance", "harmonics"

    def locate(self, stretch: Array, first: Array, tabulation: Tabulation) -> str:
        """Where edges lie in the tables: the buffer "place"."""
        self.buffer("place", 1, "edge")
        self.buffer("slope", 1, "edge")
        names = self.exact("stretch", stretch), self.exact("first", first)
        self.steps.append(Locate("distance", "place", "slope", *names, tabulation.segments, tabulation.degree))
        return "place"

    def table(self, name: str, functions: Sequence[Radial], tabulation: Tabulation) -> str:
        """The splines of functions of the distance, one table after the other, as a constant."""
        fits = [fit(function, tabulation.segments, tabulation.degree) for function in functions]
        for found in fits:
            tabulation.error = max(tabulation.error, found.error / found.largest)
            tabulation.slope_error = max(tabulation.slope_error, found.slope_error / found.steepest)
        return self.constant(name, np.concatenate([found.rows for found in fits]))

    # ── layers ───────────────────────────────────────────────────────────────────────────────────

    def linear(self, name: str, module: Linear, x: Sequence[Part], y: Sequence[Part], *, add: bool = False) -> None:
        """y (+)= Linear(x)."""
        self.products(name, [m.detach() for m in module.matrices()], x, y, add=add)

    def species_linear(
        self, name: str, module: SpeciesLinear, embedding: Tensor, x: Sequence[Part], y: Sequence[Part], *, add: bool
    ) -> None:
        """y (+)= SpeciesLinear(x) with the matrices of each species."""
        count = embedding.shape[0]
        matrices = [m.detach().reshape(count, m.shape[0] // count, m.shape[-1]) for m in module.matrices(embedding)]
        self.products(name, matrices, x, y, add=add, by_species=True)

    def products(
        self,
        name: str,
        matrices: Sequence[Tensor],
        x: Sequence[Part],
        y: Sequence[Part],
        *,
        add: bool,
        by_species: bool = False,
    ) -> None:
        """For each part of y that something feeds its matrix ([species,] fan-in, channels) on all parts of x with the
        same irrep; other parts of y are zero."""
        given = iter(matrices)
        for k, target in enumerate(y):
            sources = [s for s in x if s.block.irrep == target.block.irrep and s.block.mul and target.block.mul]
            if not sources:
                if not add:
                    self.steps.append(Fill(target.place))
                continue
            matrix, row = next(given), 0
            for n, source in enumerate(sources):
                piece = matrix[..., row : row + source.block.mul, :]
                weights = self.constant(f"{name}_{k}_{n}", piece)
                components = target.block.irrep.dim
                self.steps.append(Product(source.place, target.place, weights, components, by_species, add or n > 0))
                row += source.block.mul

    def convolution(self, name: str, module: Convolution, sent: str, table: str, degree: int) -> tuple[Part, ...]:
        """The sum over neighbours, one part for each irrep that comes out: its paths stacked in their order.

        sent   the buffer of what atoms send
        table  the constant with the rows of the splines
        """
        recipe, irreps = stacked(module.recipe), module.irreps_out
        order = sorted(range(len(irreps)), key=lambda i: (irreps[i].irrep, i))
        blocks: list[Block] = []
        for i in order:
            if blocks and blocks[-1].irrep == irreps[i].irrep:
                blocks[-1] = Block(blocks[-1].mul + irreps[i].mul, irreps[i].irrep)
            else:
                blocks.append(irreps[i])
        parts = self.apart(name, Irreps(tuple(blocks)))
        rows = (table, *(f"{table}+{k}" for k in range(1, degree + 1)))
        _, extents = labels(module.irreps_in, "u")
        self.steps.append(
            Call(
                replace(recipe, weights="spline", terms=degree + 1),
                0,
                (sent, "harmonics", "place", *rows),
                tuple(p.place.buffer for p in parts),
                ("sender", "knot", "receiver"),
                tuple(extents.values()),
            )
        )
        return parts

    def gate(self, name: str, module: Gate, y: Sequence[Part]) -> tuple[Part, ...]:
        """What a gate makes of its input, whose blocks lie apart."""
        plan = module.plan()
        pieces = [p for part, cuts in zip(y, plan.cuts, strict=True) for p in _pieces(part, cuts)]
        out: list[Part] = []
        for place in plan.scalars:
            function = plan.functions[place]
            out.append(self.activated(f"{name}_scalars_{place}", pieces[place], function, ACTIVATIONS[function].gain))
        if not plan.gated:
            return tuple(out)
        blocks = Irreps(tuple(pieces[k].block for k in plan.gated))
        gates = self.buffer(f"{name}_gates", blocks.num_irreps)
        slopes = self.buffer(f"{name}_gates_slope", blocks.num_irreps)
        start = 0
        for first, last in _runs(plan):
            function, x = plan.functions[plan.gates[first]], pieces[plan.gates[first]].place
            width = sum(pieces[k].place.width for k in plan.gates[first:last])
            into, slope = Place(gates.buffer, start, width), Place(slopes.buffer, start, width)
            gain = ACTIVATIONS[function].gain
            self.steps.append(Activate(Place(x.buffer, x.start, width), into, slope, function, gain))
            start += width
        left, extents = labels(blocks, "u")
        row = self.features(f"{name}_gated", blocks)
        inputs = (*(pieces[k].place.buffer for k in plan.gated), gates.buffer)
        recipe = GateRecipe(left, apart=True)
        self.steps.append(Call(recipe, 0, inputs, (row[0].place.buffer,), (), tuple(extents.values())))
        return (*out, *row)

    def activated(self, name: str, x: Part, function: str, gain: float) -> Part:
        """gain · f(x) in a buffer of its own."""
        y, slope = self.buffer(name, x.place.width), self.buffer(f"{name}_slope", x.place.width)
        self.steps.append(Activate(x.place, y, slope, function, gain))
        return Part(x.block, y)


def row_of(buffer: str, irreps: Irreps) -> tuple[Part, ...]:
    """The parts of features whose blocks stand in one row of a buffer."""
    return tuple(Part(b, Place(buffer, s.start, b.dim)) for b, s in zip(irreps, irreps.slices(), strict=True))


def stacked(recipe: ProductRecipe) -> ProductRecipe:
    """The recipe with its outputs apart, one array for each irrep; paths, and so their weights, keep their order."""
    order = sorted(range(len(recipe.out)), key=lambda i: (recipe.out[i].irrep, i))
    place = {old: new for new, old in enumerate(order)}
    paths = tuple(replace(p, out=place[p.out]) for p in recipe.paths)
    return replace(recipe, out=tuple(recipe.out[i] for i in order), paths=paths, apart=True)


def _runs(plan: GatePlan) -> list[tuple[int, int]]:
    """Gates that stand side by side and share an activation, as numbers first, last + 1."""
    runs: list[tuple[int, int]] = []
    for k, place in enumerate(plan.gates):
        before = plan.gates[k - 1] if runs else None
        if before == place - 1 and plan.functions[before] == plan.functions[place]:
            runs[-1] = (runs[-1][0], k + 1)
        else:
            runs.append((k, k + 1))
    return runs


def _pieces(part: Part, cuts: tuple[int, ...]) -> list[Part]:
    """A part cut along its channels; only scalars, whose channels are columns, may be cut."""
    if len(cuts) == 1:
        return [part]
    if part.block.irrep.dim > 1:
        raise InputError(f"deploy: got a gate that cuts {part.block} in {cuts}; expected such blocks whole")
    starts = [sum(cuts[:k]) for k in range(len(cuts))]
    buffer, first = part.place.buffer, part.place.start
    return [
        Part(Block(mul, part.block.irrep), Place(buffer, first + start, mul))
        for start, mul in zip(starts, cuts, strict=True)
    ]
