"""Options of models and of text generation."""

from __future__ import annotations

from dataclasses import dataclass

from xlm_plugins.core.errors import OptionError
from xlm_plugins.core.options import option


@dataclass(frozen=True)
class ModelOptions:
    """A transformer as XLM has it (docs/semantics.md, 4)."""

    dim: int = option(256, "width of the model", minimum=1)
    n_layers: int = option(4, "transformer layers per stack", minimum=1)
    n_heads: int = option(8, "attention heads; must divide dim", minimum=1)
    ffn_dim: int | None = option(
        None, "inner width of the feed-forward layers; 4 x dim if unset", minimum=1
    )
    max_positions: int = option(512, "maximum sequence length, in tokens", minimum=2)
    dropout: float = option(0.1, "dropout on embeddings and sublayers", minimum=0.0, maximum=0.9)
    attention_dropout: float = option(
        0.0,
        "dropout on attention weights; rules out fused CPU kernels",
        minimum=0.0,
        maximum=0.9,
        advanced=True,
    )
    activation: str = option(
        "gelu", "activation of the FFN", choices=("gelu", "relu"), advanced=True
    )
    position_embeddings: str = option(
        "learned", "kind of position embeddings", choices=("learned", "sinusoidal"), advanced=True
    )
    language_embeddings: bool = option(True, "add a language embedding to each token")
    tied_output: bool = option(
        True, "tie the output layer's weight to the token embeddings", advanced=True
    )
    output_dense: bool = option(
        False,
        "a dense layer, GELU and LayerNorm before the output layer, as in RoBERTa",
        advanced=True,
    )
    adaptive_cutoffs: tuple[int, ...] = option(
        (),
        "token ids at which the clusters of an adaptive softmax start; the output is not tied",
        advanced=True,
    )
    adaptive_div_value: float = option(
        4.0,
        "each cluster of the adaptive softmax is narrower by this factor",
        minimum=1.0,
        advanced=True,
    )
    layer_norm_eps: float = option(
        1e-12, "added to the variance in LayerNorm", above=0.0, advanced=True
    )

    def __post_init__(self) -> None:
        if self.dim % self.n_heads:
            raise OptionError(
                f"dim = {self.dim} cannot be split into n-heads = {self.n_heads}",
                expected="a value of n-heads that divides dim",
            )
        cutoffs = self.adaptive_cutoffs
        if sorted({*cutoffs}) != list(cutoffs) or min(cutoffs, default=1) < 1:
            raise OptionError(
                f"adaptive-cutoffs = {', '.join(map(str, cutoffs))}",
                expected="increasing token ids above 0, one per flag",
            )
        if cutoffs and self.output_dense:
            raise OptionError(
                "adaptive-cutoffs and output-dense are mutually exclusive", expected="one of them"
            )


@dataclass(frozen=True)
class GenerationOptions:
    """How text is generated (docs/semantics.md, 7.4)."""

    beam: int = option(1, "beam size; 1: greedy search", minimum=1)
    length_penalty: float = option(
        1.0, "score = sum of log-probabilities / length^penalty; above 1 favours longer text"
    )
    early_stopping: bool = option(
        False, "end a sentence's search as soon as --beam hypotheses are complete"
    )
    sample: bool = option(False, "sample each token instead of choosing the most probable one")
    temperature: float = option(
        1.0, "sampling temperature; below 1 sharper, above 1 flatter", above=0.0
    )
    top_k: int = option(0, "sample from this many most probable tokens; 0: all", minimum=0)
    top_p: float = option(
        1.0, "sample from the fewest tokens with this total probability", above=0.0, maximum=1.0
    )

    def __post_init__(self) -> None:
        if self.sample and self.beam > 1:
            raise OptionError(
                f"sample and beam = {self.beam} are mutually exclusive",
                expected="one of them",
            )
