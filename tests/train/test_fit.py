"""Training: the loop, what it leaves behind, its errors, and the numbers it is judged by."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from irrepc.models import NequIP, energy_and_forces
from irrepc.nn.graph import Graph, InputError
from irrepc.train.batches import join, label
from irrepc.train.configure import configure
from irrepc.train.data import Frame, Frames, ethanol, force_statistics, reference_energies
from irrepc.train.dynamics import run_nve, velocities
from irrepc.train.evaluate import Errors, evaluate
from irrepc.train.fit import Epoch, TrainingError, fit, warm_up
from irrepc.train.symmetry import random_operations, rotation_error

TRAIN, VALIDATION = ethanol("train").select(range(0, 600, 30)), ethanol("train").select(range(15, 600, 60))


def small(seed: int = 0, dtype: torch.dtype = torch.float32) -> NequIP:
    """A network of a few hundred weights."""
    widths = {"features": (4, 4), "embedding": 4, "radial_depth": 1, "radial_width": 8}
    config = configure(TRAIN, cutoff=3.5, layers=2, lmax=1, parity=False, **widths)
    return NequIP(config, "torch", dtype=dtype, seed=seed)


def weights(model: nn.Module) -> list[Tensor]:
    return [weight.detach().clone() for weight in model.parameters()]


def equal(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


class TestFit:
    def test_learns(self) -> None:
        model = small()
        before = evaluate(model, VALIDATION).errors
        history = fit(model, TRAIN, VALIDATION, epochs=12, batch_size=4, learning_rate=0.02)
        assert [epoch.number for epoch in history.epochs] == list(range(1, 13))
        assert history.steps == 12 * 5
        assert history.stopped == "budget"
        last = history.epochs[-1]
        assert last.validation.force_mae < 0.7 * before.force_mae
        assert last.train.force_mae < 0.7 * history.epochs[0].train.force_mae
        assert 0 < history.epochs[0].seconds < last.seconds

    def test_is_left_with_what_was_validated(self) -> None:
        model = small()
        history = fit(model, TRAIN, VALIDATION, epochs=2, batch_size=4)
        assert evaluate(model, VALIDATION, batch_size=20).errors == history.epochs[-1].validation

    def test_same_arguments_same_weights(self) -> None:
        models = [small() for _ in range(3)]
        for model, seed in zip(models, (1, 1, 2), strict=True):
            fit(model, TRAIN, VALIDATION, epochs=1, batch_size=4, seed=seed)
        assert equal(weights(models[0]), weights(models[1]))
        assert not equal(weights(models[0]), weights(models[2]))

    def test_averages_the_weights(self) -> None:
        moving, averaged = small(), small()
        fit(moving, TRAIN, VALIDATION, epochs=1, batch_size=4, averaging=0.0)
        fit(averaged, TRAIN, VALIDATION, epochs=1, batch_size=4, averaging=0.9)
        start = weights(small())
        far, near = (
            sum(float((a - b).square().sum()) for a, b in zip(weights(model), start, strict=True))
            for model in (moving, averaged)
        )
        assert 0 < near < far

    def test_ends_in_time(self) -> None:
        parts: list[float] = []
        history = fit(
            small(), TRAIN, VALIDATION, seconds=0.5, batch_size=4, progress=lambda part, _: parts.append(part)
        )
        assert parts == sorted(parts)
        assert parts[-1] == 1.0
        assert len(parts) == history.steps + 1
        assert history.epochs[-1].seconds < 5

    @pytest.mark.parametrize(("energy", "forces"), [(1.0, 0.0), (0.0, 1.0)])
    def test_each_weight_counts(self, energy: float, forces: float) -> None:
        model, both = small(), small()
        fit(model, TRAIN, VALIDATION, epochs=1, energy_weight=energy, force_weight=forces)
        fit(both, TRAIN, VALIDATION, epochs=1)
        assert not equal(weights(model), weights(both))

    def test_an_interrupt_leaves_the_averaged_weights(self) -> None:
        model, start = small(), weights(small())

        def interrupt(part: float, epoch: Epoch | None) -> None:
            if epoch is not None and epoch.number == 2 and part < 1:
                raise KeyboardInterrupt

        history = fit(model, TRAIN, VALIDATION, epochs=50, batch_size=4, progress=ends_once(interrupt))
        assert history.stopped == "interrupt"
        assert len(history.epochs) == 2
        assert history.steps == 11
        assert not equal(weights(model), start)
        assert np.isfinite(evaluate(model, VALIDATION).errors.force_mae)

    def test_a_loss_that_is_not_finite_names_the_batch(self) -> None:
        model = small()
        with torch.no_grad():
            next(model.readout.parameters()).fill_(torch.nan)
        with pytest.raises(TrainingError, match=r"loss of nan in epoch 1, training frames \[\d+(, \d+){3}\]; exp"):
            fit(model, TRAIN, VALIDATION, epochs=1, batch_size=4)

    def test_a_loss_that_explodes(self) -> None:
        model = small()
        with pytest.raises(TrainingError, match="lower the learning rate"):
            fit(model, TRAIN, VALIDATION, epochs=200, batch_size=4, learning_rate=1e30)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"epochs": None}, "got neither epochs nor seconds"),
            ({"epochs": 0}, "got epochs = 0; expected an integer >= 1"),
            ({"seconds": -1.0}, "got seconds = -1.0"),
            ({"batch_size": 0}, "got batch_size = 0"),
            ({"learning_rate": float("nan")}, "got learning_rate = nan"),
            ({"averaging": 1.0}, "got averaging = 1.0"),
        ],
    )
    def test_impossible_arguments(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(InputError, match=f"fit: {message}"):
            fit(small(), TRAIN, VALIDATION, **{"epochs": 1, **change})

    def test_an_unknown_element(self) -> None:
        gold = Frames((Frame.of([79], np.zeros((1, 3)), 0.0, np.zeros((1, 3))),))
        with pytest.raises(InputError, match=r"got atomic numbers \[79\]"):
            fit(small(), gold, VALIDATION, epochs=1)

    def test_warm_up_changes_nothing(self) -> None:
        model = small()
        assert warm_up(model, TRAIN) > 0
        assert equal(weights(model), weights(small()))
        assert all(weight.grad is None for weight in model.parameters())


def ends_once(interrupt: Callable[[float, Epoch | None], None]) -> Callable[[float, Epoch | None], None]:
    """Let only the first interrupt through: fit reports once more when it has ended."""
    sent = []

    def progress(part: float, epoch: Epoch | None) -> None:
        if not sent:
            try:
                interrupt(part, epoch)
            except KeyboardInterrupt:
                sent.append(part)
                raise

    return progress


class TestEvaluate:
    def test_errors_of_known_differences(self) -> None:
        errors = Errors.of(np.array([0.001, -0.003]), np.array([[0.0, 0.02, -0.04]]))
        assert errors.energy_mae == pytest.approx(2.0)
        assert errors.energy_rmse == pytest.approx(np.sqrt(5.0))
        assert errors.force_mae == pytest.approx(20.0)
        assert errors.force_rmse == pytest.approx(np.sqrt(2000 / 3))

    def test_batches_do_not_matter(self) -> None:
        model = small(dtype=torch.float64)
        one, many = evaluate(model, TRAIN, batch_size=1), evaluate(model, TRAIN, batch_size=7)
        assert np.allclose(one.forces, many.forces, rtol=0, atol=1e-12)
        assert np.allclose(one.energies, many.energies, rtol=0, atol=1e-10)

    def test_sizes_of_structures(self) -> None:
        alone = replace(TRAIN, frames=(*TRAIN.select([0, 1]), *ethanol("isolated_atoms")))
        found = evaluate(small(), alone)
        assert found.atoms.tolist() == [9, 9, 1, 1, 1]
        difference = np.abs(found.energies - alone.energies) / found.atoms
        assert found.errors.energy_mae == pytest.approx(1e3 * difference.mean())

    def test_labels_are_joined_in_order(self) -> None:
        model = small()
        joined = join(label(TRAIN, model)[2:4])
        assert joined.energy.tolist() == TRAIN.energies[2:4].tolist()
        assert np.allclose(joined.forces.numpy(), TRAIN.select([2, 3]).forces, rtol=1e-6)
        assert joined.graph.num_graphs == 2
        assert energy_and_forces(model, joined.graph).forces.shape == joined.forces.shape


def test_configure_reads_the_frames() -> None:
    config = configure(TRAIN, cutoff=1.2, lmax=1, features=(4, 4))
    assert config.species == (1, 6, 8)
    # within 1.2 Å only the bonds to hydrogen count: 6 of them, both ways, among 9 atoms
    assert config.avg_num_neighbors == pytest.approx(12 / 9, abs=0.05)
    assert config.scales == (force_statistics(TRAIN).root_mean_square,) * 3
    assert config.shifts == tuple(reference_energies(TRAIN).values())
    assert 6 * config.shifts[0] + 2 * config.shifts[1] + config.shifts[2] == pytest.approx(TRAIN.energies.mean())


class Lopsided(nn.Module):
    """Energies that know where x points: E_i = weight · x_i."""

    species, cutoff = (1, 6, 8), 3.0

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))

    def forward(self, graph: Graph) -> Tensor:
        return self.weight * graph.positions[:, 0]


class TestSymmetry:
    @pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-4), (torch.float64, 1e-12)])
    def test_a_network_errs_by_rounding(self, dtype: torch.dtype, limit: float) -> None:
        error = rotation_error(small(dtype=dtype), TRAIN.select([0, 1]))
        assert error.dtype == str(dtype).removeprefix("torch.")
        assert 0 < error.forces < limit
        assert error.energy < limit
        assert error.force_scale > 0.01

    def test_a_lopsided_model_is_found_out(self) -> None:
        error = rotation_error(Lopsided(), TRAIN.select([0]))  # type: ignore[arg-type]
        assert error.forces > 0.5
        assert error.energy > 0.1

    def test_operations_are_orthogonal_with_both_determinants(self) -> None:
        operations = random_operations(4, seed=3)
        assert [round(float(np.linalg.det(q))) for q in operations] == [1, -1, 1, -1]
        assert all(np.allclose(q @ q.T, np.eye(3), rtol=0, atol=1e-14) for q in operations)
        assert not np.allclose(operations[0], -operations[1])


class TestDynamics:
    def test_energy_is_kept_better_with_a_smaller_step(self) -> None:
        model = small(dtype=torch.float64)
        coarse = run_nve(model, TRAIN[0], steps=20, timestep=1.0, every=1, seed=1)
        fine = run_nve(model, TRAIN[0], steps=80, timestep=0.25, every=4, seed=1)
        assert coarse.time.tolist() == pytest.approx(fine.time.tolist())
        assert len(coarse.time) == 21
        assert np.ptp(fine.total) < 0.3 * np.ptp(coarse.total) < 0.3 * np.ptp(coarse.kinetic)

    def test_velocities_are_those_of_a_temperature(self) -> None:
        positions = TRAIN[0].positions
        masses, energy = np.array([12.0, 12.0, 16.0, *(1.0,) * 6]), 0.7
        kinetic = []
        for seed in range(400):
            drawn = velocities(masses, positions, energy, np.random.default_rng(seed))
            assert np.allclose(masses @ drawn, 0, atol=1e-12)
            assert np.allclose(masses @ np.cross(positions, drawn), 0, atol=1e-12)
            kinetic.append(0.5 * float(masses @ np.square(drawn).sum(1)))
        # 21 motions hold ½ energy each; the mean of 400 draws is known to 1.5 %
        assert np.mean(kinetic) == pytest.approx(21 / 2 * energy, rel=0.06)

    @pytest.mark.parametrize("atoms", [1, 2])
    def test_velocities_of_a_point_and_a_line(self, atoms: int) -> None:
        positions = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.1]])[:atoms]
        drawn = velocities(np.ones(atoms), positions, 1.0, np.random.default_rng(0))
        assert np.allclose(drawn[:, :2], 0, atol=1e-12)  # a line keeps its vibration alone
        assert bool(drawn.any()) == (atoms == 2)

    def test_starts_at_the_temperature(self) -> None:
        starts = [run_nve(small(), TRAIN[0], kelvin=300.0, steps=0, seed=seed).temperature[0] for seed in range(40)]
        # a relative spread of √(2/21) = 0.31 over 21 motions, so 0.05 for the mean of 40
        assert np.mean(starts) == pytest.approx(300, rel=0.2)

    def test_drift_and_wobble_of_a_known_line(self) -> None:
        run = run_nve(small(), TRAIN[0], steps=10, every=1, seed=0)
        sloped = replace(run, potential=9e-3 * (2.0 * run.time + 0.1) - run.kinetic)
        assert sloped.drift == pytest.approx(2.0)
        assert sloped.wobble == pytest.approx(0.0, abs=1e-9)
