"""Masked language modelling as a plugin: its options and its hook, without its weight."""

from __future__ import annotations

from xlm_plugins import Component, MaskingOptions, hookimpl


@hookimpl
def xlm_objectives() -> list[Component]:
    return [
        Component(
            "mlm",
            "xlm_mlm.objective:MaskedLanguageModelling",
            MaskingOptions,
            "masked language modelling on one language (arXiv 1810.04805, 1901.07291)",
        )
    ]
