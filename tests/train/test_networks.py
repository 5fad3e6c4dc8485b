"""Every network can be trained: made for the statistics of the frames, its loss reaches its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from irrepc.errors import InputError
from irrepc.models import NequIP, load_model, predict, save_model
from irrepc.train.batches import join, label
from irrepc.train.configuration import read
from irrepc.train.data import Frame, Frames, ethanol, save_frames
from irrepc.train.evaluate import Errors, evaluate
from irrepc.train.losses import Weights, counts_of, differences, loss_of
from irrepc.train.networks import make_network
from irrepc.train.settings import NETWORKS, ModelSettings, Settings
from irrepc.train.statistics import Statistics

ENERGIES = (-10.7, -48.8, -102.6)
FOUND = Statistics(2, (1, 6, 8), 6.5, 9.0, 1.3, ENERGIES, -4.5, 0.02)
SMALL: dict[str, dict[str, Any]] = {
    "nequip": {"layers": 1, "lmax": 1, "parity": False, "features": (4, 4), "embedding": 4, "radial_width": 8},
    "mace": {"layers": 2, "lmax": 1, "channels": 4, "degrees": (0, 1), "correlation": 2, "radial_widths": (8,)},
    "esen": {"layers": 1, "channels": 4, "hidden": 4, "edge_channels": 4, "lmax": 1, "mmax": 1, "basis_size": 4},
    "equiformer": {"layers": 1, "features": "8x0e+4x1e", "harmonics": "1x0e+1x1e", "head": "4x0e+2x1e", "heads": 2}
    | {"hidden": "8x0e+4x1e", "outputs": "8x0e", "basis_size": 8, "radial_widths": (8,)},
    "equiformer_v2": {"layers": 1, "channels": 4, "hidden": 4, "heads": 2, "alpha": 4, "value": 4, "feed_hidden": 4}
    | {"edge_channels": 4, "lmax": 1, "mmax": 1},
    "tfn": {"features": ("4x0e+4x1e", "4x0e"), "embedding": 4},
}
SMALL["esen_direct"] = SMALL["esen"]


@pytest.mark.parametrize("network", NETWORKS)
def test_is_made_for_the_frames_and_learns(network: str) -> None:
    settings = ModelSettings(network=network, cutoff=3.5, options=SMALL[network], backend="torch")
    model = make_network(settings, FOUND, seed=0)
    batch = join(label(ethanol("train").select([0, 300]), model))
    found = predict(model, batch.graph, create_graph=True)
    # references are added in float64: the rest is of the size of the scale
    lone = sum(ENERGIES[k] for k in batch.graph.species[:9].tolist()) - 4.5 * 9
    assert found.energy.dtype == torch.float64
    assert float((found.energy.detach() - lone).abs().max()) < 100
    gaps = differences(found, batch)
    loss = loss_of(gaps, counts_of(gaps), Weights(), "square", 1.3)
    weights = list(model.parameters())
    gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    reached = [g for g in gradients if g is not None]
    assert all(bool(torch.isfinite(g).all()) for g in reached)
    assert len(reached) > 0.6 * len(weights)
    assert sum(float(g.abs().sum()) > 0 for g in reached) > 0.6 * len(reached)


@pytest.mark.parametrize("network", ["esen", "equiformer_v2"])
def test_shifts_are_saved(network: str, tmp_path: Path) -> None:
    settings = ModelSettings(network=network, cutoff=3.5, options=SMALL[network], backend="torch")
    model = make_network(settings, FOUND, seed=0)
    save_model(model, tmp_path / "a.pt")
    frames = ethanol("train").select([0])
    again = load_model(tmp_path / "a.pt", "torch")
    assert np.array_equal(evaluate(model, frames).energies, evaluate(again, frames).energies)


def crystals(count: int, seed: int) -> Frames:
    """Shaken cells of three atoms with labels that mean nothing, but are smooth enough to be fitted a little."""
    generator = np.random.default_rng(seed)
    base = np.array([[0.0, 0.0, 0.0], [1.9, 0.2, 0.1], [0.1, 1.8, 2.0]])
    frames = []
    for _ in range(count):
        shake = generator.normal(0, 0.1, base.shape)
        stress = np.diag(shake[1]) * 0.1
        energy = float(np.square(shake).sum()) * 5 - 3.0
        cell = np.diag([4.0, 4.2, 4.4])
        frames.append(Frame.of([1, 6, 8], base + shake, energy, -10 * shake, pbc=(True,) * 3, cell=cell, stress=stress))
    return Frames(tuple(frames))


def test_stress_and_other_choices(tmp_path: Path) -> None:
    """Stress, Huber's loss, AdamW, a plateau, early stopping, float64, TensorBoard and workers: all in one training."""
    pytest.importorskip("lightning", reason="lightning, on which training stands, is not installed")
    from irrepc.train.run import train

    save_frames(tmp_path / "a.npz", crystals(12, 0))
    content = {
        "data": {"train": "a.npz", "validation": 0.25, "workers": 1},
        "model": {"cutoff": 3.0, "options": SMALL["nequip"], "backend": "torch", "dtype": "float64"},
        "loss": {"stress": 1.0, "form": "huber"},
        "optimizer": {"name": "adamw", "schedule": "plateau", "patience": 1, "factor": 0.1, "rate": 1e-30},
        "run": {"epochs": 9, "batch": 4, "validate_every": 1, "patience": 3, "threads": 1},
    }
    train(read(Settings, content, ""), tmp_path / "run", Console(quiet=True), base=tmp_path)
    rows = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["irrepc"]["history"]["rows"]
    assert rows[0]["validation_stress_rmse"] > 0
    # at this rate no bit of a weight changes: four validations after the first nothing was better
    assert len(rows) == 5
    assert [row["rate"] for row in rows] == pytest.approx([1e-30, 1e-30, 1e-30, 1e-31, 1e-31])
    assert any((tmp_path / "run" / "logs").iterdir())
    errors = json.loads((tmp_path / "run" / "errors.json").read_text())["validation"]
    assert errors["stress_rmse"] is not None


