"""Makes nequip_*.pt beside it: random models of the authors' package with its options, their energies and forces.

Run once, in an environment with nequip 0.19.1, torch 2.13, without irrepc:  python make_nequip.py.  A file is a dict of
plain tensors and data: state_dict without constants, config (the arguments) and two structures with energies and forces
in float64.
"""

from pathlib import Path

import torch
from nequip.data import from_dict
from nequip.data.transforms import NeighborListTransform
from nequip.model import NequIPGNNModel
from nequip.utils.global_state import set_global_state

PLAIN = {
    "type_names": ["H", "C", "O"],
    "r_max": 4.0,
    "num_layers": 2,
    "l_max": 1,
    "num_features": 3,
    "type_embed_num_features": 4,
    "num_bessels": 4,
    "radial_mlp_depth": 1,
    "radial_mlp_width": 5,
    "avg_num_neighbors": 3.0,
    "seed": 0,
}
CUTOFFS = {"H": 3.0, "C": {"H": 2.5, "O": 3.5}}
ZBL = {"_target_": "nequip.nn.pair_potential.ZBL", "units": "metal", "chemical_species": ["H", "C", "O"]}
MODELS = {
    "repulsion": {"pair_potential": ZBL, "per_type_energy_scales": {"H": 1.5, "C": 2.0, "O": 0.5}},
    "by_type": {
        "avg_num_neighbors": {"H": 2.0, "C": 3.0, "O": 4.5},
        "per_edge_type_cutoff": CUTOFFS,
        "pair_potential": ZBL,
        "parity": False,
        "l_max": 2,
        "num_features": [3, 2, 2],
    },
    "trainable": {
        "bessel_trainable": True,
        "per_type_energy_scales": 1.3,
        "per_type_energy_shifts": {"H": -1.0, "C": -2.0, "O": -3.0},
        "per_type_energy_scales_trainable": True,
        "per_type_energy_shifts_trainable": True,
        "readout_mlp_hidden_layers_depth": 1,
        "readout_mlp_hidden_layers_width": 4,
    },
}
PLACES = [[0, 0, 0], [0.1, 1.25, 0.2], [0.95, -0.3, 0.1], [1.0, 1.7, -0.2], [-1.2, 1.9, 0.6]]
BOX = [[3.1, 0, 0.2], [0.4, 2.9, 0], [-0.3, 0.5, 2.6]]
STRUCTURES = {
    "molecule": ([8, 6, 1, 1, 6], PLACES, None),
    "solid": ([6, 8, 1], [[0.1, 0.2, 0], [0.9, 1.4, 0.3], [2.0, 0.3, 1.1]], BOX),
}


def main() -> None:
    set_global_state()
    for number, (name, changes) in enumerate(MODELS.items()):
        config = PLAIN | changes
        model = NequIPGNNModel(**config, model_dtype="float64")
        torch.manual_seed(number)
        with torch.no_grad():
            for weight in model.parameters():  # trained numbers differ from those a model is made with
                weight.mul_(1 + 0.1 * torch.randn_like(weight))
        out = {"config": config, "structures": {}}
        kept = ("w3j", "output_mask")
        out["state_dict"] = {k: v for k, v in model.state_dict().items() if not any(part in k for part in kept)}
        for structure, (numbers, positions, cell) in STRUCTURES.items():
            given = {
                "pos": torch.tensor(positions, dtype=torch.float64),
                "atom_types": torch.tensor([[1, 6, 8].index(z) for z in numbers]),
                "pbc": torch.tensor([cell is not None] * 3),
            }
            if cell is not None:
                given["cell"] = torch.tensor(cell, dtype=torch.float64)
            found = model(NeighborListTransform(r_max=4.0)(from_dict(given)))
            out["structures"][structure] = {
                "numbers": numbers,
                "positions": positions,
                "cell": cell,
                "energies": found["atomic_energy"].detach().reshape(-1),
                "forces": found["forces"].detach(),
            }
        torch.save(out, Path(__file__).parent / f"nequip_{name}.pt")


if __name__ == "__main__":
    main()
