"""GPU predictions: what a run is to show, and how long each case should take by what it moves and computes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from irrepc.commands.gpu_cases import PHASES, TARGETS, convolution_recipe, convolution_title
from irrepc.commands.gpu_counts import H100, H200, Counts, counts, warps_at_once
from irrepc.emit.cuda_module import cuda_text
from irrepc.emit.cuda_plan import Launch
from irrepc.runtime.nvrtc import CudaError, Resources, compile_source

NOT_RUN = "not yet run on a GPU"
ARCH = "sm_90"
LAUNCH = 2.5e-6
"""Seconds from one kernel to the next inside a CUDA graph, about: what small sizes cost beside their traffic."""
Times = Mapping[tuple[str, str, str], float]
"""Milliseconds measured: (case, phase, contender) -> best."""


@dataclass(frozen=True, slots=True)
class Goal:
    """A line of the table of targets: a convolution in float32 up to a phase; target in ms, 0 where there is none."""

    lmax: int
    nodes: int
    edges: int
    channels: int
    phase: int
    atomic: bool
    target: float

    @property
    def key(self) -> tuple[str, str, str]:
        """Under what its measured time is found."""
        contender = "irrepc cuda-atomic" if self.atomic else "irrepc cuda"
        return convolution_title(self.lmax, self.channels, self.nodes, self.edges), PHASES[self.phase], contender

    def launches(self) -> tuple[Counts, ...]:
        """What runs, in order, as an H100 would do it."""
        return tuple(c for order in _orders(self, H100.name)[: self.phase + 1] for c in order)

    def milliseconds(self, gpu: str) -> float:
        """What it should take."""
        each = [c.seconds(GPUS[gpu]) for order in _orders(self, gpu)[: self.phase + 1] for c in order]
        return 1e3 * (sum(each) + LAUNCH * len(each))


GPUS = {gpu.name: gpu for gpu in (H100, H200)}


def goals() -> Iterator[Goal]:
    """The targets of convolutions, large and small."""
    for nodes, edges in ((10_000, 500_000), (500, 25_000)):
        for lmax in (1, 2, 3):
            for phase in range(len(PHASES)):
                for atomic in (False, True) if phase else (False,):
                    target = TARGETS.get((lmax, phase), 0.0) if edges == 500_000 else 0.0
                    yield Goal(lmax, nodes, edges, 128, phase, atomic, target)


def predictions(found: Sequence[Goal], times: Times, resources: Mapping[str, Resources]) -> Iterator[str]:
    """The table of targets as Markdown, with what was measured or a mark that nothing was.

    resources  what kernels take, by name and degree («2 convolution_o»)
    """
    yield "## Predictions and targets"
    yield ""
    yield (
        "Milliseconds, C = 128, float32. A launch takes as long as the slowest of: what crosses to device memory at "
        f"92 % of its rate by data sheet ({_rates()}), what crosses the second-level cache at 5.5 TB/s (assumed), and "
        "its arithmetic at one instruction for each multiply-add and 1.35 for each of these; launches follow each "
        f"other after {1e6 * LAUNCH:.1f} µs. Latencies are not in it. «Registers»: the most of a thread among the "
        f"launches, compiled for {ARCH}, and how many warps a multiprocessor then holds. Targets are of an H200."
    )
    yield ""
    names = " | ".join(GPUS)
    yield f"| case | what | backend | launches | registers (warps) | target | {names} | measured |"
    yield f"|---|---|---|---:|---:|---:|{'---:|' * len(GPUS)}---:|"
    for goal in found:
        title, phase, contender = goal.key
        run = goal.launches()
        known = [resources[f"{goal.lmax} {c.launch.name}"] for c in run if f"{goal.lmax} {c.launch.name}" in resources]
        taken = "-"
        if known:
            most = max(known, key=lambda r: r.registers)
            taken = f"{most.registers} ({warps_at_once(most.registers, most.shared)})"
        predicted = " | ".join(f"{goal.milliseconds(gpu):.2f}" for gpu in GPUS)
        measured = f"{times[goal.key]:.3g}" if goal.key in times else NOT_RUN
        target = f"{goal.target:g}" if goal.target else ""
        backend = contender.removeprefix("irrepc ")
        yield f"| {title} | {phase} | {backend} | {len(run)} | {taken} | {target} | {predicted} | {measured} |"


def compiled_resources(found: Sequence[Goal]) -> dict[str, Resources]:
    """What the kernels of these goals take in float32 on compute capability 9.0; none where NVRTC is not there."""
    out: dict[str, Resources] = {}
    for goal in found:
        for c in goal.launches():
            name = f"{goal.lmax} {c.launch.name}"
            if name not in out:
                try:
                    out[name] = _compiled(c.launch, goal.channels)
                except CudaError:
                    return {}
    return out


def _compiled(launch: Launch, channels: int) -> Resources:
    macros = {"REAL": "float", "PACK": str(launch.pack), f"WITH_{launch.name}": "1"}
    macros |= {f"CHANNELS_{a.upper()}": str(channels) for a in launch.kernel.channels}
    return compile_source(cuda_text((launch,), []), tuple(macros.items()), ARCH).resources[launch.name]


@lru_cache(maxsize=256)
def _orders(goal: Goal, gpu: str) -> tuple[tuple[Counts, ...], ...]:
    sizes = {"sender": goal.nodes, "receiver": goal.nodes}
    recipe = convolution_recipe(goal.lmax)
    return counts(recipe, goal.edges, sizes, {"u": goal.channels}, GPUS[gpu], atomic=goal.atomic)


def _rates() -> str:
    return ", ".join(f"{gpu.name} {gpu.memory / 1e12:g} TB/s" for gpu in GPUS.values())
