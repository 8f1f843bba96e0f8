"""What a bundle says of itself, read without its plugins and without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from xlm_plugins.core.errors import BundleError
from xlm_plugins.runs.layout import MODEL_NAME


def recorded_description(path: Path) -> dict[str, Any]:
    """The description in a bundle folder as it was written, whether or not its plugins are here.

    :raises BundleError: it is missing or damaged.
    """
    return read_tree(path / MODEL_NAME)


def read_tree(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise BundleError(
            f"{path.parent} is a damaged bundle: {type(error).__name__}: {error}"
        ) from error
