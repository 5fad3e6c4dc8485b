"""Foreign peers: packages that need an environment of their own take part through their own Python, round by round."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from irrepc.algebra.irreps import Irreps
from irrepc.algebra.recipe import ProductRecipe
from irrepc.commands.bench_cases import SPECIES, Case, Graph, Layers
from irrepc.commands.bench_timing import TOLERANCE
from irrepc.errors import InputError
from irrepc.nn.contraction import collapsed

ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "30000000000", "MALLOC_TOP_PAD_": "268435456"}
"""What keep_freed_memory does, for a process that is to be started."""
SCRIPT = Path(__file__).with_name("bench_script.py")


@dataclass(frozen=True, slots=True)
class Environment:
    """Another environment: its Python, and whether its allocator stays as shipped or keeps freed memory."""

    python: Path
    as_shipped: bool


@dataclass(frozen=True, slots=True)
class ForeignPeer:
    """A contender in another process, which waits while others are timed."""

    name: str
    orders: int
    process: subprocess.Popen[str]
    folder: TemporaryDirectory[str]
    is_peer: bool = True
    tolerance: float = TOLERANCE

    def results(self) -> tuple[Tensor, ...]:
        """The value and the gradients, in our order of components."""
        _ask(self.process, "results")
        with np.load(Path(self.folder.name) / "results.npz") as found:
            return tuple(torch.from_numpy(found[name]) for name in found.files)

    def seconds(self, phase: int) -> float:
        """Run a phase once, over there."""
        return float(_ask(self.process, f"seconds {phase}"))

    def close(self) -> None:
        """End the process."""
        self.process.communicate()
        self.folder.cleanup()


def convolution_peer(place: Environment, irreps: str, lmax: int, case: Case, graph: Graph) -> ForeignPeer:
    """cuequivariance-torch's channel-wise product on the CPU.

    Raises InputError where that Python cannot run it.
    """
    recipe = case.recipe
    assert isinstance(recipe, ProductRecipe)
    left = Irreps.of(irreps)
    paths = [
        (str(b.irrep), left[p.left].mul, b.irrep.dim) for p, b in zip(recipe.paths, recipe.out, strict=True)
    ]
    about = {
        "kind": "convolution",
        "left": irreps,
        "right": str(Irreps.spherical_harmonics(lmax)),
        "allowed": "+".join(dict.fromkeys(irrep for irrep, _, _ in paths)),
        "paths": paths,
        "nodes": graph.nodes,
    }
    x, y, w = case.inputs
    arrays = {"x": x, "y": y, "w": w, "senders": graph.senders, "receivers": graph.receivers}
    with torch.no_grad():
        arrays["o"] = case.ours("llvm")(x, y, w)
    return _start("cuequivariance", place, about, arrays)


def contraction_peer(place: Environment, layers: Layers, species: Tensor, case: Case) -> ForeignPeer:
    """mace-torch's symmetric contraction; its couplings and weights become those of our layers.

    Raises InputError where that Python cannot run it.
    """
    first = next(iter(layers.values()))
    about = {
        "kind": "contraction",
        "left": str(first.irreps_in),
        "out": str(first.irreps_out),
        "species": SPECIES,
        "channels": first.channels,
        "components": (first.lmax + 1) ** 2,
    }
    peer = _start("mace-torch", place, about, {"x": case.inputs[0], "species": species})
    with np.load(Path(peer.folder.name) / "couplings.npz") as given:
        for layer in layers.values():
            for n, (degree, nu) in enumerate(layer.keys):
                u = torch.from_numpy(given[f"u_{degree}_{nu}"])
                layer.register_buffer(f"coupling_{degree}_{nu}", collapsed(u, layer.lmax, degree))
                weight = torch.from_numpy(given[f"w_{degree}_{nu}"])
                layer.weights[n] = nn.Parameter(weight, requires_grad=False)
    return peer


def _start(name: str, where: Environment, about: dict[str, Any], arrays: dict[str, Tensor]) -> ForeignPeer:
    folder: TemporaryDirectory[str] = TemporaryDirectory()
    place = Path(folder.name)
    (place / "case.json").write_text(json.dumps({**about, "threads": torch.get_num_threads()}), encoding="utf-8")
    np.savez(place / "case.npz", **{key: t.numpy() for key, t in arrays.items()})  # type: ignore[arg-type]
    with (place / "errors").open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [str(where.python), str(SCRIPT), folder.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=os.environ | ({} if where.as_shipped else ALLOCATOR),
        )
    assert process.stdout is not None
    first = process.stdout.readline()
    if not first:
        process.communicate()
        said = (place / "errors").read_text(encoding="utf-8").strip()[-300:]
        folder.cleanup()
        raise InputError(
            f"bench --peers {where.python}: got {said!r} from {name}; expected a Python that has it; "
            "install cuequivariance-torch and mace-torch there"
        )
    return ForeignPeer(name, json.loads(first)["orders"], process, folder)


def _ask(process: subprocess.Popen[str], line: str) -> Any:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        raise InputError(f"bench: got no answer to {line!r} from another environment; expected one; run it by hand")
    return json.loads(answer)
