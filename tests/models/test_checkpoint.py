"""Saved models: whole or absent, free of code, and refused with the reason when they are not what they should be."""

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from irrepc.errors import InputError
from irrepc.models.checkpoint import load_model, save_model
from irrepc.models.nequip import NequIP, NequIPConfig

CONFIG = NequIPConfig(
    species=(1, 8), cutoff=2.5, layers=1, lmax=0, features=(2,), embedding=2, radial_width=3, shifts=(-1.1, 0.1)
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_model(NequIP(CONFIG, "torch", seed=5), tmp_path / "model.pt")
    return tmp_path / "model.pt"


def changed(file: Path, **change: Any) -> Path:
    torch.save({**torch.load(file, weights_only=True), **change}, file)
    return file


def test_everything_comes_back(file: Path) -> None:
    before, after = NequIP(CONFIG, "torch", seed=5), load_model(file, "torch")
    assert after.config == CONFIG
    for (name, a), (same, b) in zip(before.state_dict().items(), after.state_dict().items(), strict=True):
        assert name == same
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    assert os.listdir(file.parent) == ["model.pt"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_is_the_models_own_unless_asked(tmp_path: Path, dtype: torch.dtype) -> None:
    save_model(NequIP(CONFIG, "torch", dtype=dtype), tmp_path / "m.pt")
    assert load_model(tmp_path / "m.pt", "torch").embedding.weight.dtype == dtype
    assert load_model(tmp_path / "m.pt", "torch", dtype=torch.float64).embedding.weight.dtype == torch.float64


def test_a_failed_save_leaves_the_old_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()

    def broken(content: Any, target: Any) -> None:
        target.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(KeyboardInterrupt):
        save_model(NequIP(CONFIG, "torch"), file)
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == ["model.pt"]


def test_other_things_are_not_saved(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got a Linear; expected one of NequIP"):
        save_model(torch.nn.Linear(1, 1), tmp_path / "m.pt")  # type: ignore[arg-type]
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a model", b"PK\x03\x04 truncated"])
def test_damaged_files_are_refused(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(InputError, match="cannot read as plain tensors"):
        load_model(file)


def test_a_file_cut_short_is_refused(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(InputError, match="cannot read as plain tensors"):
        load_model(file)


class Trap:
    """Unpickling it would make a file."""

    def __reduce__(self) -> Any:
        return (open, ("trapped", "w"))


def test_code_in_a_file_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"format": Trap()}, "trap.pt")
    Path("plain.pt").write_bytes(pickle.dumps(Trap(), protocol=2))
    for name in ("trap.pt", "plain.pt"):
        with pytest.raises(InputError, match="cannot read"):
            load_model(name)
    assert not Path("trapped").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": "irrepc model 99"}, "format 'irrepc model 99'; expected 'irrepc model 1'"),
        ({"model": "Unknown"}, "got a model 'Unknown'"),
        ({"config": json.dumps({"species": [1], "colour": "red"})}, r"settings \['colour'\]"),
        ({"config": "{"}, "settings that are no JSON"),
        ({"config": json.dumps({"species": [1], "cutoff": -1.0})}, "cutoff = -1.0"),
        ({"config": json.dumps({"species": [1], "cutoff": "far"})}, "wrong types"),
        ({"config": json.dumps({"cutoff": 1.0})}, "wrong types"),
        ({"dtype": "float16"}, "float16"),
        ({"state_dict": {}}, "do not fit its settings"),
        ({"state_dict": None}, "state_dict"),
    ],
)
def test_other_contents_are_refused(file: Path, change: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        load_model(changed(file, **change), "torch")


def test_weights_of_another_size_are_named(file: Path) -> None:
    wrong = NequIP(replace(CONFIG, radial_width=4), "torch").state_dict()
    with pytest.raises(InputError, match=r"layers.0.radial.weights.0"):
        load_model(changed(file, state_dict=wrong), "torch")


def test_a_list_of_tensors_is_no_model(tmp_path: Path) -> None:
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    with pytest.raises(InputError, match="format 'list'"):
        load_model(tmp_path / "list.pt")
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "absent.pt")
