"""Package: a degree and a feature space -> every file of an emitted package, as text; nothing is written here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from irrepc.emit.layers import layers_module
from irrepc.emit.manifest import manifest_text
from irrepc.emit.module import Module, as_comment, compose, head
from irrepc.emit.plan import DEFAULT_BACKENDS, LIMIT, TABLE_TITLE, Part, Plan, plan
from irrepc.emit.report import conventions, report_text
from irrepc.emit.sources import TRAVELLING, travelling_text
from irrepc.emit.tables import coupling_module
from irrepc.emit.templates import render, template_hash
from irrepc.frontend.proof import Proof
from irrepc.frontend.proofs import prove

Key = tuple[str, str]
"""The name of a part and a backend."""


@dataclass(frozen=True, slots=True)
class Job:
    """One part for every backend, which share its derivation; independent of every other job."""

    part: Part
    backends: tuple[str, ...]
    command: str

    def run(self) -> dict[Key, Module]:
        """Derive, differentiate, optimise and print: the slow step."""
        title, entries = f"{self.part.title}.", self.part.entries
        return {(self.part.name, b): compose(title, entries, b, self.command) for b in self.backends}


def jobs(planned: Plan) -> tuple[Job, ...]:
    """The work of a package, the largest part first."""
    every = (Job(part, planned.backends, planned.command) for part in planned.parts)
    return tuple(sorted(every, key=lambda job: -job.part.terms))


def package(
    lmax: int, *, irreps: str | None = None, backends: tuple[str, ...] = DEFAULT_BACKENDS, limit: int = LIMIT
) -> dict[str, str]:
    """All files of a package, proved: relative path -> text.  The same arguments give the same bytes.

    lmax      the largest degree of harmonics, couplings and rotations
    irreps    the features of the convolution, linear map, gate and norm ("16x0e+8x1o"; only equal multiplicities are
              told apart); None for all irreps of natural parity up to lmax with one multiplicity
    backends  which of irrepc.emit.module.BACKENDS
    limit     terms in one module, all orders; larger parts are left out, and the report says so
    Raises IrrepsError, BackendError, SizeError as `plan` and ProofError when a derivation is wrong.
    """
    planned = plan(lmax, irreps=irreps, backends=backends, limit=limit)
    proofs = prove(lmax)
    return assemble(planned, {key: module for job in jobs(planned) for key, module in job.run().items()}, proofs)


def assemble(planned: Plan, modules: Mapping[Key, Module], proofs: Iterable[Proof]) -> dict[str, str]:
    """The files of a package from its composed modules, sorted by path."""
    proofs = tuple(proofs)
    files = {module_path(*key): module.text for key, module in modules.items()}
    for (part, backend), module in modules.items():
        files |= {f"{backend}/{part}{suffix}": text for suffix, text in module.companions}
        files |= {f"{backend}/{name}": text for name, text in module.shared}
    for backend in planned.backends:
        files[f"{backend}/__init__.py"] = _from_template("package/folder.py.jinja", planned, backend=backend)
    files["__init__.py"] = _package_init(planned)
    if planned.tables:
        files["clebsch_gordan.py"] = coupling_module(planned.lmax, planned.command)
    if has_layers(planned):
        for name in TRAVELLING:
            origin = f"irrepc/runtime/{name}"
            files[name] = _from_template("package/ops.py.jinja", planned, source=travelling_text(name), origin=origin)
        files["layers.py"] = layers_module(planned)
    files["REPORT.md"] = report_text(planned, modules, proofs)
    sums = {path: hashlib.sha256(files[path].encode()).hexdigest() for path in sorted(files)}
    files["manifest.json"] = manifest_text(planned, modules, proofs, sums)
    return dict(sorted(files.items()))


def module_path(part: str, backend: str) -> str:
    """Where a module lies in the package."""
    return f"{backend}/{part}.py"


def has_layers(planned: Plan) -> bool:
    """Layers are torch modules, and their third derivatives need the torch text."""
    return "torch" in planned.backends and bool(planned.parts)


def _package_init(planned: Plan) -> str:
    folder = planned.backends[0] if len(planned.backends) == 1 else f"{{{','.join(planned.backends)}}}"
    contents = [(f"{folder}/{p.name}.py", p.title) for p in planned.parts]
    if planned.tables:
        contents.append(("clebsch_gordan.py", TABLE_TITLE))
    if has_layers(planned):
        contents.append(("layers.py", "The kernels as torch modules"))
        contents.append((", ".join(TRAVELLING), "The kernels as torch operators"))
    return _from_template(
        "package/init.py.jinja",
        planned,
        lmax=planned.lmax,
        contents=[f"{path:38} {title}" for path, title in contents],
        conventions=conventions(),
        example=_example(planned),
    )


def _example(planned: Plan) -> list[str]:
    """How the layers go together; nothing when some of them are left out."""
    if not has_layers(planned) or planned.part("convolution") is None:
        return []
    chosen = dict(planned.channels)
    axes = dict.fromkeys(a for block in planned.features for a in block.axes)
    channels = ", ".join(f"{a}={chosen.get(a, 64)}" for a in axes)
    return [
        "import torch",
        f"from {planned.name}.layers import Convolution, Index, SphericalHarmonics",
        "",
        f"convolution = Convolution({channels})",
        "y = SphericalHarmonics()(vectors / vectors.norm(dim=1, keepdim=True))  # vectors (edges, 3)",
        "w = torch.randn(len(vectors), convolution.weight_numel)",
        "rows = Index.of(senders, len(x)), Index.of(receivers, len(x))  # x (nodes, features)",
        "messages = convolution(x, y, w, *rows)",
    ]


def _from_template(template: str, planned: Plan, origin: str = "", **values: object) -> str:
    """Render a template under the banner of a file without kernels."""
    source = ", ".join(filter(None, (origin, f"templates/{template} {template_hash(template)}")))
    banner = (*head(planned.command), "", f"source       {source}", head(planned.command)[0])
    return render(template, banner=as_comment(banner), **values)
