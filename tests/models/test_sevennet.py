"""SevenNet: the checks of every model, its envelope, and settings it refuses."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from irrepc.errors import InputError
from irrepc.models.potential import predict
from irrepc.models.sevennet import SevenNet, SevenNetConfig, xplor_cutoff
from irrepc.nn.neighbours import graph_of_atoms
from tests.model_checks import ModelChecks, structures

CONFIG = SevenNetConfig(
    species=(1, 6, 8),
    cutoff=3.0,
    cutoff_on=2.2,
    layers=3,
    lmax=2,
    features=(6, 4, 2),
    bessels=4,
    radial_widths=(5,),
    denominators=(3.0, 4.0, 5.0),
    readout_width=4,
    scales=(1.0, 1.2, 1.4),
    shifts=(-1.5, -27.1, -41.8),
)


class TestPolynomial(ModelChecks):
    inverts = False  # every irrep is even, so paths such as 1 x 1 -> 1 see the handedness
    compared = ("llvm",)
    traced = ("llvm",)

    @classmethod
    def build(cls, dtype: torch.dtype, backend: str) -> Any:
        return SevenNet(CONFIG, backend, dtype=dtype, seed=1)


class TestXplor(ModelChecks):
    inverts = False
    step = 1e-5  # its second derivative jumps where the envelope begins to fall
    compared = ()
    traced = ()

    @classmethod
    def build(cls, dtype: torch.dtype, backend: str) -> Any:
        config = replace(CONFIG, envelope="xplor", layers=2, denominators=())
        return SevenNet(config, backend, dtype=dtype, seed=2)


def test_mirror_images_differ() -> None:
    model, atoms = SevenNet(CONFIG, "torch", dtype=torch.float64, seed=1), structures()["ethanol"].copy()
    seen = predict(model, graph_of_atoms(atoms, cutoff=3.0, species=model.species))
    atoms.positions *= -1
    mirrored = predict(model, graph_of_atoms(atoms, cutoff=3.0, species=model.species))
    assert abs(float(seen.energy - mirrored.energy)) > 1e-6


def test_the_envelope_is_one_then_falls_to_zero_smoothly() -> None:
    r = torch.tensor([1.0, 4.5, 4.5 + 1e-9, 4.9, 5.0 - 1e-9, 5.0, 6.0], dtype=torch.float64, requires_grad=True)
    value = xplor_cutoff(r, 4.5, 5.0)
    (slope,) = torch.autograd.grad(value.sum(), r)
    value = value.detach()
    torch.testing.assert_close(value[[0, 1, 2]], torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-8)
    torch.testing.assert_close(value[[4, 5, 6]], torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-8)
    torch.testing.assert_close(slope[[0, 1, 2, 4, 5, 6]], torch.zeros(6, dtype=torch.float64), rtol=0, atol=1e-7)
    assert 0 < float(value[3]) < 1
    assert float(slope[3]) < -1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"species": ()}, "species"),
        ({"cutoff": -1.0}, "cutoff = -1.0"),
        ({"envelope": "cosine"}, "envelope = 'cosine'"),
        ({"envelope": "xplor", "cutoff_on": 3.5}, "cutoff_on = 3.5"),
        ({"features": (4, 4)}, "features"),
        ({"denominators": (1.0,)}, "denominators"),
        ({"denominators": (1.0, 0.0, 1.0)}, "denominators"),
        ({"scales": (1.0,)}, "scales"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=f"SevenNetConfig: got {says}"):
        replace(CONFIG, **change)
