"""Translation language modelling as a plugin: its options and its hook, without torch."""

from __future__ import annotations

from xlm_plugins import Component, MaskingOptions, hookimpl


@hookimpl
def xlm_objectives() -> list[Component]:
    return [
        Component(
            "tlm",
            "xlm_tlm.objective:TranslationLanguageModelling",
            MaskingOptions,
            "translation language modelling on pairs, both sides masked (arXiv 1901.07291)",
        )
    ]
