"""Why the llvm backend is fast, seen in its text and its machine code, and that rows written past the caches arrive."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache

import llvmlite.binding as llvm
import pytest
import torch

from irrepc.emit.llvm_text import STREAMED, llvm_function, llvm_head
from irrepc.emit.module import Entry, scheduled
from irrepc.ir.block import Block
from irrepc.nn.convolution import Convolution
from irrepc.nn.graph import index_of
from tests.kernels import convolution

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


def test_weights_of_splines_cost_their_multiply_adds() -> None:
    """Tables are not asked for ahead, for they stay in the caches; lanes of d_t are added up once for each B-spline."""
    recipe = replace(CONVOLUTION, weights="spline", terms=6)
    forward, derivative = (scheduled(Entry("kernel", recipe))[order][0] for order in (0, 1))
    plain = block(0, 0).cost["u",]
    assert forward.cost["u",].add - plain.add == 5 * len(recipe.paths)
    text = llvm_function("kernel", derivative, "float32")
    assert text.count("call void @llvm.prefetch") == 35, "the gradients at the receiver of a later edge"
    assert text.count("call reassoc nsz float @llvm.vector.reduce.fadd") == 6 + 9


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
