"""Stacks of transformer layers as in XLM: post-LayerNorm, on packed tokens.

Position-wise work (embeddings, projections, LayerNorm, FFN, layers of plugins) runs on packed
tokens without padding; only `attention` knows where sequences begin.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from xlm_plugins.config.model import ModelOptions
from xlm_plugins.contracts.batch import Batch, LossOutput
from xlm_plugins.contracts.layer import Layer
from xlm_plugins.core.errors import DataError
from xlm_plugins.core.selection import Position
from xlm_plugins.model.nn.adaptive import AdaptiveOutput
from xlm_plugins.model.nn.attention import Attention, AttentionPlan
from xlm_plugins.model.nn.dropout import Dropout
from xlm_plugins.model.nn.embeddings import Embeddings
from xlm_plugins.model.nn.linear import Linear
from xlm_plugins.model.nn.output import Output


class FeedForward(nn.Module):
    """Two linear layers with GELU (the exact, erf form) or ReLU between them.

    Shape: (n, dim) -> (n, dim)
    """

    def __init__(self, options: ModelOptions) -> None:
        super().__init__()
        width = options.ffn_dim or 4 * options.dim
        self.expand = Linear(options.dim, width)
        self.activation = nn.GELU() if options.activation == "gelu" else nn.ReLU()
        self.contract = Linear(width, options.dim)

    def forward(self, x: Tensor) -> Tensor:
        contracted: Tensor = self.contract(self.activation(self.expand(x)))
        return contracted


@dataclass(frozen=True)
class Source:
    """What a decoder attends to: the encoder's states of the source sequences.

    :param states: packed.  Shape: (n_tokens, dim)
    :param offsets: where its sequences begin, and the end.  Shape: (n_sequences + 1,)
    """

    states: Tensor
    offsets: Tensor


class TransformerLayer(nn.Module):
    """Self-attention, in a decoder attention to the source, and FFN, each with a residual and then
    LayerNorm (docs/semantics.md, 4).

    :param inside: a plugin's layer in place of the FFN.
    :param after: a plugin's layer, added to the result.
    :param reads_source: whether the layer is a decoder's.
    """

    def __init__(
        self,
        options: ModelOptions,
        inside: Layer | None = None,
        after: Layer | None = None,
        *,
        reads_source: bool = False,
    ) -> None:
        super().__init__()
        self.attention = Attention(options.dim, options.n_heads, options.attention_dropout)
        self.attention_norm = nn.LayerNorm(options.dim, options.layer_norm_eps)
        self.reads_source = reads_source
        if reads_source:
            self.source_attention = Attention(
                options.dim, options.n_heads, options.attention_dropout
            )
            self.source_attention_norm = nn.LayerNorm(options.dim, options.layer_norm_eps)
        self.feed_forward = FeedForward(options) if inside is None else inside
        self.feed_forward_norm = nn.LayerNorm(options.dim, options.layer_norm_eps)
        self.dropout = Dropout(options.dropout)
        self.after = after

    def forward(self, x: Tensor, plan: Plan) -> Tensor:
        """Run the layer on the plan's query rows.

        :param x: packed states.  Shape: (n_tokens, dim)
        :returns: shape (n_tokens, dim), or (n_needed, dim).
        """
        attended = self.attention(x, plan.own)
        if plan.own.rows is not None:
            x = x.index_select(0, plan.own.rows)
        x = self.attention_norm(x + self.dropout(attended))
        if self.reads_source and plan.source is not None:
            read = self.source_attention.across(x, *plan.source)
            x = self.source_attention_norm(x + self.dropout(read))
        return self.transform(x)

    def transform(self, x: Tensor) -> Tensor:
        """What comes after attention, row by row.  Shape: (n, dim) -> (n, dim)"""
        x = self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))
        return x if self.after is None else x + self.after(x)


@dataclass(frozen=True)
class Plan:
    """Which rows attend to which, in all layers of a stack.

    :param own: attention within the stack's own sequences.
    :param source: the source's states and the attention to them; None without a source.
        Shape of the states: (n_source_tokens, dim)
    """

    own: AttentionPlan
    source: tuple[Tensor, AttentionPlan] | None = None

    def at(self, rows: Tensor) -> Plan:
        """The same batch with only some rows as queries.  Shape of the rows: (n_needed,)"""
        source = None if self.source is None else (self.source[0], self.source[1].at(rows))
        return Plan(self.own.at(rows), source)


class Stack(nn.Module):
    """Embeddings, layers and an output layer: an encoder, causal or not, or a decoder.

    :param vocabulary_size: number of token ids.
    :param n_languages: number of language ids.
    :param pad: id of the padding token.
    :param layers: the plugins' layers of this stack, by position.
    :param reads_source: whether it is a decoder, which attends to a source if it is given one.
    """

    def __init__(
        self,
        options: ModelOptions,
        vocabulary_size: int,
        n_languages: int,
        pad: int,
        layers: Mapping[Position, Layer],
        *,
        reads_source: bool = False,
    ) -> None:
        super().__init__()
        inside = {place.index: layer for place, layer in layers.items() if not place.after}
        after = {place.index: layer for place, layer in layers.items() if place.after}
        self.embeddings = Embeddings(options, vocabulary_size, n_languages, pad)
        self.layers = nn.ModuleList(
            TransformerLayer(
                options, inside.get(index), after.get(index), reads_source=reads_source
            )
            for index in range(options.n_layers)
        )
        self.output: nn.Module
        if options.adaptive_cutoffs:
            self.output = AdaptiveOutput(options, vocabulary_size)
        else:
            tied = self.embeddings.tokens.weight if options.tied_output else None
            self.output = Output(options, vocabulary_size, tied)

    def forward(
        self,
        batch: Batch,
        *,
        causal: bool = False,
        at: Tensor | None = None,
        source: Source | None = None,
        n_layers: int | None = None,
    ) -> Tensor:
        """The last layer's states.

        :param causal: each token attends to itself and to earlier ones, else to its whole sequence.
        :param at: indices of the packed tokens whose states are needed, without duplicates; the
            last layer's queries, projections and FFN then run on these only.  Shape: (n_needed,)
        :param source: the source of each sequence; without it a decoder is a language model.
        :param n_layers: run only so many layers; 0 returns the embeddings.
        :returns: packed states, shape (n_tokens, dim), or those at ``at``, (n_needed, dim).
        :raises DataError: a position beyond ``max_positions``.
        """
        x, plan = self._begin(batch, causal, source)
        if n_layers == 0:
            return x if at is None else x.index_select(0, at)
        *others, last = list(self.layers)[:n_layers]
        for layer in others:
            x = layer(x, plan)
        states: Tensor = last(x, plan if at is None else plan.at(at))
        return states

    def predict(
        self, batch: Batch, *, causal: bool = False, source: Source | None = None
    ) -> LossOutput:
        """The loss of the batch's targets, predicted from the states at ``batch.predicted``."""
        states = self(batch, causal=causal, at=batch.predicted, source=source)
        return self.loss(states, batch.targets)

    def hidden_states(
        self, batch: Batch, *, causal: bool = False, source: Source | None = None
    ) -> list[Tensor]:
        """The embeddings, then each layer's states.  Shapes: (n_tokens, dim)

        :raises DataError: a position beyond ``max_positions``.
        """
        x, plan = self._begin(batch, causal, source)
        states = [x]
        for layer in self.layers:
            states.append(layer(states[-1], plan))
        return states

    @property
    def transformer_layers(self) -> list[TransformerLayer]:
        """The layers in order, the first after the embeddings first."""
        return [layer for layer in self.layers if isinstance(layer, TransformerLayer)]

    def scores(self, states: Tensor) -> Tensor:
        """Scores of every token id, before the softmax.  Shape: (n, dim) -> (n, vocabulary_size)"""
        scores: Tensor = self.output(states)
        return scores

    def loss(self, states: Tensor, targets: Tensor) -> LossOutput:
        """Cross-entropy of the scores, summed over rows; without rows it is 0, with a graph.

        :param states: shape (n, dim).
        :param targets: token ids.  Shape: (n,)
        """
        loss: LossOutput = self.output(states, targets)
        return loss

    def _begin(self, batch: Batch, causal: bool, source: Source | None) -> tuple[Tensor, Plan]:
        own = AttentionPlan.of(batch.offsets, causal)
        # Positions may restart inside a sequence, so only those of a long one need checking.
        limit = self.embeddings.max_positions
        if own.longest > limit and (longest := int(batch.positions.max()) + 1) > limit:
            raise DataError(
                f"a sequence of the batch has {longest} positions",
                expected=f"at most {limit}, the model's max-positions",
                remedy="a smaller --max-length or --window, or a model with more positions",
            )
        x: Tensor = self.embeddings(batch)
        if source is None:
            return x, Plan(own)
        across = AttentionPlan.across(batch.offsets, source.offsets)
        return x, Plan(own, (source.states, across))
