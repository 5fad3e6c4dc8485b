"""UMA: the checks of every model, structures that differ in nothing but charge, and the configurations it refuses."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from irrepc.errors import InputError
from irrepc.models.potential import energy_and_forces
from irrepc.models.uma import UMA, Systems, UMAConfig, UMAOf
from irrepc.nn.graph import batch
from irrepc.nn.neighbours import graph_of_atoms
from tests.model_checks import ModelChecks, structures
from tests.models.test_esen import perturbed

PLAIN = UMAConfig(
    species=(1, 6, 8), cutoff=3.0, layers=2, channels=4, hidden=3, edge_channels=4, lmax=2, mmax=1, basis_size=5,
    datasets=("omol", "omat"),
)  # fmt: skip
SMALL = replace(PLAIN, charge_channels=(0, 1), spin_channels=(1, 3))


class TestUMA(ModelChecks):
    inverts = False  # as eSEN
    compared = ("llvm",)
    traced = ()  # its blocks are those of eSEN

    @classmethod
    def build(cls, dtype: torch.dtype, backend: str) -> Any:
        return perturbed(UMA(PLAIN, backend, dtype=dtype, seed=2))

    def test_every_weight_is_trained_by_forces_and_energies(self, model: Any) -> None:
        idle = {name for name, g in self.gradients(model).items() if not bool(g.abs().sum() > 0)}
        # a graph alone is a neutral structure without a spin: sin(0), and nothing
        assert idle == {"systems.charge.frequencies", "systems.spin.frequencies"}


def test_a_batch_of_one_molecule_in_different_states_is_each_state_by_itself() -> None:
    model = perturbed(UMA(SMALL, "torch", dtype=torch.float64, seed=1))
    graph = graph_of_atoms(structures()["ethanol"], cutoff=3.0, species=(1, 6, 8))
    kinds = ((0, 0, "omol"), (1, 2, "omol"), (-2, 1, "omat"))
    parts = [Systems.of(model, *kind) for kind in kinds]
    together = Systems(*(torch.cat(values) for values in zip(*parts, strict=True)))
    found = energy_and_forces(lambda g: model(g, together), batch([graph] * 3))
    alone = [energy_and_forces(UMAOf(model, *kind), graph) for kind in kinds]
    torch.testing.assert_close(found.energy, torch.cat([a.energy for a in alone]), rtol=1e-13, atol=0)
    torch.testing.assert_close(found.forces, torch.cat([a.forces for a in alone]), rtol=1e-11, atol=1e-13)
    assert len({round(float(a.energy), 6) for a in alone}) == 3


def test_held_channels_sum_to_charge_and_spin() -> None:
    model, kept = perturbed(UMA(SMALL, "torch", dtype=torch.float64, seed=1)), []
    model.backbone.norm.register_forward_pre_hook(lambda module, inputs: kept.append(inputs[0]))
    graph = graph_of_atoms(structures()["ethanol"], cutoff=3.0, species=(1, 6, 8))
    model(graph, Systems.of(model, 3, 2))
    sums = kept[0].detach().sum(0)[:4]
    torch.testing.assert_close(sums[:3], torch.tensor([3.0, 1.0, 1.0], dtype=torch.float64))
    assert abs(float(sums[3])) > 1e-3


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"embedding": "words"}, "one of waves, affine, table"),
        ({"datasets": ("a", "a")}, "distinct"),
        ({"charge_channels": (3, 9)}, "<= 4"),
        ({"envelope": False}, "envelope"),
        ({"channels": 5}, "even"),
        ({"basis": "bessel"}, "gaussian"),
        ({"lmax": 0, "mmax": 0}, "lmax = 0"),
    ],
)
def test_configurations_it_refuses(change: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        replace(SMALL, **change)


def test_systems_it_refuses() -> None:
    model = UMA(replace(SMALL, embedding="table"), "torch", dtype=torch.float64)
    graph = graph_of_atoms(structures()["ethanol"], cutoff=3.0, species=(1, 6, 8))
    with pytest.raises(InputError, match="got data set 'omc'; expected one of omol, omat"):
        UMAOf(model, dataset="omc")
    with pytest.raises(InputError, match="whole numbers -100"):
        model(graph, Systems.of(model, 0.5))
    with pytest.raises(InputError, match="whole numbers 0"):
        model(graph, Systems.of(model, 0, 200))
    with pytest.raises(InputError, match=r"expected \(1,\)"):
        model(graph, Systems(*(torch.cat((t, t)) for t in Systems.of(model))))
