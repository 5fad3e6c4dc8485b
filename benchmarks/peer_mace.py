"""Runs the authors' MACE (mace-torch) for time_models.py, in an environment of its own; needs nothing of irrepc.

python peer_mace.py FOLDER reads FOLDER/*.npz (structures with their edges) and writes FOLDER/mace_*.npz and .json:
weights, arguments, energies and forces in float64.  Then it answers lines «CASE ROUNDS» with a JSON list of seconds.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from mace import modules  # before e3nn, whose import of its own constants newer torch would refuse

o3 = modules.models.o3
CLASS = "RealAgnosticResidualInteractionBlock"
ARGUMENTS = {
    "r_max": 5.0,
    "num_bessel": 8,
    "num_polynomial_cutoff": 5,
    "max_ell": 3,
    "interaction_cls": CLASS,
    "interaction_cls_first": CLASS,
    "num_interactions": 2,
    "MLP_irreps": "16x0e",
    "correlation": 3,
    "avg_num_neighbors": 20.0,
    "atomic_inter_scale": 1.0,
    "atomic_inter_shift": 0.0,
    "class": "ScaleShiftMACE",
}


def build(channels: int, species: list[int]) -> tuple[torch.nn.Module, dict]:
    """The model, and its arguments as plain data."""
    plain = {
        **ARGUMENTS,
        "hidden_irreps": f"{channels}x0e+{channels}x1o",
        "atomic_numbers": species,
        "num_elements": len(species),
        "atomic_energies": [0.0] * len(species),
    }
    given = {name: value for name, value in plain.items() if name != "class"}
    given["hidden_irreps"], given["MLP_irreps"] = o3.Irreps(plain["hidden_irreps"]), o3.Irreps("16x0e")
    given["interaction_cls"] = given["interaction_cls_first"] = getattr(modules, CLASS)
    torch.manual_seed(0)
    return modules.ScaleShiftMACE(**given, gate=torch.nn.functional.silu), plain


def read(file: Path, species: list[int], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """A structure, or a batch of them, as MACE takes it."""
    found = {name: torch.from_numpy(array) for name, array in np.load(file).items()}
    structures = int(found["batch"].max()) + 1
    counts = torch.bincount(found["batch"], minlength=structures)
    ends = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    cell = found["cell"].to(dtype)
    # MACE adds them to the centre less the neighbour, irrepc to the neighbour less the centre
    shifts = -torch.einsum("ei,eij->ej", found["shifts"].to(dtype), cell[found["batch"][found["receivers"]]])
    return {
        "positions": found["positions"].to(dtype),
        "node_attrs": torch.nn.functional.one_hot(found["species"], len(species)).to(dtype),
        "edge_index": torch.stack([found["senders"], found["receivers"]]),
        "shifts": shifts,
        "unit_shifts": found["shifts"].to(dtype),
        "cell": cell.reshape(-1, 3),
        "batch": found["batch"],
        "ptr": ends,
    }


def main(folder: Path) -> None:
    species = json.loads((folder / "species.json").read_text())
    torch.set_num_threads(json.loads((folder / "threads.json").read_text()))
    structures = sorted(f.stem for f in folder.glob("structure_*.npz"))
    models = {}
    for channels in (128, 64):
        torch.set_default_dtype(torch.float64)
        model, plain = build(channels, species)
        np.savez(folder / f"mace_{channels}.npz", **{k: v.numpy() for k, v in model.state_dict().items()})
        (folder / f"mace_{channels}.json").write_text(json.dumps(plain))
        for name in structures:
            out = model(read(folder / f"{name}.npz", species, torch.float64))
            found = {"energy": out["energy"].detach().numpy(), "forces": out["forces"].detach().numpy()}
            np.savez(folder / f"mace_{channels}_of_{name}.npz", **found)
        models[channels] = model.float()
    torch.set_default_dtype(torch.float32)
    graphs = {name: read(folder / f"{name}.npz", species, torch.float32) for name in structures}
    steps = {}
    for channels, model in models.items():
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-6)

        def step(name: str, model: torch.nn.Module = model, optimizer: torch.optim.Adam = optimizer) -> None:
            optimizer.zero_grad()
            out = model(dict(graphs[name]), training=True)
            (out["energy"].square().mean() + out["forces"].square().mean()).backward()
            optimizer.step()

        steps[channels] = step
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        case, channels, name, rounds = line.split()
        model = models[int(channels)].requires_grad_(case == "train")
        seconds = []
        for _ in range(int(rounds)):
            start = time.perf_counter()
            if case == "train":
                steps[int(channels)](name)
            else:
                model(dict(graphs[name]))
            seconds.append(time.perf_counter() - start)
        print(json.dumps(seconds), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
