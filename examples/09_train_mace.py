"""Train MACE on a hundred frames of ethanol for twenty seconds (or as many as asked for); give it to its authors."""

import sys

import numpy as np
import torch

from irrepc.interop.mace import to_mace
from irrepc.models import MACE, MACEConfig
from irrepc.nn.neighbours import neighbours
from irrepc.train.data import ethanol, force_statistics, split
from irrepc.train.evaluate import evaluate
from irrepc.train.fit import Epoch, fit
from irrepc.train.frames import reference_energies

seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 20.0
torch.set_num_threads(1)  # batches this small gain nothing from a second one
cutoff = 4.5

# Labelled frames: energies in eV and forces in eV/Å of GFN2-xTB, shipped with the package.
train, validation = split(ethanol("train"), (100, 30), seed=0)
energies = reference_energies(train)
config = MACEConfig(
    species=train.species,
    cutoff=cutoff,
    layers=2,
    lmax=2,
    channels=16,
    degrees=(0, 1),
    correlation=3,
    radial_widths=(32, 32),
    avg_num_neighbors=float(np.mean([len(neighbours(f.positions, cutoff=cutoff).receivers) / 9 for f in train])),
    energies=tuple(energies.values()),
    scales=(force_statistics(train).root_mean_square,),
)
model = MACE(config, seed=0)
print(f"MACE of {sum(weight.numel() for weight in model.parameters()):,} weights")


def say(part: float, epoch: Epoch | None) -> None:
    if epoch is not None and epoch.number % 10 == 0 and epoch.number not in told:
        told.add(epoch.number)
        errors = epoch.validation
        print(f"epoch {epoch.number:4}: forces {errors.force_mae:6.1f} meV/Å, energy {errors.energy_mae:6.2f} meV/atom")


told: set[int] = set()
history = fit(
    model, train, validation, seconds=seconds, batch_size=5, learning_rate=0.01, energy_weight=10, seed=0, progress=say
)

# Another trajectory, which no training frame comes from.
test = ethanol("test_300K")
errors = evaluate(model, test).errors
print(f"{history.steps} steps; test_300K: forces {errors.force_mae:.1f} meV/Å, energy {errors.energy_mae:.2f} meV/atom")
assert errors.force_mae < 1e3 * force_statistics(test).mean_absolute, "worse than saying zero"

# The authors' package takes it from here: ScaleShiftMACE(**arguments), then load_state_dict(state, strict=False).
arguments, state = to_mace(model)
print(f"written back as {arguments['class']} of {arguments['hidden_irreps']}: {len(state)} tensors")
