"""Bench: contenders that compute something else are refused, cases agree with their peers, memory is measured."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from irrepc.commands.bench_cases import contraction_case, convolution_case, harmonics_case, rotations_case
from irrepc.commands.bench_foreign import Environment, contraction_peer, convolution_peer
from irrepc.commands.bench_memory import peak_memory
from irrepc.commands.bench_peers import convolution_peers, harmonics_peers, rotations_peers
from irrepc.commands.bench_timing import Machine, check_equal, floor_seconds, time_phase
from irrepc.errors import InputError, KernelError
from irrepc.runtime.memory import keep_freed_memory

# uniform, both parities, three multiplicities
FEATURES = ["4x0e+4x1o", "3x0e+3x0o+3x1o+3x1e", "8x0e+4x1o+2x2e"]


@pytest.mark.parametrize("irreps", FEATURES)
def test_convolutions_of_all_contenders_agree(irreps: str) -> None:
    case, graph = convolution_case(irreps, 1, 60)
    check_equal(case.title, [*case.contenders(), *convolution_peers(irreps, 1, case, graph, compiled=False)])


@pytest.mark.slow
def test_the_compiled_formulation_agrees() -> None:
    irreps = FEATURES[2]
    case, graph = convolution_case(irreps, 1, 60)
    peers = convolution_peers(irreps, 1, case, graph, compiled=True)
    assert [p.name for p in peers] == ["e3nn", "torch.compile"]
    check_equal(case.title, [*case.contenders(), *peers])


def test_harmonics_and_rotations_of_all_contenders_agree() -> None:
    harmonics, rotations = harmonics_case(2, 40), rotations_case(2, 40)
    check_equal(harmonics.title, [*harmonics.contenders(), *harmonics_peers(2, harmonics)])
    check_equal(rotations.title, [*rotations.contenders(), *rotations_peers(2, rotations)])


def test_contractions_of_all_backends_agree() -> None:
    case, _, _ = contraction_case(2, 1, 5, 12)
    check_equal(case.title, list(case.contenders()))


def test_a_contender_that_computes_something_else_is_refused() -> None:
    case = harmonics_case(2, 10)
    first, *_ = case.contenders()
    wrong = replace(first, name="wrong", run=lambda r: first.run(r) * 1.001)
    with pytest.raises(KernelError, match=r"got results of wrong that differ from torch by 1.0e-03"):
        check_equal(case.title, [first, wrong])
    crooked = replace(first, name="crooked", run=lambda r: first.run(r.detach()) + 0 * r.sum())
    with pytest.raises(KernelError, match="got results of crooked"):
        check_equal(case.title, [first, crooked])


def test_phases_without_a_derivative_are_left_out() -> None:
    first, second, *_ = harmonics_case(1, 10).contenders()
    rounds = time_phase(2, [first, replace(second, orders=2)], 3)
    assert len(rounds[0]) >= 3
    assert rounds[1] == []


def test_the_floor_by_hand() -> None:
    """Harmonics of degree 1 move 3 + 4 numbers a row; their VJP 3 + 4 + 3."""
    floors = floor_seconds(harmonics_case(1, 10).recipe, 10, 0, {}, Machine(bandwidth=1.0, flops=1e9))
    assert floors[:2] == (4.0 * 10 * 7, 4.0 * 10 * (7 + 10))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not tell peak memory")
def test_peak_memory_counts_what_a_contender_allocates() -> None:
    """Value and VJP write o, d_x, d_y and d_w at least: (4 + 4·4) floats an edge and little more."""
    edges = 200_000
    peak = peak_memory("llvm", "4x0e+4x1o", 1, edges, 1)
    assert 0.7 < peak / (4 * edges * (4 + 16)) < 2
    with pytest.raises(InputError, match="expected a number"):
        peak_memory("nobody", "4x0e", 1, 10, 1)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="there is no mallopt")
def test_freed_memory_is_kept() -> None:
    """In a process of its own: an array of 64 MB comes back at the same place without new page faults."""
    text = (
        "import resource, numpy as np\n"
        "from irrepc.runtime.memory import keep_freed_memory\n"
        "assert keep_freed_memory()\n"
        "def faults():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt; np.ones(8_000_000)\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "faults(); assert faults() < 1000\n"
    )
    assert os.spawnl(os.P_WAIT, sys.executable, sys.executable, "-c", text) == 0


def test_elsewhere_than_on_glibc_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert keep_freed_memory() is False


def test_a_python_without_the_peers_is_refused() -> None:
    case, graph = convolution_case("2x0e", 1, 20)
    with pytest.raises(InputError, match="from cuequivariance; expected a Python that has it"):
        convolution_peer(Environment(Path(sys.executable), True), "2x0e", 1, case, graph)


@pytest.mark.slow
@pytest.mark.skipif("IRREPC_PEERS" not in os.environ, reason="IRREPC_PEERS names no Python with the other packages")
def test_peers_of_another_environment_agree() -> None:
    place = Environment(Path(os.environ["IRREPC_PEERS"]), True)
    torch.set_num_threads(1)
    for irreps in FEATURES:
        case, graph = convolution_case(irreps, 1, 60)
        peer = convolution_peer(place, irreps, 1, case, graph)
        check_equal(case.title, [*case.contenders(), peer])
        peer.close()
    case, layers, species = contraction_case(2, 1, 5, 12)
    peer = contraction_peer(place, layers, species, case)
    check_equal(case.title, [*case.contenders(), peer])
    assert peer.seconds(1) > 0
    peer.close()
