"""What decides a model's shape; torch-free, so that the command line can show it quickly."""

from __future__ import annotations

from dataclasses import dataclass

from xlm_plugins.core.errors import OptionError
from xlm_plugins.core.options import option


@dataclass(frozen=True)
class ModelOptions:
    """A transformer as XLM has it (SEMANTICS: post-LayerNorm, learned positions, tied output)."""

    dim: int = option(256, "width of the model", minimum=1)
    n_layers: int = option(4, "layers of each stack", minimum=1)
    n_heads: int = option(8, "attention heads; divides dim", minimum=1)
    ffn_dim: int | None = option(
        None, "width of the feed-forward layers; 4 x dim if unset", minimum=1
    )
    max_positions: int = option(512, "longest sequence, in tokens", minimum=2)
    dropout: float = option(0.1, "dropout on embeddings and sublayers", minimum=0.0, maximum=0.9)
    attention_dropout: float = option(
        0.0, "dropout on attention weights; no fused CPU kernel has it", minimum=0.0, maximum=0.9
    )
    activation: str = option("gelu", "of the feed-forward layers", choices=("gelu", "relu"))
    position_embeddings: str = option(
        "learned", "kind of position embeddings", choices=("learned", "sinusoidal")
    )
    language_embeddings: bool = option(True, "add an embedding of each token's language")
    tied_output: bool = option(True, "share the output layer's weight with the token embedding")
    layer_norm_eps: float = option(1e-12, "added to the variance in LayerNorm", above=0.0)

    def __post_init__(self) -> None:
        if self.dim % self.n_heads:
            raise OptionError(
                f"dim = {self.dim} cannot be split into n-heads = {self.n_heads}",
                expected="n-heads that divides dim",
            )
