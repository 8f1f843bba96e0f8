"""What decides a model's shape; torch-free, so that the command line can show it quickly."""

from __future__ import annotations

from dataclasses import dataclass

from xlm_plugins.core.errors import OptionError
from xlm_plugins.core.options import option


@dataclass(frozen=True)
class ModelOptions:
    """A transformer as XLM has it (docs/semantics.md, 4)."""

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
    output_dense: bool = option(
        False, "a dense layer, GELU and LayerNorm before the output layer, as in RoBERTa"
    )
    adaptive_cutoffs: tuple[int, ...] = option(
        (), "adaptive softmax with clusters that begin at these token ids; the output is not tied"
    )
    adaptive_div_value: float = option(
        4.0, "each cluster of the adaptive softmax is so many times narrower", minimum=1.0
    )
    layer_norm_eps: float = option(1e-12, "added to the variance in LayerNorm", above=0.0)

    def __post_init__(self) -> None:
        if self.dim % self.n_heads:
            raise OptionError(
                f"dim = {self.dim} cannot be split into n-heads = {self.n_heads}",
                expected="n-heads that divides dim",
            )
        cutoffs = self.adaptive_cutoffs
        if sorted({*cutoffs}) != list(cutoffs) or min(cutoffs, default=1) < 1:
            raise OptionError(
                f"adaptive-cutoffs = {', '.join(map(str, cutoffs))}",
                expected="rising token ids above 0, each with a flag of its own",
            )
        if cutoffs and self.output_dense:
            raise OptionError(
                "adaptive-cutoffs and output-dense exclude each other", expected="one of them"
            )


@dataclass(frozen=True)
class GenerationOptions:
    """How text is generated (docs/semantics.md, 7.4)."""

    beam: int = option(1, "hypotheses kept for each sentence; 1 is greedy", minimum=1)
    length_penalty: float = option(
        1.0, "score = sum of log-probabilities / length^penalty: above 1 for longer ones"
    )
    early_stopping: bool = option(
        False, "end a sentence's search once a beam of hypotheses is complete"
    )
    sample: bool = option(False, "draw each token instead of taking the most probable one")
    temperature: float = option(1.0, "of sampling; under 1 sharper, over 1 flatter", above=0.0)
    top_k: int = option(0, "sample among so many most probable tokens; 0: all", minimum=0)
    top_p: float = option(
        1.0, "sample among the fewest tokens of this probability together", above=0.0, maximum=1.0
    )

    def __post_init__(self) -> None:
        if self.sample and self.beam > 1:
            raise OptionError(
                f"sample and beam = {self.beam} exclude each other",
                expected="one of them",
            )
