"""load_model finds out what it was given: own files, exports and checkpoints, and everything it must refuse by name."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import irrepc
from irrepc.cli import main
from irrepc.errors import InputError
from irrepc.interop.mace import to_mace
from irrepc.interop.nequip import to_nequip
from irrepc.interop.sources import load_model, read_source
from irrepc.models import MACE, MACEConfig, NequIP, NequIPConfig, save_model
from irrepc.runtime.model_file import ModelFile, file_digest, read_model_file, write_model_file
from tests.interop.test_sevennet_weights import checkpoint

NEQUIP = NequIPConfig(species=(1, 8), cutoff=2.5, layers=1, lmax=1, features=(2, 2), embedding=2, radial_width=3)
MACE_SMALL = MACEConfig(species=(1, 8), cutoff=2.5, layers=1, lmax=1, channels=2, degrees=(0,), correlation=1)


def assert_same(a: Any, b: Any) -> None:
    assert type(a) is type(b)
    assert all(torch.equal(tensor, b.state_dict()[name]) for name, tensor in a.state_dict().items())


def nequip_export(folder: Path) -> tuple[Path, NequIP]:
    model = NequIP(NEQUIP, "torch", seed=3)
    config, state = to_nequip(model)
    torch.save({"config": config, "state_dict": state}, folder / "nequip.pt")
    return folder / "nequip.pt", model


def mace_export(folder: Path) -> tuple[Path, MACE]:
    model = MACE(MACE_SMALL, "torch", seed=3, dtype=torch.float64)
    config, state = to_mace(model)
    (folder / "mace.json").write_text(json.dumps(config))
    np.savez(folder / "mace.npz", **{name: tensor.numpy() for name, tensor in state.items()})
    return folder / "mace.npz", model


def own_file(folder: Path) -> tuple[Path, NequIP]:
    model = NequIP(NEQUIP, "torch", seed=3)
    save_model(model, folder / "own.irrepc", provenance={"source": "a seed"})
    return folder / "own.irrepc", model


@pytest.mark.parametrize("made", [nequip_export, mace_export, own_file])
def test_the_kind_is_found_out_and_the_dtype_kept(tmp_path: Path, made: Callable[[Path], tuple[Path, Any]]) -> None:
    file, model = made(tmp_path)
    assert_same(load_model(file, "torch"), model)
    assert_same(irrepc.load_model(str(file), "torch"), model)
    assert not load_model(file, "torch").training
    other = load_model(file, "torch", dtype=torch.float64)
    assert next(other.parameters()).dtype == torch.float64


def test_either_file_of_a_pair_will_do(tmp_path: Path) -> None:
    file, model = mace_export(tmp_path)
    assert_same(load_model(tmp_path / "mace.json", "torch"), model)
    (tmp_path / "mace.json").unlink()
    with pytest.raises(InputError, match=r"without mace.json beside it(.|\n)*extract_config_mace_model"):
        load_model(file)


def test_a_pair_cut_short_is_refused(tmp_path: Path) -> None:
    file, _ = mace_export(tmp_path)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match="which numpy cannot read as plain arrays"):
        load_model(file)


def test_provenance_says_where_the_weights_come_from(tmp_path: Path) -> None:
    file, _ = nequip_export(tmp_path)
    found = read_source(file, "torch").provenance
    assert found["source"] == "nequip.pt"
    assert found["sha256"] == file_digest(file)
    assert read_source(own_file(tmp_path)[0], "torch").provenance == {"source": "a seed"}


def test_a_checkpoint_of_sevenn_keeps_its_float32(shared: Path, tmp_path: Path) -> None:
    found = read_source(checkpoint(shared, "sevennet-0", tmp_path / "c.pth"), "torch")
    assert next(found.network.parameters()).dtype == torch.float32
    assert found.provenance["kind"] == "checkpoint of sevenn 0.9.1"


def test_convert_writes_what_it_read(tmp_path: Path) -> None:
    file, model = mace_export(tmp_path)
    for name in ("a.irrepc", "b.irrepc"):
        result = CliRunner().invoke(main, ["convert", str(file), "-o", str(tmp_path / name)])
        assert result.exit_code == 0, result.output
        assert "MACE" in result.output
    assert (tmp_path / "a.irrepc").read_bytes() == (tmp_path / "b.irrepc").read_bytes()
    assert_same(load_model(tmp_path / "a.irrepc", "torch"), model)
    assert read_model_file(tmp_path / "a.irrepc").provenance["sha256"] == file_digest(file)
    again = CliRunner().invoke(main, ["convert", str(tmp_path / "a.irrepc"), "-o", str(tmp_path / "c.irrepc")])
    assert again.exit_code == 0
    assert (tmp_path / "c.irrepc").read_bytes() == (tmp_path / "a.irrepc").read_bytes()


@pytest.mark.parametrize(
    ("out", "says"), [("own.irrepc", "expected two files"), ("none/x.irrepc", "whose folder is not there")]
)
def test_convert_refuses_places(tmp_path: Path, out: str, says: str) -> None:
    file, _ = own_file(tmp_path)
    result = CliRunner().invoke(main, ["convert", str(file), "-o", str(tmp_path / out)])
    assert result.exit_code == 2
    assert says in result.output


class Foreign:
    """A class that a pickle would need."""


def zipped(names: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in names.items():
            archive.writestr(name, content)
    return made.getvalue()


def saved(content: Any) -> bytes:
    made = io.BytesIO()
    torch.save(content, made)
    return made.getvalue()


REFUSED = {
    "empty": (b"", "an empty file"),
    "text": (b"Lattice=1", "a text"),
    "pickle": (pickle.dumps({"a": 1}), "a pickle, which is a program"),
    "cut short": (saved({"a": torch.zeros(9)})[:-99], "a zip file that is cut short"),
    "safetensors": (b"\x10\x00\x00\x00\x00\x00\x00\x00{}" + b" " * 14, "that irrepc did not write"),
    "other zip": (zipped({"a/b.txt": b""}), "a zip file of"),
    "package": (zipped({"m/.data/extern_modules": b"", "m/model/x.pkl": b""}), "PackageImporter"),
    "torchscript": (zipped({"m/code/x.py": b"", "m/constants.pkl": b""}), "a compiled program"),
    "classes": (saved({"model": Foreign()}), "a pickle of .*Foreign"),
    "lightning": (saved({"pytorch-lightning_version": "2", "state_dict": {}}), "a checkpoint of Lightning"),
    "list": (saved([1, 2]), "a list"),
    "dict": (saved({"weights": 1}), "a dict of weights"),
    "arguments": (saved({"config": {"colour": "red"}, "state_dict": {"a": torch.zeros(2)}}), "arguments colour"),
    "no dicts": (saved({"config": 1, "state_dict": 2}), "is no dict"),
    "no numbers": (saved({"config": {"type_names": []}, "state_dict": {}}), "without numbers"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_is_named(tmp_path: Path, kind: str) -> None:
    content, says = REFUSED[kind]
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(InputError, match=says):
        load_model(tmp_path / "file")


def test_names_and_absent_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="which is not there; expected a file of irrepc"):
        load_model("absent.irrepc")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="do: pip download --no-deps sevenn"):
        load_model("SevenNet-0")


def test_a_name_is_looked_up_in_an_installed_package(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "sevenn" / "pretrained_potentials" / "SevenNet_0__11Jul2024" / "checkpoint_sevennet_0.pth"
    place.parent.mkdir(parents=True)
    (tmp_path / "sevenn" / "__init__.py").write_text("raise SystemExit('imported')")
    checkpoint(shared, "sevennet-0", place)
    monkeypatch.syspath_prepend(tmp_path)
    assert len(load_model("7net-0", "torch").species) == 89


def test_an_equiformer_needs_its_signs(tmp_path: Path) -> None:
    (tmp_path / "e.json").write_text(json.dumps({"irreps_node_embedding": "4x0e"}))
    np.savez(tmp_path / "e.npz", a=np.zeros(2))
    with pytest.raises(InputError, match=r'do: signs="e3nn-0.4"'):
        load_model(tmp_path / "e.npz")


def test_the_kind_of_a_deployed_file_is_named(tmp_path: Path) -> None:
    write_model_file(tmp_path / "d", ModelFile("deployed", "NequIP", {}, "float64", (1,), {}))
    with pytest.raises(InputError, match="of kind 'deployed'; expected 'network'"):
        load_model(tmp_path / "d")


def test_a_remedy_keeps_its_lines_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").write_bytes(REFUSED["lightning"][0])
    result = CliRunner().invoke(main, ["convert", str(tmp_path / "last.ckpt")])
    assert result.exit_code == 2
    script = result.output.partition("and run:\n")[2]
    compile(script, "remedy", "exec")
    assert len(script.splitlines()) > 5
