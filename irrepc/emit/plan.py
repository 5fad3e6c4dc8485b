"""Plan: which modules a package holds for a degree and a feature space, and what is left out because of its size."""

from __future__ import annotations

from dataclasses import dataclass

from irrepc.algebra.irreps import Irrep, Irreps, check_degree
from irrepc.algebra.recipe import (
    GateRecipe,
    HarmonicsRecipe,
    Label,
    LinearRecipe,
    NormRecipe,
    Path,
    ProductRecipe,
    WignerRecipe,
    labels,
    uvu_paths,
)
from irrepc.emit.module import BACKENDS, Entry, check_backend
from irrepc.errors import BackendError, IrrepsError, SizeError
from irrepc.frontend.clebsch_gordan import triangles
from irrepc.frontend.derive import coupling_terms, estimate

LIMIT = 40_000
"""Terms in one module, all three orders: lmax 5 keeps every part, and harmonics and rotations go to lmax 8."""

DEFAULT_BACKENDS = ("torch", "numba")

UNIFORM = 64
"""The multiplicity that stands for «the same for all»; recipes hold its letter only."""


@dataclass(frozen=True, slots=True)
class Part:
    """One emitted file of each backend; terms is the estimate of its size over all orders."""

    name: str
    title: str
    entries: tuple[Entry, ...]
    terms: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A package before anything is derived.

    irreps    the features asked for, as they were written; None for all of natural parity up to lmax
    features, harmonics, messages   the sides of the convolution
    channels  the multiplicities asked for, by channel axis of the features; empty when none were
    tables    whether the couplings themselves are listed
    omitted   parts that would exceed the limit, without their entries
    """

    lmax: int
    irreps: str | None
    backends: tuple[str, ...]
    limit: int
    features: tuple[Label, ...]
    harmonics: tuple[Label, ...]
    messages: tuple[Label, ...]
    channels: tuple[tuple[str, int], ...]
    parts: tuple[Part, ...]
    tables: bool
    omitted: tuple[Part, ...]

    @property
    def name(self) -> str:
        """The package's folder."""
        return f"lmax{self.lmax}"

    @property
    def command(self) -> str:
        """How to make the package again."""
        words = [f"irrepc generate --lmax {self.lmax}"]
        if self.irreps is not None:
            words.append(f'--irreps "{self.irreps}"')
        if self.backends != DEFAULT_BACKENDS:
            words.extend(f"--backend {b}" for b in self.backends)
        if self.limit != LIMIT:
            words.append(f"--limit {self.limit}")
        return " ".join(words)

    def part(self, name: str) -> Part | None:
        """The part of that name, if the package holds it."""
        return next((p for p in self.parts if p.name == name), None)


def plan(
    lmax: int, *, irreps: str | None = None, backends: tuple[str, ...] = DEFAULT_BACKENDS, limit: int = LIMIT
) -> Plan:
    """Choose the parts of a package.

    Raises IrrepsError for a bad degree or bad irreps, BackendError for an unknown backend, and SizeError when irreps
    are given whose kernels would exceed the limit, or when the harmonics alone do.
    """
    check_degree(lmax)
    for backend in backends:
        check_backend(backend)
    if not backends or len(set(backends)) != len(backends):
        raise BackendError(f"backend: got {', '.join(backends) or 'none'}; expected each of {', '.join(BACKENDS)} once")
    smallest = estimate(HarmonicsRecipe(lmax))
    if smallest > limit:
        _refuse([Part("spherical_harmonics", "", (), smallest)], limit, f"lmax {lmax}")
    features, channels = _features(lmax, irreps, "u")
    after, _ = _features(lmax, irreps, "v")
    harmonics, _ = labels(Irreps.spherical_harmonics(lmax), "y", scalar_ones=True)
    messages, paths = uvu_paths(features, harmonics, _outputs(lmax, features))
    parts = (*_of_degree(lmax), *_of_features(features, after, harmonics, messages, paths))
    kept = tuple(p for p in parts if p.terms <= limit)
    omitted = tuple(Part(p.name, p.title, (), p.terms) for p in parts if p.terms > limit)
    entries = sum(coupling_terms(*t) for t in triangles(lmax) if list(t) == sorted(t))
    if entries > limit:
        omitted += (Part("clebsch_gordan", TABLE_TITLE, (), entries),)
    tables = entries <= limit
    if irreps is not None:
        _refuse([p for p in omitted if p.name in FEATURE_PARTS], limit, irreps)
    order = tuple(b for b in BACKENDS if b in backends)
    chosen = tuple(channels.items()) if irreps is not None else ()
    return Plan(lmax, irreps, order, limit, features, harmonics, messages, chosen, kept, tables, omitted)


