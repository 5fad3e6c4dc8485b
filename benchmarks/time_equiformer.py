"""Times energy and forces of Equiformer, the published networks for MD17, beside the authors' code where it is given.

    python benchmarks/time_equiformer.py [--official CHECKOUT] [--degree 2] [--rounds 30] [--threads 2]

CHECKOUT is a clone of the authors' repository (atomicarchitects/equiformer); it runs on the e3nn that is installed, and
on stand-ins for the parts of PyTorch Geometric that it calls. Both have the same weights and their forces are compared
first. Rounds alternate in one process; minima and medians in ms, for a flat molecule of 21 atoms and 230 edges.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import torch

from irrepc.interop.equiformer import equiformer_from
from irrepc.models.equiformer import Equiformer
from irrepc.models.equiformer_config import MD17_L2, MD17_L3
from irrepc.models.potential import energy_and_forces
from irrepc.nn.neighbours import graph_of

_NAME = "graph_attention_transformer_nonlinear_exp_l{}_md17"
_CONFIGS = {2: MD17_L2, 3: MD17_L3}
ATOMS, EDGES, CUTOFF = 21, 230, 5.0


def molecule() -> tuple[np.ndarray, np.ndarray]:
    """Numbers and positions (Å) of H, C and O strewn over a flat ellipsoid, as many pairs within 5 Å as in aspirin."""
    for seed in range(10_000):
        generator, positions = np.random.default_rng(seed), np.zeros((0, 3))
        while len(positions) < ATOMS:
            place = generator.uniform(-1, 1, 3) * [5.2, 3.4, 1.6]
            if np.linalg.norm(positions - place, axis=1).min(initial=9.0) > 1.1:
                positions = np.vstack((positions, place))
        distances = np.linalg.norm(positions[:, None] - positions, axis=-1)
        if (distances < CUTOFF).sum() - ATOMS == EDGES:
            return generator.choice([1, 6, 8], ATOMS), positions
    raise RuntimeError(f"molecule: found none of {EDGES} edges; expected one among 10,000 seeds")


def stand_ins(senders: torch.Tensor, receivers: torch.Tensor) -> dict[str, ModuleType]:
    """Modules that the authors' code imports, with what it calls of them; the neighbours are always those given."""

    def scatter(x: torch.Tensor, index: torch.Tensor, dim: int = 0, dim_size: int | None = None) -> torch.Tensor:
        size = int(index.max()) + 1 if dim_size is None else dim_size
        return x.new_zeros(size, *x.shape[1:]).index_add(dim, index, x)

    def softmax(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        rows, wide = int(index.max()) + 1, index.view(-1, 1).expand_as(x)
        largest = x.new_zeros(rows, x.shape[1]).scatter_reduce(0, wide, x.detach(), "amax", include_self=False)
        raised = (x - largest[index]).exp()
        return raised / (scatter(raised, index, dim_size=rows) + 1e-16)[index]

    def degree(index: torch.Tensor, num_nodes: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.bincount(index, minlength=num_nodes).to(dtype)

    made = {
        "torch_cluster": {"radius_graph": lambda *_, **__: (senders, receivers)},
        "torch_scatter": {"scatter": scatter},
        "torch_geometric.utils": {"softmax": softmax, "degree": degree},
        "torch_geometric.nn": {"global_mean_pool": None, "global_max_pool": None},
        "torch_geometric.nn.inits": {"glorot": torch.nn.init.xavier_uniform_},
        "ocpmodels.models.gemnet.layers.radial_basis": {"RadialBasis": None},
    }
    out: dict[str, ModuleType] = {}
    for path, content in made.items():
        parts = path.split(".")
        for depth in range(1, len(parts) + 1):
            name = ".".join(parts[:depth])
            module = out.setdefault(name, ModuleType(name))
            if depth > 1:
                setattr(out[".".join(parts[: depth - 1])], parts[depth - 1], module)
        for name, value in content.items():
            setattr(out[path], name, value)
    return out


def official(checkout: str, degree: int, graph: Any) -> torch.nn.Module:
    """The authors' network, with random weights."""
    sys.modules.update(stand_ins(graph.senders.values, graph.receivers.values))
    package = ModuleType("nets")
    package.__path__ = [f"{checkout}/nets"]  # its __init__ would import networks that need more packages
    sys.modules["nets"] = package
    module = importlib.import_module("nets.graph_attention_transformer_md17")
    made: torch.nn.Module = getattr(module, _NAME.format(degree))("64x0e", CUTOFF, num_basis=32)
    return made


def arguments_of(model: Any) -> dict[str, Any]:
    """The arguments the authors' network was built with, as plain data."""
    names = ("max_radius", "num_layers", "num_heads", "number_of_basis", "rescale_degree", "nonlinear_message")
    irreps = ("node_embedding", "sh", "head", "mlp_mid", "feature")
    found = {name: getattr(model, name) for name in names}
    found |= {f"irreps_{name}": str(getattr(model, f"irreps_{name}", "")) for name in irreps}
    found["irreps_sh"] = str(model.irreps_edge_attr)
    return found | {"fc_neurons": model.fc_neurons[1:], "basis_type": model.basis_type}


def measure(contenders: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call, rounds alternating."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for k in range(rounds + 3):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            if k >= 3:
                times[name].append(time.perf_counter() - start)
    return times


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--official", metavar="CHECKOUT")
    parser.add_argument("--degree", type=int, choices=(2, 3), default=2)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    numbers, positions = molecule()
    graph = graph_of(numbers.tolist(), positions, cutoff=CUTOFF, dtype=torch.float32)
    contenders: dict[str, Callable[[], Any]] = {}
    if options.official:
        theirs = official(options.official, options.degree, graph).eval()
        ours = equiformer_from(
            arguments_of(theirs), theirs.state_dict(), "llvm", signs="e3nn-0.5", dtype=torch.float32
        )
        species, batch = graph.species, graph.batch
        _, forces = theirs(node_atom=species, pos=graph.positions.clone(), batch=batch)
        off = float((energy_and_forces(ours, graph).forces - forces).abs().max() / forces.abs().max())
        print(f"largest difference of forces {off:.1e} of the largest force")
        contenders["authors"] = lambda: theirs(node_atom=species, pos=graph.positions.clone(), batch=batch)
    else:
        ours = Equiformer(_CONFIGS[options.degree], "llvm")
    contenders["irrepc"] = lambda: energy_and_forces(ours, graph)
    times = measure(contenders, options.rounds)
    for name, values in times.items():
        print(f"{name:8} min {1e3 * min(values):7.1f} ms  median {1e3 * statistics.median(values):7.1f} ms")
    if len(times) == 2:
        print(f"ratio of minima {min(times['authors']) / min(times['irrepc']):.1f}")


if __name__ == "__main__":
    main()
