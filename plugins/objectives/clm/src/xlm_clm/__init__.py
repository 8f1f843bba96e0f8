"""Causal language modelling as a plugin: its options and its hook, without torch."""

from __future__ import annotations

from dataclasses import dataclass

from xlm_plugins import Component, hookimpl, option


@dataclass(frozen=True)
class CLMOptions:
    """Next-token prediction (arXiv 1901.07291, section 3.2)."""

    context_size: int = option(
        0, "tokens at the beginning of a window that are context only", minimum=0
    )


@hookimpl
def xlm_objectives() -> list[Component]:
    return [
        Component(
            "clm",
            "xlm_clm.objective:CausalLanguageModelling",
            CLMOptions,
            "causal language modelling: predict the next token (arXiv 1901.07291)",
        )
    ]
