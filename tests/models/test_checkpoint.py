"""Saved networks: whole or absent, free of code, and refused with the reason when they are not what they should be."""

import json
import math
import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

from irrepc.errors import InputError
from irrepc.models.checkpoint import load_model, save_model
from irrepc.models.nequip import NequIP, NequIPConfig
from irrepc.runtime import model_file
from irrepc.runtime.model_file import ModelFile, is_model_file, read_model_file, write_model_file

CONFIG = NequIPConfig(
    species=(1, 8), cutoff=2.5, layers=1, lmax=0, features=(2,), embedding=2, radial_width=3, shifts=(-1.1, 0.1)
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_model(NequIP(CONFIG, "torch", seed=5), tmp_path / "model.irrepc", provenance={"source": "seed 5"})
    return tmp_path / "model.irrepc"


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """A file as the first version wrote it."""
    model = NequIP(CONFIG, "torch", seed=5)
    content = {
        "format": "irrepc model 1",
        "model": "NequIP",
        "config": json.dumps(asdict(CONFIG)),
        "dtype": "float32",
        "state_dict": model.state_dict(),
    }
    torch.save(content, tmp_path / "model.pt")
    return tmp_path / "model.pt"


def assert_same_network(a: Any, b: Any) -> None:
    assert a.config == b.config
    for (name, x), (same, y) in zip(a.state_dict().items(), b.state_dict().items(), strict=True):
        assert name == same
        assert x.dtype == y.dtype
        assert torch.equal(x, y)


def rewritten(file: Path, words: Mapping[str, str]) -> Path:
    """The same tensors with other metadata."""
    with safetensors.safe_open(file, framework="numpy") as opened:
        kept, tensors = opened.metadata(), {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    file.write_bytes(safetensors.numpy.save(tensors, {**kept, **words}))
    return file


def changed(file: Path, **change: Any) -> Path:
    """Written again with other contents, and their checksum."""
    write_model_file(file, replace(read_model_file(file), **change))
    return file


def test_everything_comes_back(file: Path) -> None:
    assert_same_network(load_model(file, "torch"), NequIP(CONFIG, "torch", seed=5))
    assert os.listdir(file.parent) == ["model.irrepc"]
    content = read_model_file(file)
    assert (content.kind, content.architecture, content.dtype) == ("network", "NequIP", "float32")
    assert content.species == CONFIG.species
    assert content.provenance == {"source": "seed 5"}
    assert content.units["energy"] == "eV"


def test_files_of_the_first_version_are_read(first: Path) -> None:
    assert not is_model_file(first)
    assert_same_network(load_model(first, "torch"), NequIP(CONFIG, "torch", seed=5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_is_the_models_own_unless_asked(tmp_path: Path, dtype: torch.dtype) -> None:
    save_model(NequIP(CONFIG, "torch", dtype=dtype), tmp_path / "m.irrepc")
    assert load_model(tmp_path / "m.irrepc", "torch").embedding.weight.dtype == dtype
    assert load_model(tmp_path / "m.irrepc", "torch", dtype=torch.float64).embedding.weight.dtype == torch.float64


def test_a_failed_save_leaves_the_old_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()

    def broken(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(KeyboardInterrupt):
        save_model(NequIP(CONFIG, "torch"), file)
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == ["model.irrepc"]


def test_other_things_are_not_saved(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got a Linear; expected one of NequIP"):
        save_model(torch.nn.Linear(1, 1), tmp_path / "m.irrepc")  # type: ignore[arg-type]
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a model", b"PK\x03\x04 truncated"])
def test_other_files_are_refused(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(InputError, match="cannot read as plain tensors"):
        load_model(file)
    with pytest.raises(InputError, match="cannot be read"):
        read_model_file(file)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
def test_a_file_cut_short_is_refused(file: Path, kept: float) -> None:
    file.write_bytes(file.read_bytes()[: int(kept * file.stat().st_size)])
    with pytest.raises(InputError, match="cut short or altered"):
        read_model_file(file)
    with pytest.raises(InputError):
        load_model(file)


def test_every_altered_byte_is_noticed(file: Path) -> None:
    whole = file.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")  # where the tensors begin
    header = whole.index(b"cutoff")
    for place in (header, header + 10, start, start + 7, len(whole) - 1):
        altered = bytearray(whole)
        altered[place] ^= 1
        file.write_bytes(bytes(altered))
        with pytest.raises(InputError, match=r"checksum|cut short|no JSON"):
            read_model_file(file)


def test_a_newer_version_and_a_foreign_file_are_told_apart(file: Path) -> None:
    foreign = file.with_name("weights.safetensors")
    foreign.write_bytes(safetensors.numpy.save({"a": np.zeros(2)}))
    with pytest.raises(InputError, match="without irrepc's header"):
        read_model_file(foreign)
    with pytest.raises(InputError, match="of version '3'; expected 2 or older; install a newer irrepc"):
        read_model_file(rewritten(file, {"version": "3"}))


def test_what_a_newer_writer_adds_is_passed_over(file: Path) -> None:
    with safetensors.safe_open(file, framework="numpy") as opened:
        header = {**json.loads(opened.metadata()["header"]), "licence": "free"}
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    text = json.dumps(header, ensure_ascii=False)
    rewritten(file, {"header": text, "sha256": model_file._digest(text, tensors), "hint": "none"})
    assert_same_network(load_model(file, "torch"), NequIP(CONFIG, "torch", seed=5))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kind": "deployed"}, "of kind 'deployed'; expected 'network'"),
        ({"architecture": "Unknown"}, "got a model 'Unknown'"),
        ({"config": {"species": [1], "colour": "red"}}, r"settings \['colour'\]"),
        ({"config": {"species": [1], "cutoff": -1.0}}, "cutoff = -1.0"),
        ({"config": {"species": [1], "cutoff": "far"}}, "wrong types"),
        ({"config": {"cutoff": 1.0}}, "wrong types"),
        ({"dtype": "float16"}, "float16"),
        ({"tensors": {}}, "do not fit its settings"),
        ({"units": {"energy": "kcal/mol"}}, "units .*kcal/mol"),
        ({"conventions": {"layout": "mul_ir"}}, "conventions .*mul_ir"),
    ],
)
def test_other_contents_are_refused(file: Path, change: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        load_model(changed(file, **change), "torch")


def test_scalars_keep_their_shape_and_arrays_their_order(tmp_path: Path) -> None:
    tensors = {"scalar": np.array(2.5), "turned": np.arange(6.0).reshape(2, 3).T, "none": np.zeros((0, 3), np.float32)}
    write_model_file(tmp_path / "a", ModelFile("test", "none", {}, "float64", (), tensors))
    found = read_model_file(tmp_path / "a", "test").tensors
    assert {name: (a.shape, a.dtype) for name, a in found.items()} == {
        name: (a.shape, a.dtype) for name, a in tensors.items()
    }
    assert all(np.array_equal(found[name], tensors[name]) for name in tensors)


def test_an_infinite_setting_comes_back(tmp_path: Path) -> None:
    write_model_file(tmp_path / "a", ModelFile("test", "none", {"cutoff": math.inf}, "float64", (), {}))
    assert read_model_file(tmp_path / "a").config == {"cutoff": math.inf}
    with pytest.raises(InputError, match="got x of complex128; expected one of"):
        write_model_file(tmp_path / "a", ModelFile("test", "none", {}, "float64", (), {"x": np.zeros(2, complex)}))


def test_reading_a_file_needs_no_torch(file: Path) -> None:
    code = (
        "import sys; from irrepc.runtime.model_file import read_model_file; "
        "print(read_model_file(sys.argv[1]).architecture, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["NequIP", "False"]


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
        ({"format": "irrepc model 99"}, "format 'irrepc model 99'"),
        ({"model": "Unknown"}, "got a model 'Unknown'"),
        ({"config": "{"}, "settings that are no JSON"),
        ({"dtype": "float16"}, "float16"),
        ({"state_dict": {}}, "do not fit its settings"),
        ({"state_dict": None}, "state_dict"),
    ],
)
def test_other_contents_of_the_first_version_are_refused(first: Path, change: dict[str, Any], says: str) -> None:
    torch.save({**torch.load(first, weights_only=True), **change}, first)
    with pytest.raises(InputError, match=says):
        load_model(first, "torch")


def test_weights_of_another_size_are_named(file: Path) -> None:
    wrong = NequIP(replace(CONFIG, radial_width=4), "torch").state_dict()
    with pytest.raises(InputError, match=r"layers.0.radial.weights.0"):
        load_model(changed(file, tensors={name: tensor.numpy() for name, tensor in wrong.items()}), "torch")


def test_a_list_of_tensors_is_no_model(tmp_path: Path) -> None:
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    with pytest.raises(InputError, match="format 'list'"):
        load_model(tmp_path / "list.pt")
    for read in (load_model, read_model_file):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "absent.irrepc")  # type: ignore[operator]