TABLE_TITLE = "Real couplings of three irreps, as exact numbers"
FEATURE_PARTS = ("convolution", "linear", "gate", "norm")


def product_recipe(l1: int, l2: int, l3: int) -> ProductRecipe:
    """l1 ⊗ l2 -> l3 of natural parities, coefficients w3j, channels on the left."""
    a, b = _natural(l1), _natural(l2)
    out = Label(("u",), Irrep(l3, a.p * b.p))
    return ProductRecipe((Label(("u",), a),), (Label((), b),), (out,), (Path(0, 0, 0, False),), component=False)


def _of_degree(lmax: int) -> tuple[Part, ...]:
    """What depends on the degree alone."""
    products = [product_recipe(*t) for t in triangles(lmax)]
    named = tuple(Entry(f"tensor_product_{r.left[0].irrep}_{r.right[0].irrep}_{r.out[0].irrep}", r) for r in products)
    return (
        _part(
            "spherical_harmonics",
            f"Real solid harmonics r^l·Y_lm for l = 0 ... {lmax}",
            Entry("spherical_harmonics", HarmonicsRecipe(lmax)),
        ),
        _part(
            "wigner_d",
            f"Rotation matrices D^l of a unit quaternion for l = 0 ... {lmax}",
            Entry("wigner_d", WignerRecipe(lmax)),
        ),
        _part(
            "tensor_product",
            f"Clebsch-Gordan products of two irreps up to degree {lmax}, one function for each path",
            *named,
        ),
    )


def _of_features(
    features: tuple[Label, ...],
    after: tuple[Label, ...],
    harmonics: tuple[Label, ...],
    messages: tuple[Label, ...],
    paths: tuple[Path, ...],
) -> tuple[Part, ...]:
    """What acts on feature rows; `after` are the features again with the channel letters of an output."""
    convolution = ProductRecipe(features, harmonics, messages, paths, weights="row", fused=True)
    return (
        _part(
            "convolution",
            "Messages along edges: gathered at the sender, multiplied by harmonics and weights, summed at the receiver",
            Entry("convolution", convolution),
        ),
        _part(
            "linear",
            "Linear maps of the channels of equal irreps: from features, and from messages",
            Entry("linear", LinearRecipe(features, after)),
            Entry("linear_messages", LinearRecipe(messages, after)),
        ),
        _part("gate", "Each block of features times one scalar for each channel", Entry("gate", GateRecipe(features))),
        _part("norm", "The squared length of each channel", Entry("squared_norm", NormRecipe(features))),
    )


def _part(name: str, title: str, *entries: Entry) -> Part:
    return Part(name, title, entries, sum(estimate(e.recipe) for e in entries))


def _features(lmax: int, irreps: str | None, letter: str) -> tuple[tuple[Label, ...], dict[str, int]]:
    if irreps is None:
        irreps = "+".join(f"{UNIFORM}x{_natural(l)}" for l in range(lmax + 1))
    blocks = Irreps.of(irreps)
    if not blocks.dim:
        raise IrrepsError(f"irreps: got {irreps!r}; expected at least one block with channels")
    return labels(Irreps(tuple(b for b in blocks if b.mul)), letter)


def _outputs(lmax: int, features: tuple[Label, ...]) -> Irreps:
    """Natural parity up to the largest degree; both parities when the features hold an irrep of the other one."""
    top = max(lmax, *(b.irrep.l for b in features))
    doubled = any(b.irrep != _natural(b.irrep.l) for b in features)
    parities = (1, -1) if doubled else (0,)
    return Irreps.of([(1, Irrep(l, p or (-1) ** l)) for l in range(top + 1) for p in parities])


def _natural(l: int) -> Irrep:
    return Irrep(l, (-1) ** l)


def _refuse(parts: list[Part], limit: int, what: str) -> None:
    if parts:
        sizes = ", ".join(f"{p.name} of about {p.terms:,} terms" for p in parts)
        most = max(p.terms for p in parts)
        raise SizeError(
            f"generate {what}: got {sizes}; expected at most {limit:,} in one module; "
            f"do: ask for --limit {most}, or for less"
        )
