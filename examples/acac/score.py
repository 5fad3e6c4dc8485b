"""Errors of trained acetylacetone models beside the published ones: python examples/acac/score.py RUN [RUN ...]."""

import json
import sys
from pathlib import Path

import yaml

# Root mean square errors after training on the 500 frames at 300 K: meV of the molecule / meV/Å, at 300 K and 600 K.
# Quoted from memory of arXiv 2205.06643 (BOTNet, NequIP) and 2206.07697 (MACE) and not checked against the papers.
# There the dihedral scan and the proton transfer are curves, so there is no number to stand beside.
PUBLISHED = {
    "BOTNet (published)": ((0.89, 6.3), (6.2, 29.8)),
    "NequIP (published)": ((0.81, 5.9), (6.04, 27.8)),
    "MACE (published)": ((0.9, 5.1), (4.6, 22.4)),
}
SCANS = ("dihedral", "H transfer")

print("| model | 300 K: E, F | 600 K: E, F | dihedral: E | H transfer: E | epochs | seconds | seed |")
print("|---|---:|---:|---:|---:|---:|---:|---:|")
for name, sets in PUBLISHED.items():
    cells = [f"{energy:.2f}, {forces:.1f}" for energy, forces in sets]
    print(f"| {name} | {' | '.join(cells)} | – | – | – | – | – |")
for argument in sys.argv[1:]:
    run = Path(argument)
    errors = json.loads((run / "errors.json").read_text())
    settings = yaml.safe_load((run / "settings.yaml").read_text())
    header, *_, last = (line.split(",") for line in (run / "metrics.csv").read_text().splitlines())
    end = dict(zip(header, map(float, last), strict=True))
    cells = [f"{errors[t]['energy_rmse_per_frame']:.2f}, {errors[t]['force_rmse']:.1f}" for t in ("300 K", "600 K")]
    # of a scan the shape counts: both curves from their own means
    cells += [f"{errors[scan]['relative_energy_rmse']:.2f}" for scan in SCANS]
    cells += [f"{end['epoch']:.0f}", f"{end['seconds']:.0f}", str(settings["run"]["seed"])]
    print(f"| {run.name} ({settings['model']['network']}) | {' | '.join(cells)} |")
