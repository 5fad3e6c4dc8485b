"""GPU: correctness first, then the device's ceilings, then our kernels and the peers' on the same tensors."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from irrepc.commands.bench_timing import Contender, check_equal
from irrepc.commands.gpu_cases import Contest, contraction_contest, convolution_contest, harmonics_contest
from irrepc.commands.gpu_ceilings import Ceilings, measure_ceilings
from irrepc.commands.gpu_clock import Timing, Work, copies, time_work
from irrepc.commands.gpu_report import Measured, Row, heading, table
from irrepc.errors import BackendError, KernelError
from irrepc.runtime.nvrtc import find_nvrtc

TESTS = ("-m", "gpu", "-q", "--no-header", "tests/gpu")
SANITIZED = ("-m", "gpu", "-q", "--no-header", "tests/gpu/test_small.py")
TOOLS = ("memcheck", "racecheck")
SIZES = ((10_000, 500_000), (3_000, 160_000), (500, 25_000))
CHANNELS = (64, 128)
DEGREES = (1, 2, 3)
Timer = Callable[[Sequence[Work], int], Timing]


def gpu(
    degrees: Sequence[int],
    channels: Sequence[int],
    sizes: Sequence[tuple[int, int]],
    repeats: int,
    root: Path,
    console: Console,
) -> str:
    """Check and time everything on the current CUDA device; returns the report as Markdown.

    root  the checkout, whose tests/gpu are run first
    Raises BackendError without a device and KernelError when a test fails or a contender computes something else.
    """
    device = find_device()
    nvrtc = find_nvrtc()
    check_correctness(root, console)
    ceilings = measure_ceilings(device, repeats)
    lines = [*heading(ceilings, nvrtc.version), ""]
    console.print("\n".join(lines), markup=False, highlight=False)
    for contest in contests(degrees, channels, sizes, ceilings, device):
        measured = [*table(measure(contest, repeats, time_work, copies)), ""]
        console.print("\n".join(measured), markup=False, highlight=False)
        lines += measured
        torch.cuda.empty_cache()
    return "\n".join(lines)


def find_device() -> torch.device:
    """The current CUDA device; raises BackendError when there is none."""
    if torch.version.cuda is None:
        raise BackendError(
            f"gpu: got torch {torch.__version__}, made without CUDA; expected one made for it and an NVIDIA GPU; "
            "do: run this on such a computer; nothing was measured"
        )
    if not torch.cuda.is_available():
        raise BackendError(
            "gpu: got no CUDA device; expected an NVIDIA GPU with its driver; "
            "do: look at nvidia-smi, or run this elsewhere; nothing was measured"
        )
    return torch.device("cuda", torch.cuda.current_device())


def check_correctness(root: Path, console: Console) -> None:
    """The tests marked `gpu`; then the small ones again under every tool of compute-sanitizer, where that is there.

    Raises KernelError when one fails.
    """
    python = (sys.executable, "-m", "pytest")
    _run("tests", (*python, *TESTS), root, console)
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        console.print("memcheck and racecheck: not run, compute-sanitizer is not there", style="yellow")
        return
    for tool in TOOLS:
        command = (sanitizer, "--tool", tool, "--error-exitcode", "9", "--target-processes", "all", *python, *SANITIZED)
        _run(tool, command, root, console)


def _run(name: str, command: Sequence[str], root: Path, console: Console) -> None:
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-60:])
        raise KernelError(f"{name}: got exit status {done.returncode}; expected 0; nothing was timed\n{said}")
    summary = done.stdout.splitlines()[-1].strip("= ")
    if "passed" not in summary:
        raise KernelError(f"{name}: got {summary!r}; expected some tests to pass; nothing was timed\n{done.stdout}")
    console.print(f"{name}: {summary}", highlight=False)


def contests(
    degrees: Sequence[int],
    channels: Sequence[int],
    sizes: Sequence[tuple[int, int]],
    ceilings: Ceilings,
    device: torch.device,
) -> Iterator[Contest]:
    """What is timed; each is made when it is its turn, since some take most of the memory."""
    for nodes, edges in sizes:
        for lmax in degrees:
            for count in channels:
                yield convolution_contest(lmax, count, nodes, edges, ceilings, device)
    nodes, edges = sizes[0]
    for lmax in degrees:
        yield harmonics_contest(lmax, edges, ceilings, device)
    for lmax in degrees:
        yield contraction_contest(lmax, 3, channels[-1], nodes, ceilings, device)


def measure(
    contest: Contest, repeats: int, timer: Timer, copied: Callable[[tuple[Tensor, ...]], list[tuple[Tensor, ...]]]
) -> Measured:
    """Compare all contenders on the small problem, then time every phase of the large one.

    timer   how a list of calls is timed;  copied  the inputs -> copies that are cycled through
    """
    check_equal(contest.title, list(contest.checked))
    rows = []
    for phase, name in enumerate(contest.phases):
        timings: list[Timing | str] = []
        for contender in contest.contenders:
            if contender.orders <= phase:
                timings.append("no such derivative")
                continue
            try:
                works = [phase_work(contender, phase, inputs) for inputs in copied(contender.inputs)]
                timings.append(timer(works, repeats))
            except torch.OutOfMemoryError:
                timings.append("out of memory")
            except (RuntimeError, ValueError) as error:
                # A peer may know no second derivative; our own kernels have no such excuse.
                if not contender.is_peer:
                    raise
                timings.append(str(error).splitlines()[0])
        rows.append(Row(name, contest.floors[phase], contest.cached[phase], contest.targets[phase], tuple(timings)))
    return Measured(contest.title, tuple(c.name for c in contest.contenders), tuple(rows))


def phase_work(contender: Contender, phase: int, inputs: tuple[Tensor, ...]) -> Work:
    """A phase as a call without arguments, its cotangents made before the clock runs."""
    if phase == 0:

        def value() -> object:
            with torch.no_grad():
                return contender.run(*inputs)

        return value
    leaves = tuple(t.detach().requires_grad_() for t in inputs)
    with torch.no_grad():
        cotangent = torch.ones_like(contender.run(*inputs))
    if phase == 1:
        return lambda: torch.autograd.grad(contender.run(*leaves), leaves, cotangent)
    cotangent.requires_grad_()
    directions = [torch.ones_like(t) for t in leaves]

    def second() -> object:
        gradients = torch.autograd.grad(contender.run(*leaves), leaves, cotangent, create_graph=True)
        return torch.autograd.grad(gradients, (*leaves, cotangent), directions, allow_unused=True)

    return second
