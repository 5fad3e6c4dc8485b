"""Time whole networks against the authors' packages: same weights, same edges, results checked equal first.

python benchmarks/time_models.py --mace-python PATH --nequip-python PATH [--rounds N] [--threads N]

PATH is the Python of an environment with mace-torch, or nequip (they need different e3nn, and irrepc needs neither).
Each package runs in a process of its own, idle while the other is timed; rounds alternate.  All processes get an
allocator that keeps freed memory, which speeds the authors' packages up by 1.2 to 1.9.  «Deployed» is what `irrepc
deploy` makes of the same weights, whose neighbours are kept as those of the others are.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk, molecule
from peer_process import ALLOCATOR, Peer

from irrepc.deploy import Deployed, deploy
from irrepc.interop.mace import load_mace
from irrepc.interop.nequip import load_nequip
from irrepc.models import Prediction, energy_and_forces
from irrepc.nn.graph import Graph, batch
from irrepc.nn.neighbours import graph_of_atoms
from irrepc.nn.radial import ScalarMLP

SPECIES = (1, 6, 7, 8, 29)
CUTOFF = 5.0
# network, channels, case, structure, how many evaluations a round
CASES = (
    ("mace", 128, "energy", "structure_crystal", 1),
    ("mace", 128, "energy", "structure_molecule", 5),
    ("mace", 128, "train", "structure_batch", 1),
    ("mace", 64, "train", "structure_batch", 1),
    ("nequip", 32, "energy", "structure_crystal", 1),
    ("nequip", 32, "energy", "structure_molecule", 5),
    ("nequip", 32, "train", "structure_batch", 1),
)


def graphs() -> dict[str, Graph]:
    """256 atoms of copper, 21 atoms (benzene over acetamide), and five such molecules; all shaken a little."""
    crystal = bulk("Cu", "fcc", a=3.615, cubic=True) * (4, 4, 4)
    crystal.rattle(0.05, seed=0)

    def pair(seed: int) -> Atoms:
        above = molecule("CH3CONH2")
        above.positions += [0, 0, 3.5]
        both = molecule("C6H6") + above
        both.rattle(0.05, seed=seed)
        return both

    def graph(atoms: Atoms) -> Graph:
        return graph_of_atoms(atoms, cutoff=CUTOFF, species=SPECIES)

    five = batch([graph(pair(seed)) for seed in range(5)])
    return {"structure_crystal": graph(crystal), "structure_molecule": graph(pair(0)), "structure_batch": five}


def write(graph: Graph, file: Path) -> None:
    """What a peer needs of a graph."""
    fields = {name: getattr(graph, name) for name in ("positions", "species", "shifts", "cell", "batch")}
    fields |= {"senders": graph.senders.values, "receivers": graph.receivers.values}
    np.savez(file, **{name: tensor.numpy() for name, tensor in fields.items()})


def load(network: str, channels: int, folder: Path, dtype: torch.dtype) -> Any:
    """Our network with the weights that the peer wrote."""
    if network == "mace":
        return load_mace(folder / f"mace_{channels}.npz", folder / f"mace_{channels}.json", dtype=dtype)
    return load_nequip(folder / f"nequip_{channels}.pt", dtype=dtype)


def difference(network: str, channels: int, structure: str, graph: Graph, folder: Path) -> tuple[float, float]:
    """Of energies (relative) and forces (of the largest), in float64."""
    found = energy_and_forces(load(network, channels, folder, torch.float64), graph)
    expected = np.load(folder / f"{network}_{channels}_of_{structure}.npz")
    energy = np.abs(found.energy.numpy() - expected["energy"]) / np.abs(expected["energy"])
    forces = np.abs(found.forces.numpy() - expected["forces"]).max() / np.abs(expected["forces"]).max()
    return float(energy.max()), float(forces)


def ours(network: str, channels: int, case: str, graph: Graph, folder: Path) -> tuple[Any, Callable[[], object]]:
    """Our network in float32, and what is timed of it."""
    model, single = load(network, channels, folder, torch.float32), graph.to(dtype=torch.float32)
    if case == "energy":
        model.requires_grad_(False)

        def evaluate() -> Prediction:
            return energy_and_forces(model, single)

        return model, evaluate
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-6)

    def step() -> None:
        optimizer.zero_grad()
        found = energy_and_forces(model, single, create_graph=True)
        loss = found.energy.square().mean() + found.forces.square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return model, step


def evaluation(model: Any, graph: Graph, threads: int) -> Callable[[], object]:
    """The network deployed in float32, and what is timed of it: energy, forces, stress of one structure."""
    program = Deployed(deploy(model, dtype="float32"), threads)
    numbers, positions = np.array(SPECIES)[graph.species.numpy()], graph.positions.double().numpy()
    cell, periodic = graph.cell[0].double().numpy(), bool(graph.cell.abs().sum() > 0)
    return lambda: program.evaluate(numbers, positions, cell if periodic else None, periodic)


def products(model: Any, case: str, pairs_of_atoms: int) -> Callable[[], None]:
    """The radial perceptrons' matrix products alone, each as often as the case needs it: the floor."""
    radials = [layer.radial for layer in model.layers]
    pairs = [(w.shape[0], w.shape[1]) for r in radials if isinstance(r, ScalarMLP) for w in r.weights]
    rows = pairs_of_atoms
    inputs = [(torch.randn(rows, n), torch.randn(n, m), torch.randn(rows, m)) for n, m in pairs]

    def run() -> None:
        for x, w, g in inputs:
            _ = x @ w, g @ w.T
            if case == "train":  # gradients of both again, and both gradients of the matrix
                _ = x @ w, g @ w.T, x.T @ g, x.T @ g

    return run


