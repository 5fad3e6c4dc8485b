"""Times EquiformerV2, energy and forces of 16 atoms with about 486 edges in float32, against the machine's peak.

    python benchmarks/time_equiformer_v2.py [--network 31M] [--threads 2] [--rounds 20] [--fairchem DIR]

network  31M (8 layers of 128 channels, lmax 4, mmax 2, as published), or 4 layers of 64 channels, lmax 3, mmax 2:
         «separable» (SiLU and perceptrons on grids of 18 x 18 points) or «gate»
DIR      the unpacked wheel of fairchem-core 1.10.0 (pip download --no-deps): its EquiformerV2 is then timed in turns
         with ours, of the same weights and atoms. It needs torch and e3nn; the rest is replaced by the stand-ins below.
Wall and processor time, minima over the rounds. The peak is that of a product of two matrices of 1024 x 1024, timed
in the same rounds; operations are those of matrix products alone.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from irrepc.interop.equiformer_v2 import equiformer_v2_state
from irrepc.models.equiformer_v2 import PUBLISHED, EquiformerV2, EquiformerV2Config
from irrepc.models.potential import predict
from irrepc.nn.graph import Graph, edge_vectors
from irrepc.nn.neighbours import graph_of

_SMALL = EquiformerV2Config(
    tuple(range(90)), layers=4, channels=64, hidden=64, feed_hidden=128, edge_channels=64, lmax=3, mmax=2
)
NETWORKS = {
    "31M": PUBLISHED["31M"],
    "separable": _SMALL,
    "gate": replace(_SMALL, activation="gate", feed_forward="gate"),
}
ATOMS, EDGES, REACH = 16, 486, 6.0
PEAK = 1024


def crystal() -> Graph:
    """16 atoms in a cubic cell of which the edge is chosen so that they have 486 edges, or a few fewer."""
    generator = np.random.default_rng(0)
    places = generator.random((ATOMS, 3))
    species = generator.integers(1, 20, ATOMS).tolist()
    size = 7.0
    while True:
        cell = np.eye(3) * size
        graph = graph_of(species, places @ cell, cell, (True,) * 3, cutoff=REACH, dtype=torch.float32)
        if graph.num_edges <= EDGES:
            return graph
        size += 0.005


def official(folder: Path, graph: Graph, model: EquiformerV2) -> Callable[[], tuple[Tensor, Tensor]]:
    """A call of the authors' network with the weights of `model`: energy and forces."""
    sys.path.insert(0, str(folder))
    core = "fairchem.core"
    for name in ("fairchem", core, f"{core}.models", f"{core}.common", f"{core}.models.equiformer_v2"):
        _stand_in(name, __path__=[str(folder / name.replace(".", "/"))])
    same: Callable[..., Any] = lambda *_, **__: lambda thing: thing  # noqa: E731 - a decorator that does nothing
    _stand_in(f"{core}.common.registry", registry=types.SimpleNamespace(register_model=same))
    _stand_in(f"{core}.common.utils", conditional_grad=same)
    _stand_in(f"{core}.common.gp_utils", initialized=lambda: False)
    vars(sys.modules[f"{core}.common"])["gp_utils"] = sys.modules[f"{core}.common.gp_utils"]
    bases = ("GraphModelMixin", "HeadInterface", "BackboneInterface", "GraphData")
    _stand_in(f"{core}.models.base", **{name: type(name, (), {}) for name in bases})
    _stand_in("torch_scatter", scatter=None)
    _stand_in("torch_geometric", utils=types.SimpleNamespace(softmax=_softmax))
    code = importlib.import_module(f"{core}.models.equiformer_v2.equiformer_v2")
    c = model.config
    backbone = code.EquiformerV2Backbone(
        max_num_elements=len(c.species), num_layers=c.layers, sphere_channels=c.channels, max_radius=c.cutoff,
        attn_hidden_channels=c.hidden, num_heads=c.heads, attn_alpha_channels=c.alpha, attn_value_channels=c.value,
        ffn_hidden_channels=c.feed_hidden, edge_channels=c.edge_channels, norm_type=c.norm, lmax_list=[c.lmax],
        mmax_list=[c.mmax], grid_resolution=c.grid, share_atom_edge_embedding=False, use_atom_edge_embedding=True,
        use_m_share_rad=False, use_s2_act_attn=False, use_attn_renorm=True, use_gate_act=c.activation == "gate",
        use_grid_mlp=c.feed_forward.endswith("grid"), use_sep_s2_act=c.activation == "separable_s2", alpha_drop=0.0,
        drop_path_rate=0.0, proj_drop=0.0, weight_init="uniform", otf_graph=False,
    )  # fmt: skip
    modules = {"backbone": backbone, "energy": code.EqV2ScalarHead(backbone), "force": code.EqV2VectorHead(backbone)}
    weights = equiformer_v2_state(model)
    for part, module in modules.items():
        found = {name.removeprefix(f"{part}."): w for name, w in weights.items() if name.startswith(f"{part}.")}
        report = module.load_state_dict(found, strict=False)
        assert not report.unexpected_keys
        module.eval()
    vectors = edge_vectors(graph)
    edges = dict(
        edge_index=torch.stack((graph.senders.values, graph.receivers.values)), edge_distance=vectors.norm(dim=1),
        edge_distance_vec=vectors, atomic_numbers_full=graph.species, batch_full=graph.batch, node_offset=0,
    )  # fmt: skip
    backbone.generate_graph = lambda *_, **__: types.SimpleNamespace(**edges)  # it writes into what it gets
    data = types.SimpleNamespace(
        pos=graph.positions, cell=graph.cell, atomic_numbers=graph.species, batch=graph.batch,
        natoms=torch.tensor([graph.num_atoms]),
    )  # fmt: skip

    @torch.no_grad()
    def call() -> tuple[Tensor, Tensor]:
        found = backbone(data)
        return modules["energy"](data, found)["energy"], modules["force"](data, found)["forces"]

    return call


