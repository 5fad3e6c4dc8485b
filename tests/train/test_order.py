"""Batches: every frame once, levelled, the same after any stop; losses that add up, rates, averages."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from irrepc.errors import InputError
from irrepc.models.potential import Prediction
from irrepc.train.average import Average
from irrepc.train.batches import Labelled
from irrepc.train.cache import frame_set
from irrepc.train.data import ethanol, save_frames
from irrepc.train.history import History
from irrepc.train.labels import Labels
from irrepc.train.losses import FORMS, Tally, Weights, counts_of, differences, loss_of
from irrepc.train.order import Batches, Graphs, batches_of, split_batch
from irrepc.train.rates import Plateau, Rate


class TestOrder:
    @pytest.mark.parametrize(("frames", "size", "parts"), [(23, 5, 1), (500, 7, 3), (3, 2, 2), (9, 100, 4)])
    def test_every_frame_once(self, frames: int, size: int, parts: int) -> None:
        loads = np.random.default_rng(0).integers(1, 1000, frames)
        batches = batches_of(loads, size, seed=1, epoch=2, parts=parts)
        assert sorted(np.concatenate(batches).tolist()) == list(range(frames))
        for batch in batches:
            pieces = split_batch(batch, loads, parts)
            assert min(map(len, pieces)) >= 1 and max(map(len, pieces)) - min(map(len, pieces)) <= 1
            assert sorted(np.concatenate(pieces).tolist()) == sorted(batch.tolist())

    def test_is_a_function_of_seed_and_epoch(self) -> None:
        loads = np.ones(40, dtype=np.int64)

        def drawn(seed: int, epoch: int) -> list[int]:
            return np.concatenate(batches_of(loads, 4, seed=seed, epoch=epoch)).tolist()

        assert drawn(1, 2) == drawn(1, 2)
        assert drawn(1, 2) != drawn(1, 3) and drawn(1, 2) != drawn(2, 2)

    def test_levels_the_work(self) -> None:
        """Frames of very different sizes: without dealing, the heaviest of 40 batches is twice the mean."""
        loads = np.random.default_rng(0).pareto(1.5, 640).astype(np.int64) * 100 + 50
        loads = np.minimum(loads, 1500)
        batches = batches_of(loads, 16, seed=0, epoch=0)
        work = np.array([loads[batch].sum() for batch in batches])
        assert work.max() < 1.25 * work.mean()
        plain = np.array([loads[p].sum() for p in np.array_split(np.random.default_rng(0).permutation(640), 40)])
        assert plain.max() > 1.5 * plain.mean()
        halves = [[loads[part].sum() for part in split_batch(batch, loads, 2)] for batch in batches]
        assert np.mean([max(pair) / sum(pair) for pair in halves]) < 0.56

    def test_too_few_frames(self) -> None:
        with pytest.raises(InputError, match="got 1 frames for 2 processes"):
            batches_of(np.ones(1, dtype=np.int64), 4, seed=0, epoch=0, parts=2)


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Graphs:
    folder = tmp_path_factory.mktemp("batches")
    save_frames(folder / "a.npz", ethanol("train").select(range(12)))
    frames = frame_set([folder / "a.npz"], Labels(), cutoff=4.0, folder=folder)
    return Graphs(frames, np.arange(12), (1, 6, 8), torch.float32)


class TestBatches:
    def made(self, graphs: Graphs, workers: int = 0) -> Batches:
        return Batches(graphs, lambda epoch: batches_of(graphs.loads, 5, seed=0, epoch=epoch), workers=workers)

    def test_goes_on_where_it_stood(self, graphs: Graphs) -> None:
        whole, begun, rest = (self.made(graphs) for _ in range(3))
        every = [batch.origin.tolist() for _ in range(2) for batch in whole]
        assert len(every) == 2 * len(whole) == 6
        stream = iter(begun)
        seen = [next(stream).origin.tolist() for _ in range(2)]
        rest.load_state_dict(begun.state_dict())
        seen += [batch.origin.tolist() for _ in range(2) for batch in rest]
        assert seen == every

    def test_workers_give_the_same(self, graphs: Graphs, monkeypatch: pytest.MonkeyPatch) -> None:
        """Also where the set is too large to be kept, and after kernels' threads were started in this process."""
        from irrepc.models import NequIP, NequIPConfig, energy_and_forces

        config = NequIPConfig((1, 6, 8), cutoff=4.0, layers=1, lmax=1, features=(4, 4), parity=False)
        model = NequIP(config, "torch")
        energy_and_forces(model, graphs[0].graph)
        alone = list(self.made(graphs))
        monkeypatch.setattr(graphs, "kept", None)
        for batch, other in zip(alone, self.made(graphs, workers=2), strict=True):
            assert torch.equal(batch.forces, other.forces)
            assert torch.equal(batch.graph.senders.values, other.graph.senders.values)
            assert torch.equal(
                energy_and_forces(model, other.graph).energy, energy_and_forces(model, batch.graph).energy
            )


