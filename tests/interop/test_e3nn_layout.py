"""The two memory layouts: a permutation there and back."""

import pytest
import torch

from irrepc.interop.e3nn_layout import from_e3nn, mul_ir_permutation, to_e3nn


def test_channels_and_components_change_places() -> None:
    theirs = torch.tensor([[0.0, 10, 11, 12, 20, 21, 22]])  # 1x0e, then 2x1o as (channel, component)
    ours = from_e3nn(theirs, "1x0e+2x1o")
    assert ours.tolist() == [[0.0, 10, 20, 11, 21, 12, 22]]
    assert torch.equal(to_e3nn(ours, "1x0e+2x1o"), theirs)


@pytest.mark.parametrize("irreps", ["", "5x0e", "3x2e+0x1o+4x1o", "2x1o+3x1o"])
def test_there_and_back(irreps: str) -> None:
    permutation = mul_ir_permutation(irreps)
    assert sorted(permutation.tolist()) == list(range(len(permutation)))
    x = torch.randn(2, 3, len(permutation))
    assert torch.equal(to_e3nn(from_e3nn(x, irreps), irreps), x)
