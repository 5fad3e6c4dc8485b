"""The cache: the folder where what was emitted and compiled is kept."""

from __future__ import annotations

import os
from pathlib import Path

CACHE_VARIABLE = "IRREPC_CACHE"


def cache_folder() -> Path:
    """Where emitted modules are kept: $IRREPC_CACHE, or the user's cache folder."""
    place = os.environ.get(CACHE_VARIABLE)
    if place:
        return Path(place)
    import platformdirs

    return Path(platformdirs.user_cache_dir("irrepc"))
