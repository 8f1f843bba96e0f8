"""Product-key memory as a plugin: its options and its hook, without torch."""

from __future__ import annotations

from dataclasses import dataclass

from xlm_plugins import Component, OptionError, hookimpl, option


@dataclass(frozen=True)
class ProductKeyOptions:
    """A memory of n_keys^2 slots, read through two small sets of keys (arXiv 1907.05242)."""

    heads: int = option(4, "queries a token, each with sub-keys of its own", minimum=1)
    knn: int = option(32, "slots that each head reads", minimum=1)
    n_keys: int = option(
        128,
        "sub-keys of each half; the memory has n-keys squared slots (512 in the paper)",
        minimum=1,
    )
    k_dim: int = option(256, "width of a query, both halves together; even", minimum=2)
    query_batchnorm: bool = option(
        True, "normalise queries over the batch, which spreads reads over more slots"
    )
    input_dropout: float = option(0.0, "dropout on the layer's input", minimum=0.0, maximum=0.9)
    query_dropout: float = option(0.0, "dropout on queries", minimum=0.0, maximum=0.9)
    value_dropout: float = option(0.0, "dropout on the layer's output", minimum=0.0, maximum=0.9)
    value_lr: float = option(1e-3, "constant learning rate of the value table", above=0.0)

    def __post_init__(self) -> None:
        if self.k_dim % 2:
            raise OptionError(
                f"pkm.k-dim = {self.k_dim} has no two equal halves",
                expected="an even number",
                remedy=f"--pkm.k-dim {self.k_dim + 1}",
            )
        if self.knn > self.n_keys:
            raise OptionError(
                f"pkm.knn = {self.knn} is more than pkm.n-keys = {self.n_keys}",
                expected=f"knn from 1 to {self.n_keys}",
                remedy=f"--pkm.knn {self.n_keys}, or more keys: --pkm.n-keys {self.knn}",
            )


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
