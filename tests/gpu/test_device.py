"""CUDA kernels among streams, graphs, threads, devices and torch.compile; and the same bits every time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from irrepc.commands.gpu_networks import NETWORKS, crystal
from irrepc.models.potential import energy_and_forces
from irrepc.models.replay import Replay
from irrepc.nn.convolution import Convolution
from irrepc.nn.graph import Index, index_of
from irrepc.runtime.load import load
from irrepc.runtime.nvrtc import launcher
from tests.gpu.orders import CUDA, Problem, convolution

pytestmark = pytest.mark.gpu

NODES, EDGES, CHANNELS = 101, 3001, 64


def problem(dtype: torch.dtype = torch.float32, device: torch.device = CUDA) -> Problem:
    """The convolution to degree 2 on a random graph."""
    return Problem(
        convolution(2), dtype, EDGES, {"sender": NODES, "receiver": NODES}, {"u": CHANNELS}, device=device
    )


def test_auto_takes_cuda() -> None:
    p = problem()
    for a, b in zip(
        p.run(load(p.recipe, "auto"), torch.float32), p.run(load(p.recipe, "cuda"), torch.float32), strict=True
    ):
        assert torch.equal(a, b)


def test_every_order_gives_the_same_bits_again() -> None:
    p = problem()
    kernel = load(p.recipe, "cuda")
    first = p.run(kernel, torch.float32)
    for _ in range(5):
        assert all(torch.equal(a, b) for a, b in zip(first, p.run(kernel, torch.float32), strict=True))


def test_two_streams_at_once() -> None:
    """Work on a stream sees what this stream wrote before, and neither disturbs the other."""
    p = problem()
    kernel = load(p.recipe, "cuda")
    x, y, w = p.inputs
    expected = [kernel(s * x, y, w, *p.indices, CHANNELS) for s in (1.0, 2.0)]
    streams = [torch.cuda.Stream() for _ in range(2)]
    torch.cuda.synchronize()
    found: list[list[Tensor]] = [[], []]
    for _ in range(20):
        for number, stream in enumerate(streams):
            with torch.cuda.stream(stream):
                # a long write before the kernel: launched on another stream it would read what is not there yet
                scaled = torch.zeros_like(x)
                torch.cuda._sleep(200_000)
                scaled.add_(x, alpha=number + 1.0)
                found[number].append(kernel(scaled, y, w, *p.indices, CHANNELS))
    torch.cuda.synchronize()
    for outputs, wanted in zip(found, expected, strict=True):
        assert all(torch.equal(o, wanted) for o in outputs)


def test_a_fresh_thread_has_a_context() -> None:
    p = problem()
    kernel = load(p.recipe, "cuda")
    expected = p.run(kernel, torch.float32)
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(lambda _: p.run(kernel, torch.float32), range(8)):
            assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_a_graph_replays_with_changed_inputs() -> None:
    p = problem()
    kernel = load(p.recipe, "cuda")
    leaves = tuple(t.clone().requires_grad_() for t in p.inputs)

    def step() -> tuple[Tensor, ...]:
        value = kernel(*leaves, *p.indices, CHANNELS)
        return (value, *torch.autograd.grad((value**2).sum(), leaves))

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for scale in (1.0, -2.0, 0.5):
        with torch.no_grad():
            for leaf, t in zip(leaves, p.inputs, strict=True):
                leaf.copy_(scale * t)
        graph.replay()
        for a, b in zip(captured, step(), strict=True):
            assert torch.equal(a, b)


@pytest.mark.filterwarnings("ignore:The CUDA Graph is empty")  # the capture ends before anything is launched
def test_a_first_call_during_capture_says_what_to_do() -> None:
    source = 'extern "C" __global__ void never_called_before(float* a) { a[0] = 1; }\n'
    graph = torch.cuda.CUDAGraph()
    with pytest.raises(RuntimeError, match="call once before the capture"), torch.cuda.graph(graph):
        launcher(source, "never_called_before", (), torch.cuda.current_device())


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
@pytest.mark.filterwarnings("ignore")  # of inductor
def test_compiles_whole_forward_and_backward(mode: str) -> None:
    p = problem()
    kernel = load(p.recipe, "cuda")

    def f(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        value: Tensor = kernel(2 * x, y, w, *p.indices, CHANNELS)
        return value

    compiled = torch.compile(f, fullgraph=True, mode=mode)
    leaves = tuple(t.clone().requires_grad_() for t in p.inputs)
    for _ in range(4):
        expected = torch.autograd.grad((f(*leaves) ** 2).sum(), leaves)
        got = torch.autograd.grad((compiled(*leaves) ** 2).sum(), leaves)
        for a, b in zip(got, expected, strict=True):
            assert torch.allclose(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max()))


def test_a_layer_moves_between_devices() -> None:
    generator = torch.Generator().manual_seed(0)
    layer = Convolution("8x0e+8x1o+8x2e", "1x0e+1x1o+1x2e")
    x, y, w = (torch.randn(*s, generator=generator) for s in ((9, 72), (40, 9), (40, layer.weight_numel)))
    rows = [index_of(torch.randint(9, (40,), generator=generator), 9) for _ in range(2)]
    on_cpu = layer(x, y, w, *rows)
    on_cuda = layer.to(CUDA)(*(t.to(CUDA) for t in (x, y, w)), *(r.to(CUDA) for r in rows))
    assert on_cuda.device.type == "cuda"
    assert torch.allclose(on_cuda.cpu(), on_cpu, rtol=1e-5, atol=1e-5)


def test_operands_on_two_devices_are_refused() -> None:
    p = problem()
    x, y, w = p.inputs
    with pytest.raises(ValueError, match="got y on cpu; expected cuda:0 for all operands"):
        load(p.recipe, "cuda")(x, y.cpu(), w, *p.indices, CHANNELS)
    with pytest.raises(ValueError, match="expected a CUDA tensor"):
        on_cpu = tuple(Index(*(t.cpu() for t in i)) for i in p.indices)
        load(p.recipe, "cuda")(x.cpu(), y.cpu(), w.cpu(), *on_cpu, CHANNELS)


def test_another_device_than_the_current_one() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("gpu: one device here; expected two")
    p, other = problem(), problem(device=torch.device("cuda", 1))
    kernel = load(p.recipe, "cuda")
    for a, b in zip(p.run(kernel, torch.float32), other.run(kernel, torch.float32), strict=True):
        assert torch.allclose(a.cpu(), b.cpu(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", ["cuda", "cuda-atomic"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_whole_step_replays_on_new_positions(name: str, backend: str) -> None:
    graph = crystal(3, CUDA)
    model = NETWORKS[name](backend).to(CUDA).requires_grad_(False)
    replay = Replay(model, graph)
    for shift in (0.0, 0.05, -0.02):
        moved = graph._replace(positions=graph.positions + shift * torch.sin(3 * graph.positions))
        got, expected = replay(moved), energy_and_forces(model, moved)
        # gathers are added up by atomics of torch in their gradients, so that the last digits differ
        scale = float(expected.forces.abs().max())
        assert torch.allclose(got.forces, expected.forces, atol=1e-4 * scale)
        assert torch.allclose(got.energies, expected.energies, rtol=1e-4, atol=1e-4)


def test_sums_in_any_order_are_right() -> None:
    p = problem()
    in_order, atomic = load(p.recipe, "cuda"), load(p.recipe, "cuda-atomic")
    for a, b in zip(p.run(in_order, torch.float32), p.run(atomic, torch.float32), strict=True):
        assert float((a - b).abs().max()) <= 4e-6 * float(a.abs().max())
