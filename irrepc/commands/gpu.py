"""GPU: correctness first, then the device's ceilings, then our kernels and the peers' on the same tensors, in parts."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from irrepc.commands.bench_timing import Contender, check_equal
from irrepc.commands.gpu_cases import (
    Contest,
    contraction_contest,
    convolution_contest,
    harmonics_contest,
)
from irrepc.commands.gpu_ceilings import Ceilings, measure_ceilings
from irrepc.commands.gpu_clock import Timing, Work, copies, time_work
from irrepc.commands.gpu_networks import CELLS, measure_networks
from irrepc.commands.gpu_parts import DONE, Found, Record, Result, again, read_record, run_apart
from irrepc.commands.gpu_predictions import NOT_RUN, compiled_resources, goals, predictions
from irrepc.commands.gpu_report import Measured, Row, heading, table
from irrepc.errors import BackendError, KernelError
from irrepc.runtime.nvrtc import find_nvrtc

TESTS = ("-m", "pytest", "-q", "--no-header", "-m")
TOOLS = ("memcheck", "racecheck")
FEW = "test_every_kind_of_kernel and f32 or test_any_number_of_channels and 5"
"""What the sanitizer runs, some fifty times slower than without it."""
SIZES = ((10_000, 500_000), (3_000, 160_000), (500, 25_000))
CHANNELS = (64, 128)
DEGREES = (1, 2, 3)
Timer = Callable[[Sequence[Work], int], Timing]


@dataclass(frozen=True, slots=True)
class Setting:
    """What is asked for.

    root     the checkout, whose tests/gpu are run
    folder   where the parts' records are kept
    wheels   a folder with wheels of peers, installed beside the records for this benchmark alone
    """

    channels: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]
    repeats: int
    root: Path
    folder: Path
    wheels: Path


Steps = Callable[[Setting], Iterable[Found]]
Contests = Callable[[Setting, Ceilings, torch.device], Iterable[Contest]]


def parts() -> dict[str, Steps]:
    """Every part by name, in order; each takes less than ten minutes."""
    made: dict[str, Steps] = {"peers": install_peers, "predictions": no_device_needed, "ceilings": ceilings_part}
    sizes = "tests/gpu/test_sizes.py"
    for name, chosen in (
        ("tests-small", ("gpu and not slow", "tests/gpu/test_small.py")),
        ("tests-device", ("gpu and not slow", "tests/gpu/test_device.py")),
        ("tests-sizes", ("gpu and not slow", sizes, "-k", "not convolution")),
        *((f"tests-lmax{l}", ("gpu", sizes, "-k", f"convolution and lmax{l}")) for l in range(1, 5)),
        ("tests-slow", ("gpu and slow", "tests/gpu")),
    ):
        made[name] = partial(run_tests, (sys.executable, *TESTS, *chosen))
    made |= {tool: partial(sanitize, tool) for tool in TOOLS}
    made |= {f"convolution-lmax{lmax}": partial(timed, partial(convolutions, lmax)) for lmax in DEGREES}
    made |= {"harmonics": partial(timed, harmonics), "contraction": partial(timed, contractions)}
    made |= {f"networks-{atoms}": partial(networks, atoms) for atoms in CELLS}
    return made


def run_all(names: Sequence[str], script: Path, options: Sequence[str], setting: Setting, console: Console) -> str:
    """Run parts that are not done yet, each in a process of its own; returns the report of all of them.

    Raises BackendError without a device.
    """
    find_device()
    for name in names:
        kept = read_record(setting.folder, name)
        if kept is not None and kept.state == DONE:
            console.print(f"{name}: done before", highlight=False)
            continue
        record = run_apart(name, again(script, name, options), setting.folder, setting.root)
        said = f": {record.error.splitlines()[-1]}" if record.error else ""
        console.print(f"{name}: {record.state} in {record.seconds:.0f} s{said}", highlight=False, markup=False)
    return report(setting.folder)


def report(folder: Path) -> str:
    """What the records of a folder say, as Markdown: predictions beside what was measured, then part after part."""
    records = {name: read_record(folder, name) for name in parts()}
    found = tuple(goals())
    times = {(case, phase, who): ms for r in records.values() if r is not None for case, phase, who, ms in r.times}
    lines = [*predictions(found, times, compiled_resources(found)), ""]
    for name, record in records.items():
        lines += [*_told(name, record), ""]
    return "\n".join(lines)


def _told(name: str, record: Record | None) -> Iterator[str]:
    if record is None:
        yield f"Part «{name}»: {NOT_RUN}."
        return
    if record.state != DONE:
        yield f"Part «{name}» {record.state} after {record.seconds:.0f} s:"
        yield ""
        yield from ("```", *record.error.splitlines(), "```", "")
    yield from record.lines or (f"Part «{name}»: {record.state}.",)


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


# ── parts ────────────────────────────────────────────────────────────────────────────────────────


def install_peers(setting: Setting) -> Iterator[Found]:
    """Wheels of peers into a folder beside the records, for benchmarks alone."""
    wheels = sorted(setting.wheels.glob("*.whl"))
    if not wheels:
        yield Found((f"Peers: no wheels in {setting.wheels.name}; those that are installed take part.",))
        return
    target = peers_folder(setting.folder)
    command = (sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--target", str(target))
    _finish("peers", (*command, *map(str, wheels)), setting.root)
    yield Found((f"Peers: {', '.join(w.name for w in wheels)}.",))


def peers_folder(folder: Path) -> Path:
    """Where peers are installed."""
    return folder / "peers"


def no_device_needed(setting: Setting) -> Iterator[Found]:
    """The kernels of all goals compiled, whose registers stand beside the predictions."""
    yield Found((f"Compiled for predictions: {len(compiled_resources(tuple(goals())))} kernels.",))


def run_tests(command: Sequence[str], setting: Setting) -> Iterator[Found]:
    """Tests marked `gpu`; raises KernelError when one fails or none passes."""
    said = _finish("tests", command, setting.root)
    summary = said.splitlines()[-1].strip("= ") if said.strip() else "nothing"
    if "passed" not in summary:
        raise KernelError(f"tests: got {summary!r}; expected some tests to pass\n{said}")
    yield Found((f"Tests, `{' '.join(command[command.index('pytest') + 1 :])}`: {summary}.",))


def sanitize(tool: str, setting: Setting) -> Iterator[Found]:
    """Some of the small tests under a tool of compute-sanitizer, where that is there."""
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        yield Found((f"{tool}: not run, compute-sanitizer is not there.",))
        return
    # Torch's own allocator hands out pieces of large blocks, past the end of which a tool would see no mistake.
    head = ("env", "PYTORCH_NO_CUDA_MEMORY_CACHING=1", sanitizer, "--tool", tool, "--error-exitcode", "9")
    every = ("--target-processes", "all")
    (found,) = run_tests((*head, *every, sys.executable, *TESTS, "gpu", "tests/gpu/test_small.py", "-k", FEW), setting)
    yield Found((f"{tool}: {found.lines[0]}",))


def ceilings_part(setting: Setting) -> Iterator[Found]:
    """The device and what it does at best."""
    found = measure_ceilings(find_device(), setting.repeats)
    yield Found((*heading(found, find_nvrtc().version), ""))


def timed(contests: Contests, setting: Setting) -> Iterator[Found]:
    """Contests one after the other."""
    device = find_device()
    ceilings = measure_ceilings(device, setting.repeats)
    for contest in contests(setting, ceilings, device):
        yield told(measure(contest, setting.repeats, time_work, copies))
        torch.cuda.empty_cache()


def convolutions(lmax: int, setting: Setting, ceilings: Ceilings, device: torch.device) -> Iterator[Contest]:
    """Every size and width of a degree; each is made when it is its turn, since some take most of the memory."""
    for nodes, edges in setting.sizes:
        for count in setting.channels:
            yield convolution_contest(lmax, count, nodes, edges, ceilings, device)


def harmonics(setting: Setting, ceilings: Ceilings, device: torch.device) -> Iterator[Contest]:
    """Every degree, as many vectors as the largest graph has edges."""
    for lmax in DEGREES:
        yield harmonics_contest(lmax, setting.sizes[0][1], ceilings, device)


def contractions(setting: Setting, ceilings: Ceilings, device: torch.device) -> Iterator[Contest]:
    """Every degree, as many rows as the largest graph has nodes."""
    for lmax in DEGREES:
        yield contraction_contest(lmax, 3, setting.channels[-1], setting.sizes[0][0], ceilings, device)


def networks(atoms: int, setting: Setting) -> Iterator[Found]:
    """Whole networks at a size."""
    for measured in measure_networks(atoms, setting.repeats, time_work, find_device()):
        yield told(measured)
        torch.cuda.empty_cache()


def told(measured: Measured) -> Found:
    """A case as lines and times."""
    times: list[Result] = []
    for row in measured.rows:
        for name, timing in zip(measured.contenders, row.timings, strict=True):
            if isinstance(timing, Timing):
                times.append((measured.title, row.phase, name, timing.best))
    return Found((*table(measured), ""), tuple(times))


def _finish(name: str, command: Sequence[str], root: Path) -> str:
    """Run a command to its end; raises KernelError, with what it said last, for another exit status than 0."""
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-60:])
        raise KernelError(f"{name}: got exit status {done.returncode}; expected 0\n{said}")
    return done.stdout


# ── measurements ─────────────────────────────────────────────────────────────────────────────────


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