def batch_and_answer() -> tuple[Labelled, Prediction]:
    """Two molecules with labels and answers off by known amounts; the second has no forces."""
    from irrepc.models import NequIP, NequIPConfig
    from irrepc.train.batches import join, label

    model = NequIP(NequIPConfig((1, 6, 8), cutoff=3.0, layers=1, lmax=0, features=(1,), parity=False), "torch")
    batch = join(label(ethanol("train").select([0, 1]), model))
    forces = batch.forces.clone()
    forces[9:] = torch.nan
    batch = batch._replace(forces=forces)
    answer = torch.where(forces.isnan(), 5.0, forces + 0.1)
    return batch, Prediction(batch.energy + torch.tensor([0.9, -1.8]), batch.energy, answer, None)


class TestLosses:
    def test_differences_where_there_are_labels(self) -> None:
        batch, found = batch_and_answer()
        gaps = differences(found, batch)
        assert gaps["energy"].tolist() == pytest.approx([0.1, -0.2])
        assert gaps["forces"].tolist() == pytest.approx([0.1] * 27, rel=1e-3)

    def test_forms(self) -> None:
        gaps = {"energy": torch.tensor([0.2, -2.0])}
        losses = [float(loss_of(gaps, counts_of(gaps), Weights(3.0), form, 2.0)) for form in FORMS]
        assert losses == pytest.approx([3 * (0.01 + 1) / 2, 3 * (0.01 + 0.75) / 2, 3 * (0.1 + 1) / 2])

    def test_parts_of_a_batch_add_up(self) -> None:
        gaps = {"energy": torch.randn(5), "forces": torch.randn(40)}
        counts = counts_of(gaps)
        parts = [{"energy": gaps["energy"][a], "forces": gaps["forces"][b]} for a, b in
                 ((slice(2), slice(7)), (slice(2, 5), slice(7, 40)))]  # fmt: skip
        whole, *pieces = (loss_of(g, counts, Weights(2.0, 5.0), "huber", 1.0) for g in (gaps, *parts))
        assert float(sum(pieces)) == pytest.approx(float(whole))

    def test_tally(self) -> None:
        tally = Tally()
        for part in (torch.tensor([0.001, -0.002]), torch.tensor([0.003])):
            tally.add({"energy": part})
        assert tally.errors() == pytest.approx({"energy_mae": 2.0, "energy_rmse": (14 / 3) ** 0.5})
        tally.clear()
        assert tally.errors() == {}


class TestRates:
    def test_shapes(self) -> None:
        for schedule, middle, end in (("cosine", 0.505, 0.01), ("exponential", 0.1, 0.01), ("constant", 1.0, 1.0)):
            rate = Rate(schedule, 10, 110, 0.01)
            assert [rate.at(k) for k in (0, 10, 60, 110)] == pytest.approx([0.1, 1.0, middle, end])

    def test_plateau(self) -> None:
        plateau, copy = Plateau(0.5, 1), Plateau(0.5, 1)
        for value in (3.0, 2.0, 2.5, 2.1, 1.0, 1.5):
            plateau.see(value)
        assert plateau.factor == 0.5
        copy.load_state_dict(plateau.state_dict())
        copy.see(9.0)
        assert copy.factor == 0.25

    def test_history_begins_anew_with_other_weights(self) -> None:
        history = History()
        found = [history.see({"objective": value}, stage) for value, stage in ((2.0, ""), (3.0, ""), (9.0, "late"))]
        assert found == [True, False, True] and history.waited == 0 and len(history.rows) == 3

    def test_average(self) -> None:
        weight = torch.nn.Parameter(torch.zeros(2))
        average = Average([weight], 0.5)
        with torch.no_grad():
            weight.fill_(1.0)
        average.update([weight])
        assert average.values[0].tolist() == pytest.approx([0.9, 0.9])  # the first step counts 1 - 1/10
        with average.in_place([weight]):
            assert weight.tolist() == pytest.approx([0.9, 0.9])
        assert weight.tolist() == [1.0, 1.0]
