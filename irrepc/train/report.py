"""The report of a demonstration: a page, its pictures as files of their own, and its numbers as JSON."""

from __future__ import annotations

import json
from pathlib import Path

from irrepc.train.findings import Findings, numbers
from irrepc.train.page import page
from irrepc.train.pictures import coupling_sparsity, energy_drift, energy_parity, force_parity, learning_curve

MARKER = "demo.json"
"""The file by which a folder is known as a report's."""


def write_report(folder: Path, findings: Findings) -> Path:
    """Write report.html, five PNG files and demo.json into `folder`; return the page's path. Needs irrepc[plot]."""
    train = findings.spread["train"]
    pictures = {
        "parity_forces": force_parity(findings.evaluations),
        "parity_energies": energy_parity(findings.evaluations),
        "learning_curve": learning_curve(findings.history, 1e3 * train.mean_absolute),
        "energy_drift": energy_drift(findings.dynamics),
        "coupling_sparsity": coupling_sparsity(findings.manifest["lmax"]),
    }
    for name, png in pictures.items():
        (folder / f"{name}.png").write_bytes(png)
    (folder / MARKER).write_text(json.dumps(numbers(findings), indent=2) + "\n", encoding="utf-8")
    written = folder / "report.html"
    written.write_text(page(findings, pictures), encoding="utf-8")
    return written
