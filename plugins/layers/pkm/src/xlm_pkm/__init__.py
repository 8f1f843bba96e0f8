"""Product-key memory as a plugin: its options and its hook, without torch."""

from __future__ import annotations

from xlm_pkm.options import ProductKeyOptions
from xlm_plugins import Component, hookimpl

__all__ = ["ProductKeyOptions", "xlm_layers"]


@hookimpl
def xlm_layers() -> list[Component]:
    return [
        Component(
            "pkm",
            "xlm_pkm.layer:ProductKeyMemory",
            ProductKeyOptions,
            "product-key memory: many parameters, few of them read (arXiv 1907.05242)",
        )
    ]
