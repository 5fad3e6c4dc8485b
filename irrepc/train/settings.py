"""Settings: everything a training is told, with defaults, meanings and rules; the configuration file mirrors them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from irrepc.errors import InputError
from irrepc.train.labels import Labels
from irrepc.train.losses import FORMS
from irrepc.train.rates import SCHEDULES

NETWORKS = ("nequip", "mace", "esen", "esen_direct", "equiformer", "equiformer_v2", "tfn")
BACKENDS = ("auto", "llvm", "torch", "numba", "cuda")


def says(meaning: str, default: Any) -> Any:  # Any: the type of the field, which mypy reads off its annotation
    """A field with its default and what the starter configuration says of it."""
    return field(default=default, metadata={"says": meaning})


def expect(section: str, settings: Any, rules: Sequence[tuple[str, bool, str]]) -> None:
    """Raise InputError for the first (name, kept, expected) that is not kept."""
    for name, kept, expected in rules:
        if not kept:
            raise InputError(f"settings: got {section}.{name} = {getattr(settings, name)!r}; expected {expected}")


def _among(allowed: Sequence[str]) -> str:
    return f"one of {', '.join(allowed)}"


@dataclass(frozen=True, slots=True)
class DataSettings:
    """Where the frames are, and what is made of them before training."""

    train: tuple[str, ...] = says(
        "files of labelled frames: extended XYZ, ASE database or trajectory, .npz; relative to this file", ()
    )
    validation: str | float = says("a file, or how much of the training frames is held out: a part, or a number", 0.1)
    tests: dict[str, str] = field(
        default_factory=dict, metadata={"says": "name: file, judged once the training is done; may lack forces"}
    )
    labels: Labels = field(default_factory=Labels, metadata={"says": "names and units in the files"})
    energies: str | dict[int, float] = field(
        default="fit",
        metadata={
            "says": 'what atoms alone cost, eV: "isolated" (lone atoms among the frames or in data.isolated), "fit" '
            "(least squares over the training frames), or atomic number: energy"
        },
    )
    isolated: str | None = says("a file with one frame for each lone atom", None)
    closest: float = says(
        "atoms nearer than this part of the sum of their covalent radii make a frame broken; 0: no such test", 0.45
    )
    broken: str = says('"stop" or "skip" at frames that cannot be used', "stop")
    cache: str = says("folder for frames with their neighbours; made once, may be deleted", "frame-sets")
    workers: int = says("processes that prepare batches; 0 is right for small structures", 0)

    def __post_init__(self) -> None:
        energies = self.energies
        expect(
            "data",
            self,
            (
                ("train", len(self.train) > 0, "one file at least"),
                (
                    "validation",
                    isinstance(self.validation, str) or (self.validation > 0 and math.isfinite(self.validation)),
                    "a file, a part of 1 (0.1), or a number of frames (50)",
                ),
                (
                    "energies",
                    isinstance(energies, dict) or energies in ("isolated", "fit"),
                    "isolated, fit, or a mapping of atomic numbers to eV",
                ),
                ("closest", 0 <= self.closest < 1, "a number from 0 to 1"),
                ("broken", self.broken in ("stop", "skip"), "stop or skip"),
                ("workers", self.workers >= 0, "an integer >= 0"),
            ),
        )


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """Which network, or which trained model to start from."""

    network: str = says(f"one of {', '.join(NETWORKS)}", "nequip")
    cutoff: float = says("of the neighbours, Å; not with start", 5.0)
    options: dict[str, Any] = field(
        default_factory=dict, metadata={"says": "fields of the network's configuration class, such as layers: 3"}
    )
    start: str | None = says("a saved model to go on from (fine-tuning), instead of network, cutoff and options", None)
    frozen: tuple[str, ...] = says('names of weights that stay, with * and ?: ["embedding*", "layers.0.*"]', ())
    refit_energies: bool = says("with start: move the energies of species to these labels (least squares)", True)
    backend: str = says(f"of the kernels: one of {', '.join(BACKENDS)}", "auto")
    dtype: str = says("float32 or float64; energies are always summed in float64", "float32")

    def __post_init__(self) -> None:
        expect(
            "model",
            self,
            (
                ("network", self.network in NETWORKS, _among(NETWORKS)),
                ("cutoff", self.cutoff > 0 and math.isfinite(self.cutoff), "a number > 0 (Å)"),
                ("start", self.start is None or not self.options, "no options beside it, since the model has its own"),
                ("backend", self.backend in BACKENDS, _among(BACKENDS)),
                ("dtype", self.dtype in ("float32", "float64"), "float32 or float64"),
            ),
        )


@dataclass(frozen=True, slots=True)
class LossSettings:
    """Σ weight · mean(f(difference / rms force label)); of energies per atom, force components, stress · V / atoms."""

    energy: float = says("weight", 10.0)
    forces: float = says("weight", 1.0)
    stress: float = says("weight; needs labels and cells", 0.0)
    form: str = says(f"of f: one of {', '.join(FORMS)}", "square")
    late: float | None = says("part of the training after which the late weights hold, as 0.75; null: never", None)
    late_energy: float = says("weight of energies late in training, when forces have mostly settled", 100.0)
    late_forces: float = says("weight of forces then", 1.0)
    late_stress: float = says("weight of stress then", 0.0)
    late_rate: float = says("factor on the learning rate then", 1.0)

    def __post_init__(self) -> None:
        names = ("energy", "forces", "stress", "late_energy", "late_forces", "late_stress")
        expect(
            "loss",
            self,
            (
                *((n, getattr(self, n) >= 0 and math.isfinite(getattr(self, n)), "a number >= 0") for n in names),
                ("energy", self.energy + self.forces + self.stress > 0, "one weight > 0 at least"),
                ("form", self.form in FORMS, _among(FORMS)),
                ("late", self.late is None or 0 < self.late < 1, "a part of 1, such as 0.75, or null"),
                ("late_rate", self.late_rate > 0, "a number > 0"),
            ),
        )


@dataclass(frozen=True, slots=True)
class OptimizerSettings:
    """How weights are changed."""

    name: str = says("adam or adamw", "adam")
    rate: float = says("largest learning rate", 0.01)
    amsgrad: bool = says("keep the largest second moment", True)
    weight_decay: float = says("of weights with two or more axes", 0.0)
    clip: float = says("largest norm of the gradient; 0: not clipped", 10.0)
    average: float = says("what the running average of the weights, which is validated and kept, keeps a step", 0.995)
    schedule: str = says(f"of the learning rate: one of {', '.join(SCHEDULES)}", "cosine")
    warm_up: float = says("part of the training in which it rises", 0.01)
    last: float = says("the part of it at the end (cosine, exponential)", 0.01)
    factor: float = says("plateau: it is multiplied by this", 0.5)
    patience: int = says("plateau: after so many validations without a better result", 10)

    def __post_init__(self) -> None:
        expect(
            "optimizer",
            self,
            (
                ("name", self.name in ("adam", "adamw"), "adam or adamw"),
                ("rate", 0 < self.rate < math.inf, "a number > 0"),
                ("weight_decay", self.weight_decay >= 0, "a number >= 0"),
                ("clip", self.clip >= 0, "a number >= 0"),
                ("average", 0 <= self.average < 1, "a number from 0 to below 1"),
                ("schedule", self.schedule in SCHEDULES, _among(SCHEDULES)),
                ("warm_up", 0 <= self.warm_up < 1, "a part of 1"),
                ("last", 0 < self.last <= 1, "a part of 1, not 0"),
                ("factor", 0 < self.factor < 1, "a number between 0 and 1"),
                ("patience", self.patience >= 1, "an integer >= 1"),
            ),
        )


@dataclass(frozen=True, slots=True)
class RunSettings:
    """How long, in what steps, and on what."""

    epochs: int = says("passes over the training frames", 500)
    batch: int = says("frames of a step, over all processes", 5)
    validate_every: int = says("epochs", 5)
    validation_batch: int = says("frames at once in validation and tests", 50)
    patience: int | None = says("stop after so many validations without a better result; null: never", None)
    minutes: float | None = says("stop after so long, to be resumed; null: never", None)
    checkpoint_minutes: float = says("a checkpoint is written at least so often, and after each epoch validated", 10.0)
    seed: int = says("of weights, splits and order", 0)
    threads: int | None = says("of the CPU; 1 is fastest for small molecules; null: all", None)
    device: str = says("auto, cpu or cuda", "auto")
    devices: int = says("processes on each machine, one for each GPU", 1)
    nodes: int = says("machines", 1)
    matmul: str = says("highest, or high: TF32 on GPUs that have it", "highest")
    tensorboard: bool = says("write logs for TensorBoard beside metrics.csv", True)

    def __post_init__(self) -> None:
        counts = ("epochs", "batch", "validate_every", "validation_batch", "devices", "nodes")
        expect(
            "run",
            self,
            (
                *((name, getattr(self, name) >= 1, "an integer >= 1") for name in counts),
                ("patience", self.patience is None or self.patience >= 1, "an integer >= 1, or null"),
                ("minutes", self.minutes is None or self.minutes > 0, "a number > 0, or null"),
                ("checkpoint_minutes", self.checkpoint_minutes > 0, "a number > 0"),
                ("seed", self.seed >= 0, "an integer >= 0"),
                ("threads", self.threads is None or self.threads >= 1, "an integer >= 1, or null"),
                ("device", self.device in ("auto", "cpu", "cuda"), "auto, cpu or cuda"),
                ("matmul", self.matmul in ("highest", "high"), "highest or high"),
            ),
        )


@dataclass(frozen=True, slots=True)
class Settings:
    """All of them."""

    data: DataSettings
    model: ModelSettings = field(default_factory=ModelSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    run: RunSettings = field(default_factory=RunSettings)
