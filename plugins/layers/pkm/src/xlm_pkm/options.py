"""The options of a product-key memory; without torch, since every command line reads them."""

from __future__ import annotations

from dataclasses import dataclass

from xlm_plugins import OptionError, option


@dataclass(frozen=True)
class ProductKeyOptions:
    """A memory of n_keys^2 slots, read through two small sets of keys (arXiv 1907.05242)."""

    heads: int = option(4, "queries per token, each with its own sub-keys", minimum=1)
    knn: int = option(32, "slots that each head reads", minimum=1)
    n_keys: int = option(
        128,
        "sub-keys of each half; the memory has n-keys squared slots (512 in the paper)",
        minimum=1,
    )
    k_dim: int = option(256, "width of a query, both halves together; even", minimum=1)
    flat: bool = option(
        False, "no product: n-keys slots, each with a whole key, for comparison", advanced=True
    )
    share_keys: bool = option(False, "one set of keys for all heads and both halves", advanced=True)
    keys_init: str = option(
        "uniform",
        "initial keys: uniform in +-1/sqrt(width), or standard normal",
        choices=("uniform", "gaussian"),
        advanced=True,
    )
    query_hidden: tuple[int, ...] = option(
        (),
        "width of a hidden layer before the queries; repeat it for more layers",
        minimum=1,
        advanced=True,
    )
    query_batchnorm: bool = option(
        True, "normalise queries over the batch, which spreads reads over more slots"
    )
    normalize_query: bool = option(False, "scale each half of a query to length 1", advanced=True)
    qk_norm: bool = option(
        False, "RMSNorm on halves of queries and on sub-keys, scores over sqrt(width)"
    )
    score_subtract: str | None = option(
        None,
        "subtract this of a head's best scores from them; needs another score-norm",
        choices=("min", "mean", "median"),
        advanced=True,
    )
    score_norm: str = option(
        "softmax",
        "what makes a head's best scores its weights: softmax, division by their sum, or none",
        choices=("softmax", "sum", "none"),
        advanced=True,
    )
    temperature: float = option(
        1.0, "scores are divided by it before the softmax", above=0.0, advanced=True
    )
    shuffle_slots: bool = option(
        False, "give each head its own order of the slots, drawn at the start", advanced=True
    )
    modulo_size: int | None = option(
        None, "rows of the value table: slot i reads row i modulo this", minimum=1, advanced=True
    )
    share_values: bool = option(
        False, "one table of values for all positions of the selection (arXiv 2412.09764)"
    )
    gate: bool = option(
        False, "multiply the output by a SiLU gate and project it (arXiv 2412.09764)"
    )
    input_dropout: float = option(
        0.0, "dropout on the layer's input", minimum=0.0, maximum=0.9, advanced=True
    )
    query_dropout: float = option(
        0.0, "dropout on queries", minimum=0.0, maximum=0.9, advanced=True
    )
    value_dropout: float = option(
        0.0, "dropout on the layer's output", minimum=0.0, maximum=0.9, advanced=True
    )
    value_lr: float = option(1e-3, "peak learning rate of the value table", above=0.0)
    value_schedule: str = option(
        "constant",
        "learning rate of the values: constant, or the run's schedule scaled to value-lr",
        choices=("constant", "run"),
        advanced=True,
    )
    sparse_update: bool = option(
        False, "update only values that a gradient reached; others are unchanged"
    )

    def __post_init__(self) -> None:
        self._check_sizes()
        self._check_scores()

    @property
    def n_addresses(self) -> int:
        """Number of slots that the keys distinguish."""
        return self.n_keys if self.flat else self.n_keys**2

    @property
    def n_slots(self) -> int:
        """Rows of the value table."""
        return self.n_addresses if self.modulo_size is None else self.modulo_size

    def _check_sizes(self) -> None:
        if self.k_dim % 2 and not self.flat:
            raise OptionError(
                f"pkm.k-dim = {self.k_dim} cannot be halved",
                expected="an even number",
                remedy=f"--pkm.k-dim {self.k_dim + 1}, or whole keys: --pkm.flat",
            )
        if self.knn > self.n_keys:
            raise OptionError(
                f"pkm.knn = {self.knn} is more than pkm.n-keys = {self.n_keys}",
                expected=f"knn from 1 to {self.n_keys}",
                remedy=f"--pkm.knn {self.n_keys}, or more keys: --pkm.n-keys {self.knn}",
            )
        if self.n_slots > self.n_addresses:
            raise OptionError(
                f"pkm.modulo-size = {self.modulo_size} is more than the {self.n_addresses} slots "
                f"that pkm.n-keys = {self.n_keys} distinguish, so some rows would never be read",
                expected=f"modulo-size from 1 to {self.n_addresses}",
                remedy="fewer rows, more keys, or no modulo-size",
            )

    def _check_scores(self) -> None:
        if self.normalize_query and self.qk_norm:
            raise OptionError(
                "pkm.normalize-query and pkm.qk-norm both set the length of queries",
                expected="one of them",
                remedy="leave out --pkm.normalize-query",
            )
        if self.score_norm != "softmax" and self.temperature != 1.0:
            raise OptionError(
                f"pkm.temperature = {self.temperature} is the softmax's, and pkm.score-norm = "
                f"{self.score_norm}",
                expected="temperature with --pkm.score-norm softmax only",
                remedy="leave out --pkm.temperature",
            )
        if self.score_norm == "softmax" and self.score_subtract is not None:
            raise OptionError(
                f"pkm.score-subtract = {self.score_subtract} changes nothing under a softmax",
                expected="score-subtract with --pkm.score-norm sum or none",
                remedy="leave out --pkm.score-subtract, or add --pkm.score-norm sum",
            )
        if self.score_norm == "sum" and self.score_subtract != "min":
            raise OptionError(
                "pkm.score-norm = sum divides by a sum that may be zero or negative",
                expected="scores that start from 0",
                remedy="--pkm.score-subtract min",
            )
        if self.score_subtract is not None and self.knn == 1:
            raise OptionError(
                f"pkm.score-subtract = {self.score_subtract} makes a single score zero",
                expected="knn of at least 2",
                remedy="--pkm.knn 2, or leave out --pkm.score-subtract",
            )
