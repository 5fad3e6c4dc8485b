"""Makes uma_*.npz beside it: random backbones of the authors' UMA, their energies, forces and stresses.

Run once, in an environment with fairchem-core 2.24.0 and torch, without irrepc:  python make_uma.py.  A file holds the
arguments (JSON), weights (w/), a batch of two structures with charges and spins (in/) and what came out (out/), in
float64. The plain backbone is run: a mixture of experts, once merged, is the same.
"""

import json
from pathlib import Path

import numpy as np
import torch
import vesin
from ase import Atoms
from fairchem.core.models.uma.escn_md import MLP_EFS_Head, eSCNMDBackbone

PLAIN = {
    "max_num_elements": 10,
    "sphere_channels": 4,
    "lmax": 2,
    "mmax": 1,
    "cutoff": 4.0,
    "edge_channels": 4,
    "num_distance_basis": 5,
    "direct_forces": False,
    "regress_forces": True,
    "regress_stress": True,
    "num_layers": 2,
    "hidden_channels": 4,
    "norm_type": "rms_norm_sh",
    "act_type": "gate",
    "ff_type": "spectral",
}
MODELS = {
    "waves": {"chg_spin_emb_type": "pos_emb", "dataset_mapping": {"omol": "omol", "oc20": "oc20", "oc": "oc20"}},
    "table": {
        "chg_spin_emb_type": "rand_emb",
        "dataset_mapping": {"omol": "omol", "oc": "oc"},
        "charge_balanced_channels": [0, 1],
        "spin_balanced_channels": [2],
    },
    "affine": {"chg_spin_emb_type": "lin_emb", "use_dataset_embedding": False},
}
CUTOFF = PLAIN["cutoff"]
SOLID = Atoms(
    "HCOH",
    positions=[[0.1, 0.2, 0.0], [0.9, 1.4, 0.3], [2.0, 0.3, 1.1], [1.2, 2.3, 1.7]],
    cell=[[5.1, 0.0, 0.2], [0.4, 4.9, 0.0], [-0.3, 0.5, 4.6]],
    pbc=True,
)
MOLECULE = Atoms("COH", positions=[[0, 0, 0], [0.3, 1.2, 0], [0.8, -0.5, 0.2]], cell=[20, 20, 20], pbc=True)


class Batch(dict):
    """What the backbone reads: a dict whose `get` calls its second argument default."""

    def get(self, key, default=None):
        return dict.get(self, key, default)


def batch(datasets: bool, whole: bool) -> Batch:
    out: dict[str, list] = {name: [] for name in ("pos", "atomic_numbers", "edge_index", "cell_offsets", "batch")}
    first = 0
    for number, atoms in enumerate((SOLID, MOLECULE)):
        i, j, shifts = vesin.ase_neighbor_list("ijS", atoms, CUTOFF)
        out["pos"].append(atoms.positions)
        out["atomic_numbers"].append(atoms.numbers)
        out["edge_index"].append(np.stack([j, i]).astype(np.int64).T + first)
        out["cell_offsets"].append(shifts.astype(np.int64))
        out["batch"].append(np.full(len(atoms), number))
        first += len(atoms)
    made = Batch({name: torch.as_tensor(np.concatenate(parts)) for name, parts in out.items()})
    made["nedges"] = torch.as_tensor([len(part) for part in out["edge_index"]])
    made["edge_index"] = made["edge_index"].T.contiguous()
    made["natoms"] = torch.as_tensor([len(SOLID), len(MOLECULE)])
    made["cell"] = torch.as_tensor(np.stack([SOLID.cell.array, MOLECULE.cell.array]))
    kind = torch.int64 if whole else torch.float64
    made["charge"], made["spin"] = torch.tensor([1, -2], dtype=kind), torch.tensor([0, 3], dtype=kind)
    if datasets:
        made["dataset"] = ["omol", "oc"]
    return made


def main() -> None:
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double  # the affine embedding asks for float32 whatever the weights are
    for name, changed in MODELS.items():
        torch.manual_seed(3)
        arguments = PLAIN | changed
        backbone = eSCNMDBackbone(**arguments).eval()
        head = MLP_EFS_Head(backbone, wrap_property=False).eval()
        with torch.no_grad():
            for parameter in (*backbone.parameters(), *head.parameters()):
                parameter.add_(0.2 * torch.randn_like(parameter))
        given = batch(arguments.get("use_dataset_embedding", True), changed["chg_spin_emb_type"] == "rand_emb")
        arrays = {f"in/{key}": value.detach().clone().numpy() for key, value in given.items() if key != "dataset"}
        features = backbone(given)
        found = head(given, features) | {"node_embedding": features["node_embedding"]}
        arrays |= {
            f"out/{key}": found[key].detach().numpy() for key in ("node_embedding", "energy", "forces", "stress")
        }
        state = {f"backbone.{k}": v for k, v in backbone.state_dict().items() if "Jd_" not in k and "wigner" not in k}
        state |= {f"head.{k}": v for k, v in head.state_dict().items()}
        arrays |= {f"w/{key}": value.numpy() for key, value in state.items()}
        np.savez_compressed(Path(__file__).parent / f"uma_{name}.npz", config=json.dumps(arguments), **arrays)


if __name__ == "__main__":
    main()
