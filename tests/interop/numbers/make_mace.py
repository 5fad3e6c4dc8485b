"""Makes mace_*.npz beside it: random models of the authors' package with its options, their energies and forces.

Run once, in an environment with mace-torch 0.3.16 and cuequivariance (for the reduced couplings), torch 2.13, without
irrepc:  python make_mace.py.  A file holds the state_dict without constants, the arguments as JSON, two structures with
their edges (sender j, receiver i, whole cell vectors added to j) and, for each head, energies and forces in float64.
"""

import json
from pathlib import Path

import numpy as np
import torch
from mace import data, modules

o3 = modules.models.o3
PLAIN = {
    "r_max": 4.0,
    "num_bessel": 4,
    "num_polynomial_cutoff": 5,
    "max_ell": 2,
    "interaction_cls": "RealAgnosticResidualInteractionBlock",
    "interaction_cls_first": "RealAgnosticResidualInteractionBlock",
    "num_interactions": 2,
    "num_elements": 3,
    "hidden_irreps": "2x0e+2x1o",
    "MLP_irreps": "3x0e",
    "atomic_energies": [-1.0, -2.0, -3.0],
    "avg_num_neighbors": 3.0,
    "atomic_numbers": [1, 6, 8],
    "correlation": 2,
    "gate": "silu",
    "radial_MLP": [5, 6],
    "use_reduced_cg": False,
    "atomic_inter_scale": 0.8,
    "atomic_inter_shift": 0.1,
}
DENSITY = {
    "interaction_cls": "RealAgnosticDensityResidualInteractionBlock",
    "interaction_cls_first": "RealAgnosticDensityInteractionBlock",
}
TWO = {
    "heads": ["pbe", "hse"],
    "atomic_energies": [[-1.0, -2.0, -3.0], [-1.5, -2.5, -3.5]],
    "atomic_inter_scale": [0.8, 1.2],
    "atomic_inter_shift": [0.1, -0.2],
}
MODELS = {
    "density_agnesi_heads": DENSITY | TWO | {"distance_transform": "Agnesi", "pair_repulsion": True},
    "soft_tanh": {"distance_transform": "Soft", "pair_repulsion": True, "gate": "tanh", "max_ell": 1, "correlation": 3},
    "reduced_degrees": {"use_reduced_cg": True, "hidden_irreps": "2x0e+2x1o+2x2e", "gate": None, "correlation": 3},
    "four_factors": {"correlation": 4, "max_ell": 1, "gate": "abs", "hidden_irreps": "2x0e+2x1o"},
    "one_layer": DENSITY | {"num_interactions": 1, "interaction_cls_first": DENSITY["interaction_cls"]},
}
GATES = {"silu": torch.nn.functional.silu, "tanh": torch.tanh, "abs": torch.abs, None: None}
STRUCTURES = {
    "molecule": (
        [8, 6, 1, 1, 6],
        [[0, 0, 0], [0.1, 1.25, 0.2], [0.95, -0.3, 0.1], [1.0, 1.7, -0.2], [-1.2, 1.9, 0.6]],
        None,
    ),
    "solid": (
        [6, 8, 1],
        [[0.1, 0.2, 0], [0.9, 1.4, 0.3], [2.0, 0.3, 1.1]],
        [[3.1, 0, 0.2], [0.4, 2.9, 0], [-0.3, 0.5, 2.6]],
    ),
}


def main() -> None:
    torch.set_default_dtype(torch.float64)
    folder = Path(__file__).parent
    for seed, (name, changes) in enumerate(MODELS.items()):
        plain = PLAIN | changes
        given = dict(plain)
        for irreps in ("hidden_irreps", "MLP_irreps"):
            given[irreps] = o3.Irreps(given[irreps])
        for block in ("interaction_cls", "interaction_cls_first"):
            given[block] = getattr(modules, given[block])
        given |= {"gate": GATES[given["gate"]], "atomic_energies": np.array(given["atomic_energies"])}
        torch.manual_seed(seed)
        model = modules.ScaleShiftMACE(**given)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn_like(parameter))
        kept = ("w3j", "output_mask", "_zeroed")
        out = {f"state/{k}": v.numpy() for k, v in model.state_dict().items() if not any(part in k for part in kept)}
        out["config"] = np.array(json.dumps(plain))
        for structure, (numbers, positions, cell) in STRUCTURES.items():
            places, box = np.array(positions, float), np.zeros((3, 3)) if cell is None else np.array(cell, float)
            edges, shifts, units, _ = data.neighborhood.get_neighborhood(
                places.copy(), 4.0, (cell is not None,) * 3, None if cell is None else box.copy()
            )
            kinds = torch.tensor([plain["atomic_numbers"].index(z) for z in numbers])
            for head in range(len(plain.get("heads", [0]))):
                found = model(
                    {
                        "positions": torch.from_numpy(places.copy()),
                        "node_attrs": torch.nn.functional.one_hot(kinds, 3).double(),
                        "edge_index": torch.from_numpy(np.array(edges, dtype=np.int64)),
                        "shifts": torch.from_numpy(np.array(shifts)),
                        "unit_shifts": torch.from_numpy(np.array(units, float)),
                        "cell": torch.from_numpy(box),
                        "batch": torch.zeros(len(kinds), dtype=torch.int64),
                        "ptr": torch.tensor([0, len(kinds)]),
                        "head": torch.tensor([head]),
                    }
                )
                out[f"{structure}/energies/{head}"] = found["node_energy"].detach().numpy()
                out[f"{structure}/forces/{head}"] = found["forces"].detach().numpy()
            out |= {
                f"{structure}/numbers": np.array(numbers),
                f"{structure}/positions": places,
                f"{structure}/cell": box,
            }
        np.savez_compressed(folder / f"mace_{name}.npz", **out)
        print(name, {k: tuple(v.shape) for k, v in out.items() if "U_matrix" in k})


if __name__ == "__main__":
    main()
