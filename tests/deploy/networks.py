"""Small networks of each kind that can be deployed, and structures they are tried on."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from irrepc.deploy.compile import compile_network
from irrepc.deploy.program import Program
from irrepc.models import MACE, MACEConfig, NequIP, NequIPConfig, SevenNet, SevenNetConfig

Network = NequIP | MACE | SevenNet
SPECIES = (1, 6, 29)
NAMES = ("nequip", "nequip of pairs", "sevennet", "mace", "mace of pairs")


def network(name: str) -> Network:
    """A network with random weights, float64."""
    match name:
        case "nequip":
            config = NequIPConfig(SPECIES, 4.0, layers=3, lmax=2, features=(4, 3, 2), embedding=5, radial_width=8)
            return NequIP(config, dtype=torch.float64, seed=1)
        case "nequip of pairs":
            cutoffs = (3.0, 3.5, 4.0, 3.2, 3.6, 4.0, 4.0, 4.0, 3.9)
            more = {"neighbors": (8.0, 12.0, 15.0), "parity": False, "readout_depth": 1, "readout_width": 4}
            config = NequIPConfig(SPECIES, 4.0, cutoffs, 2, 1, features=(4, 4), embedding=4, radial_width=8, **more)
            return NequIP(config, dtype=torch.float64, seed=2)
        case "sevennet":
            config = SevenNetConfig(
                SPECIES, 4.0, "xplor", cutoff_on=3.5, layers=3, lmax=1, features=(4, 3), radial_widths=(8,),
                denominators=(5.0, 5.0, 5.0), readout_width=4, scales=(1.5, 1.5, 1.2), shifts=(0.1, -3.0, -2.0),
            )  # fmt: skip
            return SevenNet(config, dtype=torch.float64, seed=3)
        case "mace":
            config = MACEConfig(
                SPECIES, 4.0, lmax=2, channels=4, correlation=3, radial_widths=(8,), readout_width=4,
                energies=(-1.0, -30.0, 2.0), scales=(0.7,), shifts=(0.3,),
            )  # fmt: skip
            return MACE(config, dtype=torch.float64, seed=4)
        case _:
            config = MACEConfig(
                SPECIES, 4.0, 3, lmax=1, channels=4, correlation=2, residual=False, transform="agnesi",
                radial_widths=(8,), heads=("a", "b"), gate="none",
            )  # fmt: skip
            model = MACE(config, dtype=torch.float64, seed=5)
            model.head = 1
            return model


@cache
def program(name: str, dtype: str = "float64") -> Program:
    """The network deployed, tables right to 1e-6 of their largest slope."""
    return compile_network(network(name), tolerance=1e-6, dtype=dtype)


def structures() -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray | None, bool | tuple[bool, bool, bool]]]:
    """numbers, positions (Å), cell, pbc: a molecule, a slab, a thin sheared cell, one atom amid its own images."""
    generator = np.random.default_rng(7)
    molecule = np.array([[0, 0, 0], [1.4, 0.1, 0], [2.1, 1.3, 0.2], [-0.7, 0.9, 0.4], [-0.6, -0.9, -0.3]])
    box = np.array([[4.2, 0.3, 0], [0, 3.9, 0.5], [0.4, 0, 6.0]])
    inside = np.array([[0.1, 0.1, 0.1], [0.6, 0.2, 0.3], [0.2, 0.6, 0.55], [0.7, 0.7, 0.8]]) @ box
    copper = 1.8075 * (np.ones((3, 3)) - np.eye(3))
    return {
        "molecule": (np.array([6, 6, 1, 1, 1]), molecule, None, False),
        "slab": (np.array([29, 6, 29, 1]), inside, box, (True, True, False)),
        "thin cell": (np.array([29, 6, 29, 1]), inside + generator.normal(0, 0.1, (4, 3)), box, True),
        "one atom": (np.array([29]), np.zeros((1, 3)), copper, True),
    }
