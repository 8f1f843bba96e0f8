"""Where the settings of a run were given: by a flag, a variable, a file or the model of --init."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xlm_plugins.config.settings import AUTO, Values
from xlm_plugins.core.options import fields_of
from xlm_plugins.runs.layout import ENVIRONMENT_NAME

Origins = Mapping[str, str]
"""Option, such as ``optimizer.lr``, to ``--lr``, ``XLM_TRAIN_LR``, a file or ``--init``."""

_OF_THE_RUN = ("train", "optimizer", "generation")
"""Sections that no model hands on."""

SETTINGS_FROM = "settings_from"
"""The key of environment.json with the `Origins` of a run."""


def origins(
    sections: Mapping[str, Any], given: Origins, below: Origins, *, inherits: bool = False
) -> dict[str, str]:
    """Where each setting that differs from its default was given.

    A setting that nobody gave is inherited or, like the warm-up of a short run, follows from
    others; the latter has no origin.

    :param sections: the resolved options, by section.
    :param given: of flags and variables.
    :param below: of what they override (`origins_below`).
    :param inherits: whether the shape of the model and its layers may be those of --init.
    """
    found = {}
    for section, options in sections.items():
        for field in fields_of(type(options)):
            name = f"{section}.{field.key}"
            origin = given.get(name) or below.get(name)
            if inherits and (section not in _OF_THE_RUN or name == "train.layer"):
                origin = origin or "--init"
            if getattr(options, field.name) != field.default and origin:
                found[name] = origin
    return found


def origins_below(file: Path | None, tree: Values, resume: str | None) -> Origins:
    """Where what is under the flags was given: in a file, or by earlier starts of the run.

    :param file: the value of --config, which holds ``tree``.
    :param resume: the value of --resume.
    """
    if file is not None:
        return {
            f"{section}.{key.replace('_', '-')}": str(file)
            for section, options in tree.items()
            for key in options
        }
    return {} if resume in (None, AUTO) else recorded_origins(Path(str(resume)))


def recorded_origins(run: Path) -> Origins:
    """Where a run's settings were given; empty for a run of a version that did not record it."""
    try:
        tree = json.loads((run / ENVIRONMENT_NAME).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    found: Origins = tree.get(SETTINGS_FROM, {}) if isinstance(tree, dict) else {}
    return found
