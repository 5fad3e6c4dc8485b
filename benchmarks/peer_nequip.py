"""Runs the authors' NequIP (nequip) for time_models.py, in an environment of its own; needs nothing of irrepc.

python peer_nequip.py FOLDER reads FOLDER/*.npz (structures with their edges) and writes FOLDER/nequip_*.pt and .npz:
weights, arguments, energies and forces.  Then it answers lines «CASE ROUNDS» with a JSON list of seconds.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from nequip.model import NequIPGNNModel
from nequip.utils.global_state import set_global_state

SYMBOLS = {1: "H", 6: "C", 7: "N", 8: "O", 29: "Cu"}
ARGUMENTS = {
    "r_max": 5.0,
    "num_layers": 4,
    "l_max": 2,
    "parity": True,
    "num_features": 32,
    "type_embed_num_features": 32,
    "radial_mlp_depth": 2,
    "radial_mlp_width": 64,
    "avg_num_neighbors": 20.0,
    "seed": 0,
}


def read(file: Path) -> dict[str, torch.Tensor]:
    """A structure, or a batch of them, as nequip takes it: positions and cells in float64, whatever the model."""
    found = {name: torch.from_numpy(array) for name, array in np.load(file).items()}
    given = {
        "pos": found["positions"],
        "atom_types": found["species"],
        "edge_index": torch.stack([found["receivers"], found["senders"]]),
        "batch": found["batch"],
        "num_atoms": torch.bincount(found["batch"]),
    }
    if bool(found["cell"].any()):
        given |= {"cell": found["cell"], "edge_cell_shift": found["shifts"]}
    return given


def main(folder: Path) -> None:
    species = json.loads((folder / "species.json").read_text())
    threads = json.loads((folder / "threads.json").read_text())
    set_global_state()
    torch.set_num_threads(threads)
    structures = sorted(f.stem for f in folder.glob("structure_*.npz"))
    graphs = {name: read(folder / f"{name}.npz") for name in structures}
    plain = {**ARGUMENTS, "type_names": [SYMBOLS[z] for z in species]}
    exact = NequIPGNNModel(**plain, model_dtype="float64")
    torch.save({"config": plain, "state_dict": exact.state_dict()}, folder / "nequip_32.pt")
    for name in structures:
        out = exact(dict(graphs[name]))
        found = {"energy": out["total_energy"].detach().numpy().reshape(-1), "forces": out["forces"].detach().numpy()}
        np.savez(folder / f"nequip_32_of_{name}.npz", **found)
    model = NequIPGNNModel(**plain, model_dtype="float32")
    model.load_state_dict(exact.state_dict())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-6)
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        case, _, name, rounds = line.split()
        model.train(case == "train").requires_grad_(case == "train")
        seconds = []
        for _ in range(int(rounds)):
            start = time.perf_counter()
            if case == "train":
                optimizer.zero_grad()
                out = model(dict(graphs[name]))
                (out["total_energy"].square().mean() + out["forces"].square().mean()).backward()
                optimizer.step()
            else:
                model(dict(graphs[name]))
            seconds.append(time.perf_counter() - start)
        print(json.dumps(seconds), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
