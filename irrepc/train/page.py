"""Page: the findings of a demonstration as one HTML page that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from irrepc.train.findings import Findings, cost_rows, summary
from irrepc.train.html import document, figure, table


def page(findings: Findings, pictures: Mapping[str, bytes]) -> str:
    """The HTML text; pictures: name -> PNG, those that write_report makes."""
    config, run, history = findings.config, findings.dynamics, findings.history
    backend = findings.manifest["backends"][-1]  # the fastest of them stands last

    def shown(name: str, caption: str) -> str:
        return figure(pictures[name], caption)

    proofs = [(p["name"], p["statement"], f"{p['checked']:,}") for p in findings.manifest["proofs"]]
    spread = [
        (
            g,
            f"{s.components // 3:,}",
            f"{1e3 * s.mean_absolute:.0f}",
            f"{1e3 * s.root_mean_square:.0f}",
            f"{s.largest:.2f}",
        )
        for g, s in findings.spread.items()
    ]
    rotations = [
        (
            when,
            e.dtype,
            f"{e.energy:.1e}",
            f"{e.forces:.1e}",
            f"{e.forces / e.force_scale:.1e}" if e.force_scale else "",
        )
        for when, e in findings.rotations
    ]
    network = [
        ("species", ", ".join(map(str, config.species))),
        ("cutoff", f"{config.cutoff} Å"),
        ("layers", str(config.layers)),
        ("degrees", f"lmax {config.lmax}, {'both parities' if config.parity else 'natural parity'}"),
        ("features", " + ".join(str(b) for b in config.hidden())),
        ("weights", f"{findings.parameters:,}"),
        *findings.training.items(),
        ("steps taken", f"{history.steps:,} in {len(history.epochs)} epochs (ended by: {history.stopped})"),
    ]
    sections = [
        "<h1>irrepc: from symbolic irreps to forces</h1>",
        table(("result", ""), summary(findings)),
        "<h2>1. Kernels, derived and proved</h2>",
        f"<p><code>{escape(findings.manifest['command'])}</code> wrote {len(findings.files)} files, "
        f"{sum(findings.files.values()) / 1e6:.1f} MB, into <code>{escape(findings.package)}/</code>, after these "
        "identities were checked exactly, with integers and square roots:</p>",
        table(("proof", "what holds", "identities"), proofs, numbers=1),
        shown("coupling_sparsity", "The exact couplings are sparse: emitted code holds their non-zero entries only."),
        "<h3>What the kernels cost</h3>",
        "<p>Operations for one row (an edge or an atom) of the emitted text; u, v count the channels. Order 0 is the "
        "function, 1 its vector-Jacobian product, 2 that of order 1, which force training needs. Counted in "
        f"the {backend} text; <code>{escape(findings.package)}/REPORT.md</code> says more.</p>",
        table(("function", "order", "mul", "add"), cost_rows(findings.manifest, backend), numbers=3),
        "<h2>2. The labels</h2>",
        f"<pre>{escape(findings.provenance)}</pre>",
        "<p>A network that answers zero would have these errors; the network's are to be read against them.</p>",
        table(("set", "forces", "mean |F| / meV/Å", "rms F / meV/Å", "largest / eV/Å"), spread, numbers=4),
        "<h2>3. Network and training</h2>",
        table(("setting", ""), network),
        shown("learning_curve", "Training errors are those of the moving weights, validation those of their average."),
        "<h2>4. Energies and forces of trajectories it has not seen</h2>",
        '<div class="pair">',
        shown("parity_forces", "Forces of the test trajectories."),
        shown("parity_energies", "Energies of the test trajectories."),
        "</div>",
        "<h2>5. Symmetry</h2>",
        "<p>Largest difference between the answer for a rotated (and inverted) molecule and the rotated answer. It is "
        "rounding alone, so it neither depends on training nor on the data.</p>",
        table(("", "arithmetic", "energy / eV", "forces / eV/Å", "relative to rms force"), rotations, numbers=3),
        "<h2>6. Dynamics</h2>",
        f"<p>{run.time[-1]:.1f} ps at constant energy with a time step of {run.timestep} fs through ASE, "
        f"mean temperature {run.temperature.mean():.0f} K. Drift: {run.drift:+.4f} meV per atom and ps.</p>",
        shown("energy_drift", "Potential and kinetic energy change into each other; their sum stays."),
        "<h2>7. To repeat it</h2>",
        table(("step", "seconds"), [(k, f"{v:.1f}") for k, v in findings.seconds.items()], numbers=1),
        table(("", ""), [*findings.versions.items(), ("seed", str(findings.seed))]),
        '<p class="small">The training has a budget of time: how many steps it takes, and the last digits of errors, '
        "depend on the machine.</p>",
    ]
    return document("irrepc demo", sections)
