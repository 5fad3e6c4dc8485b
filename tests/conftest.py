"""What every test may ask for: the folder of reference data, and a device for those marked `gpu`."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data (golden values, fixtures, specifications) that lies beside the checkout."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("reference data: no folder 'shared' beside the checkout")
    return folder


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests marked `gpu`, with the reason, where torch is missing or sees no CUDA device."""
    if item.get_closest_marker("gpu") is None:
        return
    torch = pytest.importorskip("torch", reason="gpu: torch is not installed")
    if not torch.cuda.is_available():
        pytest.skip("gpu: torch sees no CUDA device here")
