"""Times eSEN (64 channels, 4 layers, lmax 3, mmax 2): energy and forces of 16 atoms with about 486 edges.

    python benchmarks/time_esen.py [--threads 2] [--rounds 60] [--fairchem DIR]

DIR  the unpacked wheel of fairchem-core 1.10.0 (pip download --no-deps): its eSEN is then timed in turns with ours, of
     the same weights and atoms. It needs torch and e3nn; the rest of that package is replaced by the stand-ins below.
Times are minima and medians over the rounds; the ratio is of the medians.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from irrepc.interop.esen import esen_state
from irrepc.models.esen import ESEN, ESENConfig
from irrepc.models.potential import energy_and_forces
from irrepc.nn.graph import Graph
from irrepc.nn.neighbours import graph_of

CONFIG = ESENConfig(
    tuple(range(100)), layers=4, channels=64, hidden=64, edge_channels=64, basis="bessel", basis_size=10
)
ATOMS, EDGES = 16, 486


def crystal() -> Graph:
    """16 atoms in a cubic cell of which the edge is chosen so that they have 486 edges, or a few fewer."""
    generator = np.random.default_rng(0)
    places = generator.random((ATOMS, 3))
    species = generator.integers(1, 20, ATOMS).tolist()
    size = 7.0
    while True:
        cell = np.eye(3) * size
        graph = graph_of(species, places @ cell, cell, (True,) * 3, cutoff=CONFIG.cutoff, dtype=torch.float32)
        if graph.num_edges <= EDGES:
            return graph
        size += 0.005


def official(folder: Path, graph: Graph, model: ESEN) -> Callable[[], Any]:
    """A call of the authors' network with the weights of `model`."""
    sys.path.insert(0, str(folder))
    for name in ("fairchem", "fairchem.core", "fairchem.core.models", "fairchem.core.common"):
        stand_in = types.ModuleType(name)
        stand_in.__path__ = [str(folder / name.replace(".", "/"))]
        sys.modules[name] = stand_in
    same: Callable[..., Any] = lambda *_, **__: lambda thing: thing  # noqa: E731 - a decorator that does nothing
    _stand_in("fairchem.core.common.registry", registry=types.SimpleNamespace(register_model=same))
    _stand_in("fairchem.core.common.utils", conditional_grad=same)
    _stand_in("fairchem.core.models.base", GraphModelMixin=type("GraphModelMixin", (), {}), HeadInterface=object)
    code = importlib.import_module("fairchem.core.models.esen.esen")
    c = CONFIG
    backbone = code.eSEN_Backbone(
        max_num_elements=len(c.species), sphere_channels=c.channels, hidden_channels=c.hidden, lmax=c.lmax, mmax=c.mmax,
        edge_channels=c.edge_channels, num_layers=c.layers, cutoff=c.cutoff, norm_type=c.norm, act_type=c.activation,
        mlp_type=c.feed_forward, distance_function=c.basis, num_distance_basis=c.basis_size, use_envelope=c.envelope,
        otf_graph=False, regress_forces=True, direct_forces=False,
    )  # fmt: skip
    head = code.MLP_EFS_Head(backbone)
    weights = esen_state(model)
    backbone.load_state_dict({k[9:]: v for k, v in weights.items() if k.startswith("backbone.")}, strict=False)
    backbone.eval()
    head.eval()
    head.load_state_dict({k[7:]: v for k, v in weights.items() if k.startswith("energy.")})
    edges = torch.stack((graph.senders.values, graph.receivers.values))

    def call() -> Any:
        data = {
            "pos": graph.positions.detach().clone(), "cell": graph.cell, "cell_offsets": graph.shifts,
            "atomic_numbers": graph.species, "atomic_numbers_full": graph.species, "batch": graph.batch,
            "batch_full": graph.batch, "edge_index": edges, "nedges": torch.tensor([graph.num_edges]),
            "natoms": torch.tensor([graph.num_atoms]), "num_graphs": 1,
        }  # fmt: skip
        with torch.enable_grad():
            return head(data, backbone(data))

    return call


def _stand_in(name: str, **content: Any) -> None:
    module = types.ModuleType(name)
    vars(module).update(content)
    sys.modules[name] = module


def main() -> None:
    """Print a line for each network and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--fairchem", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    graph, model = crystal(), ESEN(CONFIG)
    contenders: dict[str, Callable[[], Any]] = {"irrepc": lambda: energy_and_forces(model, graph)}
    if arguments.fairchem is not None:
        contenders["fairchem-core 1.10"] = official(arguments.fairchem, graph, model)
        theirs, ours = (contenders[name]() for name in ("fairchem-core 1.10", "irrepc"))
        largest = float(ours.forces.abs().max())
        print(f"largest difference of forces: {float((theirs['forces'] - ours.forces).abs().max()) / largest:.1e}")
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for k in range(arguments.rounds + 3):
        for name, call in contenders.items():
            start = time.perf_counter()
            call()
            if k >= 3:
                times[name].append(time.perf_counter() - start)
    print(f"{graph.num_atoms} atoms, {graph.num_edges} edges, {arguments.threads} threads, energy and forces")
    for name, found in times.items():
        print(f"{name:20s} min {min(found) * 1e3:7.1f} ms, median {statistics.median(found) * 1e3:7.1f} ms")
    if len(times) == 2:
        ours, theirs = times.values()
        print(f"ratio of medians {statistics.median(theirs) / statistics.median(ours):.1f}, "
              f"of minima {min(theirs) / min(ours):.1f}")


if __name__ == "__main__":
    main()
