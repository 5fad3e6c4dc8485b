"""Replay without a GPU: what is recorded runs again on new inputs, and no network reads a number back on its way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from irrepc.errors import InputError
from irrepc.models.mace import MACE, MACEConfig
from irrepc.models.nequip import NequIP, NequIPConfig
from irrepc.models.potential import Prediction, energy_and_forces
from irrepc.models.replay import Replay, Work
from irrepc.nn import graph as graph_module
from irrepc.nn.graph import Graph
from irrepc.nn.neighbours import graph_of

FORBIDDEN = ("_local_scalar_dense", "lift_fresh", "nonzero", "_unique2", "masked_select", "is_nonzero", "equal")
"""What waits for the device, or copies from the processor: neither can be recorded."""


def molecule(stretch: float = 1.0) -> Graph:
    """Four atoms of two species, all within 3 Å of each other."""
    positions = [[0.0, 0, 0], [1.1, 0, 0.2], [0.1, 1.2, 0], [0.3, 0.2, stretch]]
    return graph_of([0, 1, 0, 1], positions, cutoff=3.0, dtype=torch.float32)


def again(work: Work) -> tuple[Prediction, Callable[[], None]]:
    """As a recording: the same memory is written each time."""
    found = work()

    def run() -> None:
        for kept, new in zip(found, work(), strict=True):
            if kept is not None:
                kept.copy_(new)

    return found, run


def networks() -> tuple[nn.Module, ...]:
    """Small ones, without kernels to compile."""
    few = NequIPConfig((1, 6), 3.0, layers=2, lmax=1, features=(4, 4))
    return NequIP(few, "torch"), MACE(MACEConfig((1, 6), cutoff=3.0, channels=4, lmax=1), "torch")


@pytest.mark.parametrize("model", networks(), ids=["nequip", "mace"])
def test_new_positions_give_their_own_energies_and_forces(model: nn.Module) -> None:
    model.requires_grad_(False)
    replay = Replay(model, molecule(), again)
    for stretch in (1.0, 1.3, 0.9):
        graph = molecule(stretch)
        for got, right in zip(replay(graph), energy_and_forces(model, graph), strict=True):
            assert (got is None) == (right is None)
            assert got is None or torch.equal(got, right)
    first, kept = molecule(1.0), replay(molecule(1.0)).forces
    replay(molecule(1.3))
    assert torch.equal(kept, energy_and_forces(model, first).forces), "what was given out is not written again"


def test_a_graph_of_another_shape_is_refused() -> None:
    (model, _) = networks()
    replay, graph = Replay(model, molecule(), again), molecule()
    with pytest.raises(InputError, match=r"got \(3, 3\) of torch.float32 .* make a new Replay"):
        replay(graph._replace(positions=graph.positions[:3]))
    with pytest.raises(InputError, match=r"of torch\.float64"):
        replay(graph._replace(positions=graph.positions.double()))


class Watched(TorchDispatchMode):
    """Refuses what cannot be recorded."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.__name__.split(".")[0] not in FORBIDDEN, func.__name__
        return func(*args, **(kwargs or {}))


@contextmanager
def values_unseen(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """On a device check_graph does not look at values."""
    monkeypatch.setattr(graph_module, "check_graph", lambda *_: None)
    with Watched():
        yield


@pytest.mark.parametrize("model", networks(), ids=["nequip", "mace"])
def test_no_network_reads_a_number_back(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    model.requires_grad_(False)
    graph = molecule()
    energy_and_forces(model, graph)
    with values_unseen(monkeypatch):
        energy_and_forces(model, graph)
        with pytest.raises(AssertionError, match="_local_scalar_dense"):
            float(graph.positions.sum())
