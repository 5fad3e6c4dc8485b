"""GPU report: what was measured on a CUDA device, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from irrepc.commands.gpu_ceilings import Ceilings
from irrepc.commands.gpu_clock import Timing


@dataclass(frozen=True, slots=True)
class Row:
    """One phase of a case: for each contender a timing, or why there is none."""

    phase: str
    floor: float
    cached: float
    target: float
    timings: tuple[Timing | str, ...]


@dataclass(frozen=True, slots=True)
class Measured:
    """A case that was timed."""

    title: str
    contenders: tuple[str, ...]
    rows: tuple[Row, ...]


def heading(ceilings: Ceilings, nvrtc: str) -> Iterator[str]:
    """The device and its ceilings, as Markdown."""
    major, minor = ceilings.capability
    yield f"## {ceilings.device}"
    yield ""
    yield (
        f"sm_{major}{minor}; torch {torch.__version__}, CUDA {torch.version.cuda}, NVRTC {nvrtc}. float32, "
        "milliseconds, medians; replayed from a CUDA graph, and in brackets called from Python. Equal results were "
        "checked first, and inputs larger than the cache are cycled through. «Floor»: every operand moved once at the "
        "rate of a copy, or the operations at the rate of multiply-adds, whichever takes longer. «Cache»: what a "
        "forward pass moves through the second-level cache, at the rate of a random gather. Targets are those of an "
        "H200, set before anything ran."
    )
    yield ""
    yield "| copy | gather, random rows | gather, rising rows | multiply-add | launch from Python |"
    yield "|---:|---:|---:|---:|---:|"
    rates = (ceilings.copied, ceilings.gathered, ceilings.gathered_sorted)
    cells = [f"{rate / 1e12:.2f} TB/s" for rate in rates]
    cells += [f"{ceilings.flops / 1e12:.1f} Tflop/s", f"{1e6 * ceilings.launch:.1f} µs"]
    yield f"| {' | '.join(cells)} |"


def table(measured: Measured) -> Iterator[str]:
    """A case as Markdown: ours first, what is reached of the floor, and the ratio to the fastest peer."""
    names = measured.contenders
    yield f"### {measured.title}"
    yield ""
    yield f"| what | floor | cache | target | {' | '.join(names)} | of the floor | against the fastest peer |"
    yield f"|---|{'---:|' * (len(names) + 5)}"
    notes: dict[str, None] = {}
    for row in measured.rows:
        cells = [_number(row.floor), _number(row.cached), _number(row.target)]
        for timing in row.timings:
            cells.append(_cell(timing))
            reason = timing if isinstance(timing, str) else timing.reason
            notes |= {reason: None} if reason else {}
        ours = row.timings[0]
        peers = _times(t for t, name in zip(row.timings, names, strict=True) if not name.startswith("irrepc"))
        taken = ours.best if isinstance(ours, Timing) else 0.0
        cells.append(f"{100 * row.floor / taken:.0f} %" if taken and row.floor else "-")
        cells.append(f"{min(peers) / taken:.1f}x" if taken and peers else "-")
        yield f"| {row.phase} | {' | '.join(cells)} |"
    if notes:
        yield ""
        yield f"Not captured or not computed: {'; '.join(notes)}."


def _times(timings: Iterable[Timing | str]) -> list[float]:
    return [t.best for t in timings if isinstance(t, Timing)]


def _cell(timing: Timing | str) -> str:
    if isinstance(timing, str):
        return "-"
    graph = "-" if timing.graph is None else _number(timing.graph)
    return f"{graph} ({_number(timing.python)})"


def _number(milliseconds: float) -> str:
    return f"{milliseconds:.3g}" if milliseconds else ""
