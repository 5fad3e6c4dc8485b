"""The GPU benchmark without a GPU: floors, graphs, peers, the table, and what it says where there is no device."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor

from irrepc.algebra.recipe import Recipe
from irrepc.commands import gpu, gpu_cases, gpu_networks
from irrepc.commands.bench_timing import Contender, Machine, check_equal, floor_seconds
from irrepc.commands.gpu_cases import convolution_recipe, symmetric_edges
from irrepc.commands.gpu_ceilings import SOURCE, Ceilings
from irrepc.commands.gpu_clock import Timing, Work
from irrepc.commands.gpu_counts import H200, Counts, counts, warps_at_once
from irrepc.commands.gpu_networks import REACH, crystal
from irrepc.commands.gpu_parts import Found, Record, read_record, run_apart, run_part, write_record
from irrepc.commands.gpu_peers import cu_equivariance
from irrepc.commands.gpu_predictions import goals, predictions
from irrepc.commands.gpu_report import heading, table
from irrepc.errors import BackendError, InputError, KernelError
from irrepc.models.nequip import NequIP, NequIPConfig
from irrepc.nn.graph import edge_vectors, index_of
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


def setting_of(root: Path) -> gpu.Setting:
    """Small sizes, records under a folder."""
    return gpu.Setting((2,), ((10, 40),), 1, root, root / "records", root / "wheels")


def pytest_of(root: Path, body: str) -> tuple[str, ...]:
    """A checkout whose only test has this body, and the command that runs it."""
    folder = root / "tests" / "gpu"
    folder.mkdir(parents=True, exist_ok=True)
    (root / "pytest.ini").write_text("[pytest]\nmarkers = gpu\n")
    (folder / "test_small.py").write_text(f"import pytest\n@pytest.mark.gpu\ndef test_it():\n    {body}\n")
    return (sys.executable, *gpu.TESTS, "gpu", "tests/gpu/test_small.py")


def test_a_test_that_fails_fails_its_part(tmp_path: Path) -> None:
    setting = setting_of(tmp_path)
    command = pytest_of(tmp_path, "assert 1 + 1 == 3, 'as it should'")
    with pytest.raises(KernelError, match=r"tests: got exit status 1; [\s\S]*as it should"):
        list(gpu.run_tests(command, setting))
    (found,) = gpu.run_tests(pytest_of(tmp_path, "assert 1 + 1 == 2"), setting)
    assert "1 passed" in found.lines[0]


def test_the_sanitizer_runs_tests_without_a_caching_allocator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sanitizer").write_text('#!/bin/sh\ntest "$2" = racecheck || exit 8\nshift 6\nexec "$@"\n')
    (tmp_path / "sanitizer").chmod(0o755)
    body = "import os\n    assert os.environ['PYTORCH_NO_CUDA_MEMORY_CACHING'] == '1'"
    pytest_of(tmp_path, body)
    monkeypatch.setattr(gpu, "FEW", "test_it")
    monkeypatch.setattr("shutil.which", lambda _: str(tmp_path / "sanitizer"))
    (found,) = gpu.sanitize("racecheck", setting_of(tmp_path))
    assert found.lines[0].startswith("racecheck: Tests, `-q")
    assert "1 passed" in found.lines[0]
    with pytest.raises(KernelError, match="exit status 8"):
        list(gpu.sanitize("memcheck", setting_of(tmp_path)))
    monkeypatch.setattr("shutil.which", lambda _: None)
    (found,) = gpu.sanitize("racecheck", setting_of(tmp_path))
    assert "compute-sanitizer is not there" in found.lines[0]


def test_tests_that_are_all_skipped_fail_their_part(tmp_path: Path) -> None:
    """A device that torch does not see in the other process must not pass for a device that passed."""
    with pytest.raises(KernelError, match="expected some tests to pass"):
        list(gpu.run_tests(pytest_of(tmp_path, "pytest.skip('gpu: no device')"), setting_of(tmp_path)))


def test_a_part_keeps_what_it_found_before_it_failed(tmp_path: Path) -> None:
    def steps() -> Iterator[Found]:
        yield Found(("one",), (("a case", "forward", "irrepc cuda", 2.0),))
        kept = read_record(tmp_path, "part")
        assert kept is not None
        assert (kept.state, kept.lines) == ("running", ("one",))
        raise RuntimeError("an illegal address")

    record = run_part("part", steps, tmp_path)
    assert record == read_record(tmp_path, "part")
    assert record.state == "failed"
    assert "an illegal address" in record.error
    assert record.times == (("a case", "forward", "irrepc cuda", 2.0),)
    assert run_part("part", lambda: [Found(("two",))], tmp_path).lines == ("two",)
    assert [p.name for p in tmp_path.iterdir()] == ["part.json"]


@pytest.mark.parametrize(
    ("program", "said"),
    [("import os; os.abort()", "ended with -6"), ("import time; time.sleep(60)", "took more than 1 s")],
)
def test_a_process_that_dies_or_hangs_is_a_part_that_failed(program: str, said: str, tmp_path: Path) -> None:
    write_record(tmp_path, Record("part", "running", 3.0, lines=("found",)))
    record = run_apart("part", (sys.executable, "-c", program), tmp_path, tmp_path, limit=1)
    assert (record.state, record.lines) == ("failed", ("found",))
    assert said in record.error


def test_all_parts_run_go_on_after_a_failure_and_are_put_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script that fails in one part; times that are known stand beside the predictions."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom irrepc.commands.gpu_parts import Found, run_part\n"
        "name, folder = sys.argv[2], Path(sys.argv[3])\n"
        "goal = ('convolution, lmax 2, C = 128, 10,000 nodes, 500,000 edges', 'forward', 'irrepc cuda', 0.987)\n"
        "def steps():\n"
        "    if name == 'ceilings': raise ValueError('as it should')\n"
        "    yield Found((f'of {name}',), (goal,))\n"
        "run_part(name, steps, folder)\n"
    )
    monkeypatch.setattr(gpu, "find_device", lambda: CPU)
    monkeypatch.setattr(gpu, "compiled_resources", lambda found: {})
    setting, out = setting_of(Path.cwd()), io.StringIO()
    setting = replace(setting, folder=tmp_path / "records")
    names = ("ceilings", "convolution-lmax2")
    for _ in range(2):
        text = gpu.run_all(names, script, (str(setting.folder),), setting, Console(file=out))
    said = out.getvalue()
    assert said.count("ceilings: failed") == 2, "what failed runs again"
    assert said.count("convolution-lmax2: done in") == said.count("convolution-lmax2: done before") == 1
    assert "ValueError: as it should" in text
    assert "of convolution-lmax2" in text
    assert "Part «harmonics»: not yet run on a GPU." in text
    (line,) = (line for line in text.splitlines() if "| cuda |" in line and "lmax 2" in line and "0.987" in line)
    assert "500,000 edges | forward" in line


def test_every_part_has_a_name_of_its_own_and_takes_a_setting() -> None:
    made = gpu.parts()
    assert len(made) == 24 - 3
    assert {"predictions", "tests-lmax4", "racecheck", "convolution-lmax3", "networks-100000"} < set(made)


def test_peers_without_wheels_are_left_out(tmp_path: Path) -> None:
    (found,) = gpu.install_peers(setting_of(tmp_path))
    assert found.lines == ("Peers: no wheels in wheels; those that are installed take part.",)


# ── predictions ──────────────────────────────────────────────────────────────────────────────────


def large(lmax: int, *, atomic: bool = False) -> tuple[tuple[Counts, ...], ...]:
    """The launches of a convolution with 500,000 edges, 10,000 nodes, C = 128."""
    sizes = {"sender": 10_000, "receiver": 10_000}
    return counts(convolution_recipe(lmax), 500_000, sizes, {"u": 128}, H200, atomic=atomic)


@pytest.mark.parametrize(("lmax", "moved"), [(1, 2187), (2, 6099)])
def test_bytes_of_a_forward_launch_are_those_counted_by_hand(lmax: int, moved: int) -> None:
    """By hand without harmonics, which were made in the kernel, but with a vector and one more index for each edge."""
    ((forward,), *_) = large(lmax)
    harmonics = 4 * (lmax + 1) ** 2 + 8 - 12
    assert forward.memory / 500_000 == pytest.approx(moved + harmonics, rel=0.02)


def test_arithmetic_is_near_what_machine_code_was_counted_to_do() -> None:
    """131 and 236 instructions an edge and channel at lmax 2 for the value and for d_y, d_w: from disassembly."""
    ((forward,), *_) = large(2)
    assert forward.operations / 500_000 / 128 == pytest.approx(131, rel=0.15)


def test_rows_written_and_added_up_move_less_than_reading_again() -> None:
    in_order, atomic = (sum(c.seconds(H200) for c in large(2, atomic=a)[1]) for a in (False, True))
    assert atomic < in_order < 2.67e-3, "with two launches that each read weights and messages it was 3.6 ms"


@pytest.mark.parametrize(
    ("registers", "shared", "warps"),
    [(32, 0, 64), (72, 0, 28), (128, 0, 16), (168, 0, 12), (255, 0, 8), (32, 33_792, 24)],
)
def test_warps_at_once(registers: int, shared: int, warps: int) -> None:
    """The first five as the occupancy calculator has them for compute capability 9.0; 33 kB fit six times."""
    assert warps_at_once(registers, shared) == warps


def test_targets_without_a_run_say_so() -> None:
    found = [g for g in goals() if g.lmax == 2 and g.edges == 500_000]
    lines = list(predictions(found, {}, {}))
    assert all(line.endswith("| not yet run on a GPU |") for line in lines[6:])
    assert len({line.count("|") for line in lines[4:]}) == 1
    forward = next(line for line in lines if "| forward | cuda |" in line)
    assert "| 1 | - | 1 | 1.00 | 0.97 |" in forward


def test_crystals_have_the_neighbours_of_copper() -> None:
    graph = crystal(3, CPU)
    assert (graph.num_atoms, graph.num_edges) == (108, 108 * 42)
    r = edge_vectors(graph).norm(dim=1)
    assert 2.3 < float(r.min()) < float(r.max()) < REACH


def test_networks_run_at_every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_networks, "BACKENDS", ("torch", "torch"))
    monkeypatch.setattr(gpu_networks, "CELLS", {1: 3})
    few = {"NequIP": lambda backend: NequIP(NequIPConfig((29,), REACH, layers=2, lmax=1, features=(4, 4)), backend)}
    monkeypatch.setattr(gpu_networks, "NETWORKS", few)
    (measured,) = gpu_networks.measure_networks(1, 1, stub, CPU)
    assert measured.title == "NequIP: 108 atoms, 4,536 edges"
    assert gpu.told(measured).times[0] == (measured.title, "energy + forces", "irrepc torch", 2.0)
    assert "| energy + forces |  |  |  | 2 (2.5) | 2 (2.5) | - | - |" in "\n".join(table(measured))
