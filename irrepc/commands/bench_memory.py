"""Memory: the peak of a convolution's value and VJP, each contender alone in a fresh process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from irrepc.commands.bench_cases import convolution_case
from irrepc.commands.bench_peers import convolution_peers
from irrepc.commands.bench_timing import Contender
from irrepc.errors import InputError

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_memory(name: str, irreps: str, lmax: int, edges: int, threads: int) -> int:
    """Bytes that value and VJP of a contender need beyond its operands, at their highest.

    Raises InputError where the system does not tell (it must have /proc).
    """
    command = [sys.executable, "-c", f"from {__name__} import main; main()"]
    words = [name, irreps, str(lmax), str(edges), str(threads)]
    done = subprocess.run([*command, *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise InputError(f"bench --memory: got {done.stderr.strip()[-300:]!r}; expected a number; see the error")
    return int(done.stdout.split()[-1])


def main() -> None:
    """The fresh process: contender, irreps, lmax, edges, threads as arguments; prints bytes."""
    name, irreps, lmax, edges, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    small = _contender(name, irreps, int(lmax), 50)
    small.seconds(1)  # what is compiled and imported does not count
    contender = _contender(name, irreps, int(lmax), int(edges))
    before = _resident("VmRSS")
    _CLEAR.write_text("5")  # proc(5): the peak begins anew
    contender.seconds(1)
    print(_resident("VmHWM") - before)


def _contender(name: str, irreps: str, lmax: int, edges: int) -> Contender:
    case, graph = convolution_case(irreps, lmax, edges)
    everyone = [*case.contenders(), *convolution_peers(irreps, lmax, case, graph, compiled=name == "torch.compile")]
    return next(c for c in everyone if c.name == name)


def _resident(field: str) -> int:
    """Bytes of a line of /proc/self/status."""
    line = next(line for line in _STATUS.read_text(encoding="utf-8").splitlines() if line.startswith(field))
    return 1024 * int(line.split()[1])