def seconds(run: Callable[[], object], rounds: int) -> list[float]:
    out = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        out.append(time.perf_counter() - start)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mace-python", help="the Python of an environment with mace-torch")
    parser.add_argument("--nequip-python", help="the Python of an environment with nequip")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in ALLOCATOR.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ALLOCATOR})
    torch.set_num_threads(given.threads)
    pythons = {"mace": given.mace_python, "nequip": given.nequip_python}
    structures = graphs()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "species.json").write_text(json.dumps(SPECIES))
        (folder / "threads.json").write_text(json.dumps(given.threads))
        for structure, graph in structures.items():
            write(graph, folder / f"{structure}.npz")
        print(
            "| network | case | atoms | edges | ΔE, ΔF | official (min) | irrepc (min) | ratio (min) | products "
            "| deployed (min) | ratio (min) |"
        )
        print("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
        for network, python in pythons.items():
            if python is None:
                continue
            peer = Peer(python, f"peer_{network}.py", str(folder))
            for kind, channels, case, structure, repeats in CASES:
                if kind == network:
                    graph = structures[structure]
                    delta = difference(network, channels, structure, graph, folder)
                    model, run = ours(network, channels, case, graph, folder)
                    floor = products(model, case, graph.num_pairs)
                    fast = evaluation(model, graph, given.threads) if case == "energy" else None
                    theirs, mine, least, quick = [], [], [], []
                    peer.time(case, channels, structure, 2)  # compilers wake up
                    seconds(run, 2)
                    seconds(floor, 2)
                    seconds(fast or floor, 2)
                    for _ in range(given.rounds):
                        theirs += peer.time(case, channels, structure, repeats)
                        mine += seconds(run, repeats)
                        least += seconds(floor, repeats)
                        quick += seconds(fast, repeats) if fast else []
                    a, b = statistics.median(theirs), statistics.median(mine)
                    last = "– | – |"
                    if quick:
                        c = statistics.median(quick)
                        ratios = f"{a / c:.0f} ({min(theirs) / min(quick):.0f})"
                        last = f"{1e3 * c:.1f} ({1e3 * min(quick):.1f}) ms | {ratios} |"
                    print(
                        f"| {network} {channels} | {case}, {structure.removeprefix('structure_')} | {graph.num_atoms} "
                        f"| {graph.num_edges} | {delta[0]:.0e}, {delta[1]:.0e} "
                        f"| {1e3 * a:.0f} ({1e3 * min(theirs):.0f}) ms "
                        f"| {1e3 * b:.1f} ({1e3 * min(mine):.1f}) ms | {a / b:.1f} ({min(theirs) / min(mine):.1f}) "
                        f"| {statistics.median(least) / b:.0%} | {last}",
                        flush=True,
                    )
            peer.close()


if __name__ == "__main__":
    main()
