"""Masked language modelling as a plugin: its options and its hook, without torch."""

from __future__ import annotations

from dataclasses import dataclass

from xlm_plugins import Component, MaskingOptions, hookimpl, option


@dataclass(frozen=True)
class MLMOptions(MaskingOptions):
    """The masking, and the text that it is applied to."""

    layout: str = option(
        "stream",
        "stream: windows of running text; sentence: single sentences, each in its frame",
        choices=("stream", "sentence"),
    )


@hookimpl
def xlm_objectives() -> list[Component]:
    return [
        Component(
            "mlm",
            "xlm_mlm.objective:MaskedLanguageModelling",
            MLMOptions,
            "masked language modelling on one language (arXiv 1810.04805, 1901.07291)",
        )
    ]
