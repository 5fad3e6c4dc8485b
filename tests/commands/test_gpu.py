"""The GPU benchmark without a GPU: floors, graphs, peers, the table, and what it says where there is no device."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor

from irrepc.algebra.recipe import Recipe
from irrepc.commands import gpu, gpu_cases
from irrepc.commands.bench_timing import Contender, Machine, check_equal, floor_seconds
from irrepc.commands.gpu_cases import convolution_recipe, symmetric_edges
from irrepc.commands.gpu_ceilings import SOURCE, Ceilings
from irrepc.commands.gpu_clock import Timing, Work
from irrepc.commands.gpu_peers import cu_equivariance
from irrepc.commands.gpu_report import heading, table
from irrepc.errors import BackendError, InputError, KernelError
from irrepc.nn.graph import index_of
from irrepc.runtime.load import load
from irrepc.runtime.nvrtc import CudaError, compile_source, find_nvrtc
from tests.gpu import orders
from tests.gpu.orders import Problem, poisoned
from tests.kernels import EXTENTS, RECIPES

CPU = torch.device("cpu")
CEILINGS = Ceilings("a device", (9, 0), 4.3e12, 5.5e12, 8e12, 67e12, 5e-6)


@pytest.mark.parametrize(
    ("lmax", "paths", "forward", "forces", "cached"),
    [(1, 4, 0.254, 0.753, 0.39), (2, 11, 0.709, 2.085, 0.97), (3, 23, 1.508, 4.406, 1.92)],
)
def test_floors_are_those_worked_out_by_hand(
    lmax: int, paths: int, forward: float, forces: float, cached: float
) -> None:
    """500,000 edges, 10,000 nodes, C = 128: bytes counted by hand, at 4.3 TB/s and 5.5 TB/s through the cache."""
    recipe = convolution_recipe(lmax)
    assert len(recipe.paths) == paths
    floors = floor_seconds(recipe, 500_000, 10_000, {"u": 128}, Machine(CEILINGS.copied, CEILINGS.flops))
    assert 1e3 * floors[0] == pytest.approx(forward, rel=0.02)
    assert 1e3 * floors[1] == pytest.approx(forces, rel=0.02)
    # by hand the outputs were counted, too
    assert 1e3 * gpu_cases.cached_seconds(recipe, lmax, 500_000, 128, CEILINGS) == pytest.approx(cached, rel=0.06)


def test_graphs_are_symmetric_sorted_and_simple() -> None:
    senders, receivers = symmetric_edges(30, 200, torch.Generator().manual_seed(0))
    edges = list(zip(receivers.tolist(), senders.tolist(), strict=True))
    assert len(edges) == len(set(edges)) == 200
    assert edges == sorted(edges)
    assert {(j, i) for i, j in edges} == set(edges)
    assert all(i != j for i, j in edges)
    with pytest.raises(InputError, match="got 90 edges of 10 nodes"):
        symmetric_edges(10, 90, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("lmax", [1, 2])
def test_cu_equivariance_computes_the_same_on_our_tensors(lmax: int) -> None:
    pytest.importorskip("cuequivariance_torch")
    recipe, channels = convolution_recipe(lmax), 3
    generator = torch.Generator().manual_seed(0)
    senders, receivers = (index_of(rows, 12) for rows in symmetric_edges(12, 40, generator))
    width = (lmax + 1) ** 2
    shapes = ((12, width * channels), (40, width), (40, len(recipe.paths) * channels))
    inputs = tuple(torch.randn(s, dtype=torch.float64, generator=generator) for s in shapes)
    kernel = load(recipe, "torch")
    ours = Contender("ours", lambda *t: kernel(*t, senders, receivers, channels), inputs, 3)
    (peer,) = cu_equivariance(recipe, inputs, senders, receivers, channels, "naive")
    check_equal("convolution", [ours, peer])


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_kernels_of_the_ceilings_compile_without_spills(
    arch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IRREPC_CACHE", str(tmp_path))
    try:
        find_nvrtc()
    except CudaError as error:
        pytest.skip(str(error))
    resources = compile_source(SOURCE, (), arch).resources
    assert set(resources) == {"gather", "multiply_add", "nothing"}
    for taken in resources.values():
        assert (taken.spill_stores, taken.stack) == (0, 0)
        assert taken.registers <= 64


def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the torch text stand in for the CUDA kernels, and small graphs for large ones."""
    monkeypatch.setattr(gpu_cases, "BACKENDS", ("torch", "torch"))
    monkeypatch.setattr(gpu_cases, "CHECKED", (8, 20))


def stub(works: list[Work], repeats: int) -> Timing:
    """Run everything once; say two milliseconds."""
    for work in works:
        work()
    return Timing(2.0, 2.5 * repeats)


def once(tensors: tuple[Tensor, ...]) -> list[tuple[Tensor, ...]]:
    return [tensors]


Make = Callable[[], gpu_cases.Contest]


