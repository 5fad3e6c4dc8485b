"""Train NequIP on a hundred frames of ethanol for fifteen seconds (or as many as are asked for), save it, load it."""

import sys
import tempfile
from pathlib import Path

import torch

from irrepc.models import NequIP, load_model, save_model
from irrepc.train.configure import configure
from irrepc.train.data import ethanol, force_statistics, split
from irrepc.train.evaluate import evaluate
from irrepc.train.fit import Epoch, fit

seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 15.0
torch.set_num_threads(1)  # batches this small gain nothing from a second one

# Labelled frames: energies in eV and forces in eV/Å of GFN2-xTB, shipped with the package.
train, validation = split(ethanol("train"), (100, 30), seed=0)
spread = force_statistics(validation)
print(f"{train}: mean |force| {1e3 * spread.mean_absolute:.0f} meV/Å")

# The species, the mean number of neighbours, the reference energies and the scale come from the frames.
config = configure(
    train, cutoff=4.5, layers=2, lmax=1, parity=False, features=(16, 16), embedding=16, radial_depth=1, radial_width=32
)
model = NequIP(config, seed=0)
print(f"NequIP of {sum(weight.numel() for weight in model.parameters()):,} weights")


def say(part: float, epoch: Epoch | None) -> None:
    if epoch is not None and epoch.number % 10 == 0 and epoch.number not in told:
        told.add(epoch.number)
        errors = epoch.validation
        print(f"epoch {epoch.number:4}: forces {errors.force_mae:6.1f} meV/Å, energy {errors.energy_mae:6.2f} meV/atom")


told: set[int] = set()
history = fit(
    model, train, validation, seconds=seconds, batch_size=5, learning_rate=0.02, energy_weight=10, seed=0, progress=say
)

# Another trajectory, which no training frame comes from.
test = ethanol("test_300K")
errors = evaluate(model, test).errors
print(f"{history.steps} steps; test_300K: forces {errors.force_mae:.1f} meV/Å, energy {errors.energy_mae:.2f} meV/atom")
assert errors.force_mae < 1e3 * force_statistics(test).mean_absolute, "worse than saying zero"

# A file holds the configuration as JSON and plain tensors: reading it runs no code from it.
with tempfile.TemporaryDirectory() as folder:
    save_model(model, Path(folder) / "ethanol.pt")
    again = load_model(Path(folder) / "ethanol.pt")
same = (evaluate(again, test).forces == evaluate(model, test).forces).all()
print(f"saved and loaded: the forces are the same to the last digit: {same}")
assert same
