"""Kept: made once for frozen weights, and anew whenever they change."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch

from irrepc.nn.kept import Kept
from irrepc.nn.linear import Linear, SpeciesLinear
from irrepc.nn.radial import ScalarMLP


def counted(weights: list[torch.Tensor]) -> tuple[Callable[[], torch.Tensor], list[int]]:
    """A kept sum of the weights, and how often it was made."""
    kept: Kept[torch.Tensor] = Kept()
    made: list[int] = []

    def make() -> torch.Tensor:
        made.append(1)
        return torch.stack([w.sum() for w in weights]).sum()

    return lambda: kept(weights, make), made


def test_made_once_while_nothing_changes() -> None:
    value, made = counted([torch.ones(3), torch.ones(2)])
    assert [float(value()) for _ in range(3)] == [5.0, 5.0, 5.0]
    assert len(made) == 1


def test_made_anew_after_a_write() -> None:
    weights = [torch.ones(3), torch.ones(2)]
    value, made = counted(weights)
    value()
    weights[1].add_(1.0)
    assert float(value()) == 7.0
    weights[0] = torch.zeros(3)
    assert float(value()) == 4.0
    assert len(made) == 3


def test_never_kept_where_a_gradient_may_be_asked_for() -> None:
    weight = torch.ones(3, requires_grad=True)
    value, made = counted([weight])
    value()
    (gradient,) = torch.autograd.grad(value(), weight)
    assert gradient.tolist() == [1.0, 1.0, 1.0]
    assert len(made) == 2


def test_nothing_of_it_is_copied_or_saved() -> None:
    kept: Kept[torch.Tensor] = Kept()
    kept([torch.ones(1)], lambda: torch.ones(1))
    for other in (copy.deepcopy(kept), pickle.loads(pickle.dumps(kept))):
        assert float(other([torch.ones(1)], lambda: torch.zeros(1))) == 0.0


LAYERS: dict[str, Callable[[], tuple[torch.nn.Module, tuple[torch.Tensor, ...]]]] = {
    "Linear": lambda: (Linear("2x0e+1x1o", "3x0e+2x1o"), (torch.ones(4, 5),)),
    "SpeciesLinear": lambda: (
        SpeciesLinear("2x0e+1x1o", "3x0e+2x1o", 2),
        (torch.ones(2, 5), torch.eye(2), torch.eye(2)),
    ),
    "ScalarMLP": lambda: (ScalarMLP((5, 4, 3)), (torch.ones(2, 5),)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_follow_their_weights(name: str) -> None:
    torch.manual_seed(0)
    layer, given = LAYERS[name]()
    layer.requires_grad_(False)
    first = layer(*given)
    layer.load_state_dict({key: 2 * tensor for key, tensor in layer.state_dict().items()})
    assert not torch.allclose(layer(*given), first)
    other = copy.deepcopy(layer)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.zero_()
    assert not layer(*given).any()
    assert other(*given).any()
    double = other.double()(*(t.double() for t in given))
    assert double.dtype == torch.float64
