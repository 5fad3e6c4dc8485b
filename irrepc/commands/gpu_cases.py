"""Cases: what is timed on a GPU, on which graphs, how long it must take at least, and what was predicted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from irrepc.algebra.irreps import Irreps
from irrepc.algebra.recipe import ContractionRecipe, HarmonicsRecipe, ProductRecipe, Recipe, labels, uvu_paths
from irrepc.commands.bench_cases import Case, Graph
from irrepc.commands.bench_peers import convolution_peers, harmonics_peers
from irrepc.commands.bench_timing import Contender, Machine, floor_seconds
from irrepc.commands.gpu_ceilings import Ceilings
from irrepc.commands.gpu_peers import cu_equivariance, open_equivariance, sides
from irrepc.errors import InputError
from irrepc.frontend.derive import derive
from irrepc.nn.graph import Index, index_of
from irrepc.runtime.load import Function, load

PHASES = ("forward", "forward + forces", "train step")
"""The value; with the gradients with respect to every operand; with the gradients of these."""
BACKENDS = ("cuda", "cuda-atomic", "torch")
CHECKED = (60, 1200)
"""Nodes and edges of the graph on which contenders are compared before larger ones are timed."""
SPECIES = 10

# Milliseconds for 10,000 nodes and 500,000 edges at C = 128 on an H200 with weights read: what is aimed at, 70 % of the
# traffic floor forward and 65 % with forces; written down before anything ran.
TARGETS = {(1, 0): 0.36, (2, 0): 1.0, (3, 0): 2.2, (2, 1): 3.2, (3, 1): 7.0}
TARGET_SIZE = (10_000, 500_000, 128)


@dataclass(frozen=True, slots=True)
class Contest:
    """One thing to time by every contender, ours first.

    checked  the same contenders on a small problem, where they are compared
    floors   least milliseconds of each phase: every operand moved once, every operation at the device's best
    cached   least milliseconds of each phase for what crosses the second-level cache; 0 where it is not counted
    targets  predicted milliseconds of each phase; 0 where there are none
    """

    title: str
    phases: tuple[str, ...]
    checked: tuple[Contender, ...]
    contenders: tuple[Contender, ...]
    floors: tuple[float, ...]
    cached: tuple[float, ...]
    targets: tuple[float, ...]


def convolution_contest(
    lmax: int, channels: int, nodes: int, edges: int, ceilings: Ceilings, device: torch.device
) -> Contest:
    """Natural-parity features and messages to lmax, a weight for each edge, path and channel, float32."""
    recipe = convolution_recipe(lmax)
    floors = floor_seconds(recipe, edges, nodes, {"u": channels}, Machine(ceilings.copied, ceilings.flops))
    sized = (nodes, edges, channels) == TARGET_SIZE
    return Contest(
        convolution_title(lmax, channels, nodes, edges),
        PHASES,
        tuple(convolutions(recipe, lmax, channels, *CHECKED, device)),
        tuple(convolutions(recipe, lmax, channels, nodes, edges, device)),
        tuple(1e3 * f for f in floors),
        (1e3 * cached_seconds(recipe, lmax, edges, channels, ceilings), 0.0, 0.0),
        tuple(TARGETS.get((lmax, phase), 0.0) if sized else 0.0 for phase in range(len(PHASES))),
    )


def convolution_title(lmax: int, channels: int, nodes: int, edges: int) -> str:
    """What a convolution is called in reports."""
    return f"convolution, lmax {lmax}, C = {channels}, {nodes:,} nodes, {edges:,} edges"


def harmonics_contest(lmax: int, rows: int, ceilings: Ceilings, device: torch.device) -> Contest:
    """Harmonics of `rows` unit vectors, float32."""
    recipe = HarmonicsRecipe(lmax)
    floors = floor_seconds(recipe, rows, 0, {}, Machine(ceilings.copied, ceilings.flops))

    def contenders(count: int) -> Iterator[Contender]:
        r = torch.nn.functional.normalize(_normal((count, 3), lmax, device), dim=1)
        case = Case("", recipe, (r,), count, 0, {}, kernel_of(recipe, (), ()))
        yield from ours(case)
        yield from harmonics_peers(lmax, case)

    return Contest(
        f"harmonics to degree {lmax}, {rows:,} vectors",
        PHASES,
        tuple(contenders(CHECKED[1])),
        tuple(contenders(rows)),
        tuple(1e3 * f for f in floors),
        (0.0, 0.0, 0.0),
        (0.0, 0.0, 0.0),
    )


def contraction_contest(
    lmax: int, correlation: int, channels: int, rows: int, ceilings: Ceilings, device: torch.device
) -> Contest:
    """The symmetric contraction of MACE to scalars and vectors, float32; no peer has the same basis of couplings."""
    recipe = ContractionRecipe(lmax, (0, 1), correlation)
    floors = floor_seconds(recipe, rows, SPECIES, {"u": channels}, Machine(ceilings.copied, ceilings.flops))
    features, coefficients = (o.size for o in derive(recipe).inputs)

    def contenders(count: int) -> Iterator[Contender]:
        x = _normal((count, features * channels), 0, device)
        w = _normal((SPECIES, coefficients * channels), 1, device)
        species = index_of(torch.arange(count) % SPECIES, SPECIES).to(device)
        yield from ours(Case("", recipe, (x, w), count, SPECIES, {}, kernel_of(recipe, (species,), (channels,))))

    return Contest(
        f"symmetric contraction, lmax {lmax}, correlation {correlation}, C = {channels}, {rows:,} nodes",
        PHASES,
        tuple(contenders(CHECKED[0])),
        tuple(contenders(rows)),
        tuple(1e3 * f for f in floors),
        (0.0, 0.0, 0.0),
        (0.0, 0.0, 0.0),
    )


def convolution_recipe(lmax: int) -> ProductRecipe:
    """Every path of natural parity among features, harmonics and messages up to lmax."""
    harmonics = Irreps.spherical_harmonics(lmax)
    left, _ = labels(Irreps.of([(2, b.irrep) for b in harmonics]), "u")
    right, _ = labels(harmonics, "v", scalar_ones=True)
    out, paths = uvu_paths(left, right, harmonics)
    return ProductRecipe(left, right, out, paths, weights="row", fused=True)


def cached_seconds(recipe: ProductRecipe, lmax: int, edges: int, channels: int, ceilings: Ceilings) -> float:
    """What crosses the second-level cache forward, at the rate of a random gather.

    An edge reads its weights, its harmonics and the row of its sender, and two int64 indices.
    """
    numbers = (len(recipe.paths) + (lmax + 1) ** 2) * channels + (lmax + 1) ** 2
    return edges * (4 * numbers + 16) / ceilings.gathered


def convolutions(
    recipe: ProductRecipe, lmax: int, channels: int, nodes: int, edges: int, device: torch.device
) -> Iterator[Contender]:
    """Our backends and every installed peer on a random symmetric graph."""
    width = (lmax + 1) ** 2
    shapes = ((nodes, width * channels), (edges, width), (edges, len(recipe.paths) * channels))
    inputs = tuple(_normal(shape, seed, device) for seed, shape in enumerate(shapes))
    generator = torch.Generator().manual_seed(lmax)
    senders, receivers = (index_of(rows, nodes).to(device) for rows in symmetric_edges(nodes, edges, generator))
    case = Case("", recipe, inputs, edges, nodes, {}, kernel_of(recipe, (senders, receivers), (channels,)))
    yield from ours(case)
    features = str(sides(recipe, channels)[0])
    yield from convolution_peers(features, lmax, case, Graph(nodes, senders.values, receivers.values), compiled=False)
    yield from open_equivariance(recipe, inputs, senders, receivers, channels)
    yield from cu_equivariance(recipe, inputs, senders, receivers, channels)


def symmetric_edges(nodes: int, edges: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Senders and receivers of an even number of random edges, each there in both directions and once, none to itself.

    Sorted by receiver, then sender, as neighbour lists are; OpenEquivariance asks for all of this.
    """
    pairs = edges // 2
    drawn = torch.randint(nodes, (2 * pairs + 64, 2), generator=generator).sort(1).values
    codes: Tensor = torch.unique((drawn[:, 0] * nodes + drawn[:, 1])[drawn[:, 0] < drawn[:, 1]])
    if len(codes) < pairs:
        raise InputError(f"bench: got {edges} edges of {nodes} nodes; expected a graph of which most edges are absent")
    codes = codes[torch.randperm(len(codes), generator=generator)[:pairs]]
    i, j = codes // nodes, codes % nodes
    both = torch.cat((i * nodes + j, j * nodes + i)).sort().values
    return both % nodes, both // nodes


def kernel_of(recipe: Recipe, indices: tuple[Index, ...], extents: tuple[int, ...]) -> Callable[[str], Function]:
    """The function of the operands alone, for each backend."""

    def of(backend: str) -> Function:
        kernel = load(recipe, backend)
        return lambda *tensors: kernel(*tensors, *indices, *extents)

    return of


def ours(case: Case) -> Iterator[Contender]:
    """Our kernels: CUDA, in order and with sums in any order, then the torch text."""
    for backend in BACKENDS:
        yield Contender(f"irrepc {backend}", case.ours(backend), case.inputs, len(PHASES))


def _normal(shape: tuple[int, ...], seed: int, device: torch.device) -> Tensor:
    return torch.randn(shape, device=device, generator=torch.Generator(device).manual_seed(seed))
