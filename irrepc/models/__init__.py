"""Networks, each readable beside its paper, the potential that differentiates them, and the file they are saved in."""

from irrepc.models.checkpoint import load_model, save_model
from irrepc.models.equiformer import Equiformer
from irrepc.models.equiformer_config import EquiformerConfig
from irrepc.models.equiformer_v2 import EquiformerV2, EquiformerV2Config
from irrepc.models.esen import ESEN, DirectESEN, ESENConfig
from irrepc.models.mace import MACE, MACEConfig
from irrepc.models.nequip import NequIP, NequIPConfig
from irrepc.models.potential import Potential, Prediction, energy_and_forces, predict
from irrepc.models.sevennet import SevenNet, SevenNetConfig
from irrepc.models.tfn import TFN, TFNConfig, complete_graph
from irrepc.models.tfn_tasks import TFNClassifier, TFNEnergy
from irrepc.models.uma import UMA, Systems, UMAConfig, UMAOf

__all__ = [
    "ESEN",
    "MACE",
    "TFN",
    "UMA",
    "DirectESEN",
    "ESENConfig",
    "Equiformer",
    "EquiformerConfig",
    "EquiformerV2",
    "EquiformerV2Config",
    "MACEConfig",
    "NequIP",
    "NequIPConfig",
    "Potential",
    "Prediction",
    "SevenNet",
    "SevenNetConfig",
    "Systems",
    "TFNClassifier",
    "TFNConfig",
    "TFNEnergy",
    "UMAConfig",
    "UMAOf",
    "complete_graph",
    "energy_and_forces",
    "load_model",
    "predict",
    "save_model",
]
