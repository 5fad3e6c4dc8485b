"""Why the llvm backend is fast, seen in its text and its machine code, and that rows written past the caches arrive."""

from __future__ import annotations

import re
from functools import lru_cache

import llvmlite.binding as llvm
import pytest
import torch

from irrepc.emit.llvm_text import STREAMED, llvm_function, llvm_head
from irrepc.emit.module import Entry, scheduled
from irrepc.errors import InputError
from irrepc.frontend.derive import derive
from irrepc.ir.block import Block, split
from irrepc.ir.vjp import vjp
from irrepc.nn.convolution import Convolution
from irrepc.nn.graph import index_of
from tests.kernels import RECIPES, convolution

CONVOLUTION = convolution("2x0e+2x1o+2x2e", 2, "0e+1o+2e")
PARTS = [(order, part) for order, parts in enumerate((1, 1, 2)) for part in range(parts)]


def block(order: int, part: int) -> Block:
    """A part of the convolution of lmax 2 or of a derivative."""
    return scheduled(Entry("kernel", CONVOLUTION))[order][part]


@lru_cache(maxsize=8)
def assembly(order: int, part: int, dtype: str) -> str:
    """The machine code of a part for 64 channels and a processor with AVX-512."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    try:
        target = llvm.Target.from_triple("x86_64-unknown-linux-gnu")
    except RuntimeError:
        pytest.skip("this llvmlite cannot emit code for x86-64")
    machine = target.create_target_machine(cpu="znver4", opt=3)
    text = f"{llvm_head(dtype)}\n@u = internal constant i64 64\n{llvm_function('kernel', block(order, part), dtype)}"
    module = llvm.parse_assembly(text)
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    code: str = machine.emit_assembly(module)
    return code


@pytest.mark.parametrize(("order", "part"), PARTS)
def test_channel_loops_are_vector_multiply_adds(order: int, part: int) -> None:
    """Whole vectors of 16 channels only: 64 channels leave no rest, and nothing is computed one by one."""
    code = assembly(order, part, "float32")
    cost = block(order, part).cost["u",]
    fused = len(re.findall(r"\tvf[n]?m(?:add|sub)\d+ps\t.*zmm", code))
    products = fused + len(re.findall(r"\tvmulps\t.*zmm", code))
    assert fused >= 0.7 * cost.add
    assert products <= cost.mul + 64, "combinations of sums and nothing else come on top"
    assert not re.search(r"\tvf[n]?m(?:add|sub)\d+ps\t[^z]*$", code, re.MULTILINE)


@pytest.mark.parametrize(("order", "part"), PARTS)
def test_few_vectors_are_spilled(order: int, part: int) -> None:
    code = assembly(order, part, "float32")
    spilled = len(re.findall(r"\tvmov\w+\t%zmm\d+, -?\d*\(%r[sb]p\)", code))
    assert spilled <= 0.25 * block(order, part).cost["u",].mul


@pytest.mark.parametrize(("order", "part"), PARTS)
def test_kernels_call_nothing_but_memory_functions(order: int, part: int) -> None:
    code = assembly(order, part, "float32")
    called = set(re.findall(r"\tcall\w*\t\*?(\S+)", code))
    named = {name.split("@")[0] for name in called if not name.startswith("%")}
    assert named <= {"memset", "memcpy", "stream"}
    assert len(called - named) <= 2, "addresses of the same, in registers"


@pytest.mark.parametrize(("order", "part"), PARTS)
def test_float32_kernels_hold_no_float64(order: int, part: int) -> None:
    arithmetic = r"\tv(?:mul|add|sub|div|fn?m\w+|cvt\w+)(?:sd|pd)\t"
    assert not re.search(arithmetic, assembly(order, part, "float32"))
    assert re.search(arithmetic, assembly(order, part, "float64")), "the pattern finds float64"


def test_lanes_are_added_up_once_for_each_component_of_the_harmonics() -> None:
    """d_y has nine components; one sum for each pair of components coupled would be 45 additions of lanes."""
    for order in (1, 2):
        text = llvm_function("kernel", block(order, 0), "float32")
        sums = {s.target for stage in block(order, 0).stages for s in stage.statements if s.verb == "sum"}
        assert len(sums) > 40
        assert text.count("call reassoc nsz float @llvm.vector.reduce.fadd") == 9


@pytest.mark.parametrize("channels", [5, 16])
def test_rows_written_past_the_caches_arrive(channels: int) -> None:
    """More bytes of d_w than STREAMED, rows of whole lines (16 channels) and rows that begin anywhere (5)."""
    irreps = f"{channels}x0e+{channels}x1o"
    layers = [Convolution(irreps, "1x0e+1x1o", "0e+1o", backend=backend) for backend in ("llvm", "torch")]
    edges, nodes = STREAMED // layers[0].weight_numel, 50  # four times as many bytes, to be cut for threads
    generator = torch.Generator().manual_seed(channels)
    senders = index_of(torch.randint(nodes, (edges,), generator=generator), nodes)
    receivers = index_of(torch.randint(nodes, (edges,), generator=generator).sort().values, nodes)
    inputs = [
        torch.randn(rows, width, generator=generator).requires_grad_()
        for rows, width in ((nodes, 4 * channels), (edges, 4), (edges, layers[0].weight_numel))
    ]
    gradients = [torch.autograd.grad(layer(*inputs, senders, receivers).sum(), inputs) for layer in layers]
    for ours, meant in zip(*gradients, strict=True):
        assert float((ours - meant).abs().max() / meant.abs().max()) < 2e-5


def test_own_rows_of_edges_join_the_pass_over_pairs() -> None:
    """Where no gradient to nodes is wanted, one pass over the edges makes all there is."""
    parts = split(vjp(derive(RECIPES["convolution, weights by pair"])))
    assert sorted(sorted(o.name for o in part.outputs) for part in parts) == [["d_w", "d_y"], ["d_x"]]


@pytest.mark.parametrize("backend", ["llvm", "numba"])
def test_weights_by_pair_are_weights_by_edge_read_twice(backend: str) -> None:
    """Value and all first and second derivatives, of pairs with one, two and three edges."""
    generator = torch.Generator().manual_seed(0)
    pairs = index_of(torch.tensor([0, 1, 0, 2, 1, 3, 3, 3]), 4)
    senders, receivers = (index_of(torch.randint(5, (8,), generator=generator), 5) for _ in range(2))
    by_pair = Convolution("3x0e+3x1o", "1x0e+1x1o", "0e+1o", backend=backend, by_pair=True)
    by_edge = Convolution("3x0e+3x1o", "1x0e+1x1o", "0e+1o", backend="torch")
    shapes = ((5, 12), (8, 4), (4, by_pair.weight_numel))
    x, y, w = (torch.randn(*s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes)
    found = []
    for o in (by_pair(x, y, w, senders, receivers, pairs), by_edge(x, y, w[pairs.values], senders, receivers)):
        first = torch.autograd.grad(o.square().sum(), (x, y, w), create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), (x, y, w))
        found.append((o, *first, *second))
    for ours, meant in zip(*found, strict=True):
        torch.testing.assert_close(ours, meant, rtol=1e-12, atol=1e-12)
    with pytest.raises(InputError, match="pairs"):
        by_pair(x, y, w, senders, receivers)
    with pytest.raises(InputError, match="4 weights"):
        by_pair(x, y, w[:3], senders, receivers, pairs)
