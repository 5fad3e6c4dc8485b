"""Makes sevennet_sorted.pth and .json beside it: a random model of today's package, its energy, forces and stress.

Run once, in an environment with sevenn 0.13, without irrepc:  python make_sevennet.py.  Since sevenn 0.11 the columns
of the last radial matrix are sorted; the published networks are older.  Results are those of the calculator, float32.
"""

import copy
import json
from pathlib import Path

import numpy as np
import sevenn
import torch
from ase.build import molecule
from sevenn._const import DEFAULT_E3_EQUIVARIANT_MODEL_CONFIG
from sevenn.calculator import SevenNetCalculator
from sevenn.model_build import build_E3_equivariant_model

OPTIONS = {
    "version": sevenn.__version__,
    "cutoff": 4.0,
    "channel": 4,
    "lmax": 2,
    "is_parity": False,
    "num_convolution_layer": 3,
    "radial_basis": {"radial_basis_name": "bessel", "bessel_basis_num": 5},
    "cutoff_function": {"cutoff_function_name": "XPLOR", "cutoff_on": 3.5},
    "self_connection_type": "linear",
    "weight_nn_hidden_neurons": [6, 5],
    "conv_denominator": [5.0, 6.0, 7.0],
    "chemical_species": ["C", "H", "O"],
    "_number_of_species": 3,
    "_type_map": {6: 0, 1: 1, 8: 2},
    "shift": [-1.0, -2.0, -3.0],
    "scale": [1.5, 1.5, 1.5],
    "dtype": "single",
    "_model_type": "E3_equivariant_model",
}


def main() -> None:
    here = Path(__file__).parent
    torch.manual_seed(0)
    config = {**copy.deepcopy(DEFAULT_E3_EQUIVARIANT_MODEL_CONFIG), **OPTIONS}
    model = build_E3_equivariant_model(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    content = {"model_state_dict": model.state_dict(), "optimizer_state_dict": {}, "scheduler_state_dict": {}}
    torch.save({**content, "config": config, "epoch": 1}, here / "sevennet_sorted.pth")
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.1, seed=1)
    atoms.set_cell(np.array([[4.5, 0.2, 0], [0, 5, 0.3], [0.1, 0, 4.6]]))
    atoms.pbc = True
    atoms.calc = SevenNetCalculator(str(here / "sevennet_sorted.pth"), device="cpu")
    found = {
        "numbers": atoms.numbers.tolist(),
        "positions": atoms.positions.tolist(),
        "cell": atoms.cell.array.tolist(),
        "energy": float(atoms.get_potential_energy()),
        "forces": atoms.get_forces().tolist(),
        "stress": atoms.get_stress().tolist(),
    }
    (here / "sevennet_sorted.json").write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