@pytest.mark.parametrize(
    "make",
    [
        lambda: gpu_cases.convolution_contest(1, 2, 10, 40, CEILINGS, CPU),
        lambda: gpu_cases.harmonics_contest(2, 30, CEILINGS, CPU),
        lambda: gpu_cases.contraction_contest(1, 2, 2, 30, CEILINGS, CPU),
    ],
    ids=["convolution", "harmonics", "contraction"],
)
@pytest.mark.filterwarnings("ignore")  # of peers
def test_every_phase_of_a_case_runs_and_stands_in_the_table(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    on_cpu(monkeypatch)
    measured = gpu.measure(make(), 3, stub, once)
    assert [row.phase for row in measured.rows] == list(gpu_cases.PHASES)
    assert all(row.timings[0] == Timing(2.0, 7.5) for row in measured.rows)
    assert all(row.floor > 0 for row in measured.rows)
    lines = list(table(measured))
    assert lines[0] == f"### {measured.title}"
    assert len({line.count("|") for line in lines[2:7]}) == 1
    assert "| 2 (7.5) |" in lines[4]


def test_a_contender_that_computes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    on_cpu(monkeypatch)
    case = gpu_cases.harmonics_contest(2, 30, CEILINGS, CPU)
    ours = case.checked[0]
    wrong = Contender("wrong", lambda r: 1.001 * ours.run(r), ours.inputs, 3)
    object.__setattr__(case, "checked", (ours, wrong))
    with pytest.raises(KernelError, match="got results of wrong that differ from irrepc torch"):
        gpu.measure(case, 3, stub, once)


def test_the_table_says_what_is_reached_and_what_failed() -> None:
    rows = (
        gpu.Row("forward", 1.0, 0.5, 1.2, (Timing(2.0, 3.0), Timing(None, 8.0, "no capture"), Timing(5.0, 6.0))),
        gpu.Row("train step", 1.0, 0.0, 0.0, (Timing(4.0, 5.0), "out of memory", "no such derivative")),
    )
    text = "\n".join(table(gpu.Measured("a case", ("irrepc cuda", "one", "two"), rows)))
    assert "| forward | 1 | 0.5 | 1.2 | 2 (3) | - (8) | 5 (6) | 50 % | 2.5x |" in text
    assert "| train step | 1 |  |  | 4 (5) | - | - | 25 % | - |" in text
    assert "no capture; out of memory; no such derivative" in text
    head = "\n".join(heading(CEILINGS, "13.0"))
    assert "| 4.30 TB/s | 5.50 TB/s | 8.00 TB/s | 67.0 Tflop/s | 5.0 µs |" in head


def test_the_checks_a_gpu_runs_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same checks on the CPU: llvm passes; a wrong digit and memory that is not written are found."""
    problem = Problem(RECIPES["convolution"], torch.float64, 9, {"sender": 4, "receiver": 3}, EXTENTS, device=CPU)
    problem.check("llvm")
    with poisoned():
        assert bool(torch.empty(3).isnan().all())
    for spoil in (lambda o: o * (1 + 1e-9), lambda o: torch.cat((o[:-1], torch.full_like(o[-1:], torch.nan)))):

        def spoiled(recipe: Recipe, backend: str, spoil: Callable[[Tensor], Tensor] = spoil) -> Callable[..., Tensor]:
            kernel = load(recipe, backend)
            return kernel if backend == "torch" else lambda *arguments: spoil(kernel(*arguments))

        monkeypatch.setattr(orders, "load", spoiled)
        with pytest.raises(AssertionError, match="of convolution"):
            problem.check("llvm")


def test_without_a_device_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(BackendError, match=r"made without CUDA; .* nothing was measured"):
        gpu.find_device()
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BackendError, match=r"got no CUDA device; .* nothing was measured"):
        gpu.find_device()


def test_a_test_that_fails_stops_the_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "tests" / "gpu"
    folder.mkdir(parents=True)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu\n")
    file = folder / "test_small.py"
    header = "import pytest\n@pytest.mark.gpu\ndef test_it():\n"
    file.write_text(header + "    assert 1 + 1 == 3, 'as it should'\n")
    monkeypatch.setattr("shutil.which", lambda _: None)
    console = Console(file=sys.stdout)
    with pytest.raises(KernelError, match=r"tests: got exit status 1; .* nothing was timed[\s\S]*as it should"):
        gpu.check_correctness(tmp_path, console)
    file.write_text(header + "    assert 1 + 1 == 2\n")
    gpu.check_correctness(tmp_path, console)


def test_a_run_that_skips_every_test_stops_the_benchmark(tmp_path: Path) -> None:
    """A device that torch does not see in the other process must not pass for a device that passed."""
    folder = tmp_path / "tests" / "gpu"
    folder.mkdir(parents=True)
    (folder / "test_small.py").write_text(
        "import pytest\n@pytest.mark.gpu\ndef test_it():\n    pytest.skip('gpu: no device')\n"
    )
    with pytest.raises(KernelError, match="expected some tests to pass"):
        gpu.check_correctness(tmp_path, Console(file=sys.stdout))