class TestEvaluation:
    def test_tables(self) -> None:
        model = NequIP(make_network(ModelSettings(options=SMALL["nequip"], backend="torch"), FOUND, 0).config, "torch")
        frames = ethanol("test_300K").select(range(6))
        whole = evaluate(model, frames, batch_size=4)
        elements = whole.by_element()
        assert {z: count for z, (count, *_) in elements.items()} == {1: 36, 6: 12, 8: 6}
        squares = sum(count * rmse**2 for count, _, rmse in elements.values()) / 54
        assert squares**0.5 == pytest.approx(whole.errors.force_rmse)
        classes = whole.by_force(5)
        assert sum(count for *_, count, _ in classes) == 54
        assert all(low <= high for low, high, *_ in classes)
        shifted = whole.energies - whole.energy_labels
        assert whole.relative_energy_rmse == pytest.approx(1e3 * float(shifted.std()))

    def test_missing_forces_are_left_out(self) -> None:
        frame = ethanol("test_300K")[0]
        bare = Frame.of(frame.numbers, frame.positions, frame.energy, None)
        model = make_network(ModelSettings(options=SMALL["nequip"], backend="torch"), FOUND, 0)
        both, one = evaluate(model, Frames((frame, bare))), evaluate(model, Frames((frame,)))
        assert both.errors.force_rmse == pytest.approx(one.errors.force_rmse)
        assert np.isnan(evaluate(model, Frames((bare,))).errors.force_rmse)
        assert np.isnan(Errors.of(np.zeros(1), np.full((2, 3), np.nan)).force_mae)

    def test_no_stress_of_a_force_head(self) -> None:
        settings = ModelSettings(network="esen_direct", cutoff=3.5, options=SMALL["esen"], backend="torch")
        with pytest.raises(InputError, match="evaluate: got stress of DirectESEN"):
            evaluate(make_network(settings, FOUND, 0), ethanol("test_300K").select([0]), stress=True)
