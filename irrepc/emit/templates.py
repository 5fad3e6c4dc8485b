"""Templates: where they lie, the jinja environment, rendering."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irrepc.errors import BackendError

if TYPE_CHECKING:
    import jinja2


@lru_cache(maxsize=1)
def template_root() -> Path:
    """The folder of templates: inside the installed package, or at the top of a checkout.

    Raises BackendError naming both places when neither is there.
    """
    package = Path(__file__).resolve().parents[1]
    places = (package / "_templates", package.parent / "templates")
    for place in places:
        if (place / "torch").is_dir():
            return place
    raise BackendError(f"templates: got neither {places[0]} nor {places[1]}; expected one of them; reinstall irrepc")


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    import jinja2  # a tenth of a second, which only those pay who write text

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(template_root()),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )


def render(template: str, **values: Any) -> str:
    """The text of a template; every name it uses must be given."""
    text = _environment().get_template(template).render(**values)
    lines = [line.rstrip() for line in text.split("\n")]
    return "\n".join(lines).rstrip("\n") + "\n"


def template_hash(template: str) -> str:
    """Eight hexadecimal digits of a template file's SHA-256."""
    return hashlib.sha256((template_root() / template).read_bytes()).hexdigest()[:8]
