"""Page: the findings of a demonstration as one HTML page that needs nothing beside it."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from irrepc.train.findings import Findings, cost_rows, summary

_STYLE = """<style>body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#222}
h1,h2{line-height:1.2}h2{margin-top:2.2rem;border-bottom:1px solid #ccc}
table{border-collapse:collapse;margin:1rem 0;display:block;overflow-x:auto}
th,td{padding:.2rem .8rem .2rem 0;text-align:left;vertical-align:top;border-bottom:1px solid #eee}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
img{max-width:100%;height:auto}figure{margin:1rem 0}figcaption,.small{color:#555;font-size:.9rem}
.pair{display:flex;flex-wrap:wrap;gap:1rem}.pair figure{flex:1 1 20rem}
pre{background:#f6f6f6;padding:.8rem;overflow-x:auto;font-size:.85rem}</style>"""


def page(findings: Findings, pictures: Mapping[str, bytes]) -> str:
    """The HTML text; pictures: name -> PNG, those that write_report makes."""
    config, run, history = findings.config, findings.dynamics, findings.history
    backend = findings.manifest["backends"][-1]  # the fastest of them stands last
    images = {name: base64.b64encode(png).decode() for name, png in pictures.items()}

    def figure(name: str, caption: str) -> str:
        source = f'<img alt="{escape(caption)}" src="data:image/png;base64,{images[name]}">'
        return f"<figure>{source}<figcaption>{escape(caption)}</figcaption></figure>"

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
        _table(("result", ""), summary(findings)),
        "<h2>1. Kernels, derived and proved</h2>",
        f"<p><code>{escape(findings.manifest['command'])}</code> wrote {len(findings.files)} files, "
        f"{sum(findings.files.values()) / 1e6:.1f} MB, into <code>{escape(findings.package)}/</code>, after these "
        "identities were checked exactly, with integers and square roots:</p>",
        _table(("proof", "what holds", "identities"), proofs, numbers=1),
        figure("coupling_sparsity", "The exact couplings are sparse: emitted code holds their non-zero entries only."),
        "<h3>What the kernels cost</h3>",
        "<p>Operations for one row (an edge or an atom) of the emitted text; u, v count the channels. Order 0 is the "
        "function, 1 its vector-Jacobian product, 2 that of order 1, which force training needs. Counted in "
        f"the {backend} text; <code>{escape(findings.package)}/REPORT.md</code> says more.</p>",
        _table(("function", "order", "mul", "add"), cost_rows(findings.manifest, backend), numbers=3),
        "<h2>2. The labels</h2>",
        f"<pre>{escape(findings.provenance)}</pre>",
        "<p>A network that answers zero would have these errors; the network's are to be read against them.</p>",
        _table(("set", "forces", "mean |F| / meV/Å", "rms F / meV/Å", "largest / eV/Å"), spread, numbers=4),
        "<h2>3. Network and training</h2>",
        _table(("setting", ""), network),
        figure("learning_curve", "Training errors are those of the moving weights, validation those of their average."),
        "<h2>4. Energies and forces of trajectories it has not seen</h2>",
        '<div class="pair">',
        figure("parity_forces", "Forces of the test trajectories."),
        figure("parity_energies", "Energies of the test trajectories."),
        "</div>",
        "<h2>5. Symmetry</h2>",
        "<p>Largest difference between the answer for a rotated (and inverted) molecule and the rotated answer. It is "
        "rounding alone, so it neither depends on training nor on the data.</p>",
        _table(("", "arithmetic", "energy / eV", "forces / eV/Å", "relative to rms force"), rotations, numbers=3),
        "<h2>6. Dynamics</h2>",
        f"<p>{run.time[-1]:.1f} ps at constant energy with a time step of {run.timestep} fs through ASE, "
        f"mean temperature {run.temperature.mean():.0f} K. Drift: {run.drift:+.4f} meV per atom and ps.</p>",
        figure("energy_drift", "Potential and kinetic energy change into each other; their sum stays."),
        "<h2>7. To repeat it</h2>",
        _table(("step", "seconds"), [(k, f"{v:.1f}") for k, v in findings.seconds.items()], numbers=1),
        _table(("", ""), [*findings.versions.items(), ("seed", str(findings.seed))]),
        '<p class="small">The training has a budget of time: how many steps it takes, and the last digits of errors, '
        "depend on the machine.</p>",
    ]
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>irrepc demo</title>{_STYLE}'
    )
    return f"<!doctype html>\n<html lang=en><head>{head}</head><body>\n{chr(10).join(sections)}\n</body></html>\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: int = 0) -> str:
    """An HTML table whose last `numbers` columns are set to the right."""
    first = len(head) - numbers

    def line(cells: Sequence[str], tag: str) -> str:
        marks = [' class="n"' if i >= first else "" for i in range(len(cells))]
        return "".join(f"<{tag}{mark}>{escape(cell)}</{tag}>" for cell, mark in zip(cells, marks, strict=True))

    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    top = f"<thead><tr>{line(head, 'th')}</tr></thead>" if any(head) else ""
    return f"<table>{top}<tbody>{body}</tbody></table>"
