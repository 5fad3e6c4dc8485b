"""Program: a trained network as a list of steps over named buffers, its backward included.

Every buffer is a matrix (rows, width), rows contiguous; features lie in it as everywhere ("ir_mul": blocks in order, in
a block component slow, channel fast).  Atoms are sorted by species, edges by receiver.  A step reads and writes whole
buffers or `Place`s, runs of columns.  Nothing else happens between steps: running them in order evaluates the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from irrepc.algebra.recipe import Recipe

ROWS = ("node", "edge")
"""What the rows of a buffer are: atoms N, directed edges E."""
INDICES = ("sender", "receiver", "species", "knot")
"""Row numbers the engine makes: of each edge the neighbour j, the centre i, the row of the tables; of each atom its
species."""
Array = NDArray[np.float64] | NDArray[np.float32] | NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Buffer:
    """A matrix (rows, width).

    rows   one of ROWS
    dtype  "float32" or "float64"
    slot   buffers with the same slot share their memory: at no step are two of them needed
    """

    name: str
    rows: str
    width: int
    dtype: str
    slot: int = -1


@dataclass(frozen=True, slots=True)
class Place:
    """Columns start ... start + width - 1 of a buffer."""

    buffer: str
    start: int
    width: int

    @property
    def stop(self) -> int:
        """The column behind the last."""
        return self.start + self.width


@dataclass(frozen=True, slots=True)
class Geometry:
    """vector = sign · (positions[j] + shift·cell - positions[i]) (E, 3), distance = |vector| (E, 1), both float64;
    direction = vector / distance (E, 3)."""

    vector: str
    distance: str
    direction: str
    sign: int


@dataclass(frozen=True, slots=True)
class Segment:
    """Where one spline of a table reaches: from begin to end, `intervals` equal ones, intervals + degree rows."""

    begin: float
    end: float
    intervals: int


@dataclass(frozen=True, slots=True)
class Locate:
    """Where the distance of an edge lies in the tables, and the index "knot" of the row it starts to read there.

    x = distance · stretch lies in one of the segments (in rising order, each beginning where the last ends; its rows
    follow theirs), in its interval n at place = (x - begin) · intervals / (end - begin) - n; the row is
    first + rows of earlier segments + n.

    distance  (E, 1) float64
    place     (E, 1), 0 ... 1
    slope     (E, 1), the derivative of the place by the distance, 1/Å
    stretch   the constant (pairs,) float64; pairs are (species of the centre, species of the neighbour), flat
    first     the constant (pairs,) int64, the first row of the pair's table
    """

    distance: str
    place: str
    slope: str
    stretch: str
    first: str
    segments: tuple[Segment, ...]
    degree: int


@dataclass(frozen=True, slots=True)
class Call:
    """A kernel of the IR: order 0 evaluates it, order 1 is its VJP.

    inputs   buffers or constants, in the kernel's order; at order 1 followed by the cotangents of its outputs;
             "name+2" is a constant from its row 2 on
    outputs  buffers, in the kernel's order; "" for those that are not wanted
    indices  of INDICES, in the order of the kernel's own
    extents  of its channel axes
    """

    recipe: Recipe
    order: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    indices: tuple[str, ...]
    extents: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Product:
    """y[m] (+)= x[m] W for each component m: `components` runs of k columns of x, and of n columns of y.

    weights  a constant (k, n), or (species, k, n): then each atom has the matrix of its species
    add      whether to add to what y holds
    """

    x: Place
    y: Place
    weights: str
    components: int
    by_species: bool = False
    add: bool = False


@dataclass(frozen=True, slots=True)
class Activate:
    """y = gain · f(x); slope = gain · f'(x), which the backward multiplies with; f is "silu", "tanh", ..."""

    x: Place
    y: Place
    slope: Place
    function: str
    gain: float


@dataclass(frozen=True, slots=True)
class Multiply:
    """y (+)= x · by, number by number."""

    x: Place
    by: Place
    y: Place
    add: bool = False


@dataclass(frozen=True, slots=True)
class RowDot:
    """y (+)= Σ x · by over the columns; y has one column."""

    x: Place
    by: Place
    y: Place
    add: bool = False


@dataclass(frozen=True, slots=True)
class Add:
    """y += x."""

    x: Place
    y: Place


@dataclass(frozen=True, slots=True)
class Fill:
    """y = value."""

    y: Place
    value: float = 0.0


@dataclass(frozen=True, slots=True)
class Embed:
    """y (+)= table[species], a constant (species, width)."""

    table: str
    y: Place
    add: bool = False


@dataclass(frozen=True, slots=True)
class Readout:
    """energies[i] = scales[species] · x[i] + shifts[species], (N, 1) float64, eV; the energy is their sum."""

    x: Place
    energies: str
    scales: str
    shifts: str


@dataclass(frozen=True, slots=True)
class Seed:
    """y = scales[species], the derivative of the energy with respect to what `Readout` takes."""

    y: Place
    scales: str


@dataclass(frozen=True, slots=True)
class Forces:
    """From the derivatives of the energy by direction (E, 3) and distance (E, 1) to those by atoms and strain.

    g = sign · ((I - n nᵀ) g_direction / r + n g_distance) on each edge; forces[i] += g, forces[j] -= g, (N, 3) float64
    eV/Å; virial = Σ (sign · vector) ⊗ g, symmetrised, eV. An empty name: that derivative is zero.
    """

    vector: str
    distance: str
    direction: str
    g_direction: str
    g_distance: str
    sign: int


Step = Geometry | Locate | Call | Product | Activate | Multiply | RowDot | Add | Fill | Embed | Readout | Seed | Forces
STEPS: tuple[type, ...] = Step.__args__


@dataclass(frozen=True, slots=True)
class Program:
    """What evaluates a network: energies, and after the backward steps forces and virial.

    steps      in order
    buffers    what they read and write
    constants  arrays by name: weights and tables in the program's dtype; scales, shifts and steps in float64
    dtype      of the arithmetic; positions, distances, energies and forces are float64 always
    species    atomic numbers; species count into them
    cutoff     Å, the largest of all pairs
    cutoffs    Å, (species of the centre · species of the neighbour,); an edge must be shorter
    closest    Å; an edge must not be shorter, tables begin there
    metadata   provenance, the stated errors: text and numbers only
    """

    steps: tuple[Step, ...]
    buffers: tuple[Buffer, ...]
    constants: Mapping[str, Array]
    dtype: str
    species: tuple[int, ...]
    cutoff: float
    cutoffs: tuple[float, ...]
    closest: float
    metadata: Mapping[str, object] = field(default_factory=dict)