def _softmax(scores: Tensor, index: Tensor) -> Tensor:
    rows = int(index.max()) + 1
    where = index.view(-1, *(1,) * (scores.dim() - 1)).expand_as(scores)
    largest = scores.new_full((rows, *scores.shape[1:]), float("-inf")).scatter_reduce(0, where, scores, "amax")
    raised = (scores - largest[index]).exp()
    return raised / (raised.new_zeros(largest.shape).index_add(0, index, raised)[index] + 1e-16)


def _stand_in(name: str, **content: Any) -> None:
    module = types.ModuleType(name)
    vars(module).update(content)
    sys.modules[name] = module


def main() -> None:
    """Print a line for each network, the ratio, and the fraction of the peak."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=tuple(NETWORKS), default="31M")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--fairchem", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    graph, model = crystal(), EquiformerV2(NETWORKS[arguments.network])
    square = torch.randn(PEAK, PEAK)
    contenders: dict[str, Callable[[], Any]] = {"irrepc": lambda: predict(model, graph)}
    with FlopCounterMode(display=False) as counter:
        ours = contenders["irrepc"]()
    if arguments.fairchem is not None:
        contenders["fairchem-core 1.10"] = official(arguments.fairchem, graph, model)
        _, forces = contenders["fairchem-core 1.10"]()
        difference = float((forces - ours.forces).abs().max() / ours.forces.abs().max())
        print(f"largest difference of forces: {difference:.1e}")
    contenders["product"] = lambda: square @ square
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for k in range(arguments.rounds + 2):
        for name, call in contenders.items():
            wall, processor = time.perf_counter(), time.process_time()
            call()
            if k >= 2:
                times[name].append((time.perf_counter() - wall, time.process_time() - processor))
    best = {name: tuple(min(column) for column in zip(*found, strict=True)) for name, found in times.items()}
    weights = sum(p.numel() for p in model.parameters())
    print(f"{weights:,} weights, {graph.num_atoms} atoms, {graph.num_edges} edges, {arguments.threads} threads")
    for name, (wall, processor) in best.items():
        print(f"{name:20s} wall {wall * 1e3:8.1f} ms, processor {processor * 1e3:8.1f} ms")
    operations = counter.get_total_flops()
    rates = [(operations / a, 2 * PEAK**3 / b) for a, b in zip(best["irrepc"], best["product"], strict=True)]
    print(f"matrix products: {operations / 1e9:.1f} Gflop, {rates[0][0] / 1e9:.0f} Gflop/s by wall time; of the peak "
          f"{rates[0][0] / rates[0][1]:.2f} by wall, {rates[1][0] / rates[1][1]:.2f} by processor time")
    if arguments.fairchem is not None:
        ratios = [a / b for a, b in zip(best["fairchem-core 1.10"], best["irrepc"], strict=True)]
        print(f"ratio of minima {ratios[0]:.1f} by wall, {ratios[1]:.1f} by processor time")


if __name__ == "__main__":
    main()
