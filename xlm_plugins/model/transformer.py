"""A stack of transformer layers as XLM has it: post-LayerNorm, on packed tokens.

Position-wise work (embeddings, projections, LayerNorm, FFN, memory layers) runs on packed tokens
without padding; `attention` alone knows where sequences begin.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from xlm_plugins.core.batch import Batch, LossOutput
from xlm_plugins.core.contracts import Layer
from xlm_plugins.core.errors import DataError
from xlm_plugins.core.selection import Position
from xlm_plugins.model.attention import Attention, AttentionPlan
from xlm_plugins.model.config import ModelOptions
from xlm_plugins.model.dropout import Dropout
from xlm_plugins.model.output import Output


class Embeddings(nn.Module):
    """Sum of token, position and language embeddings, LayerNorm, dropout (XLM, section 3).

    :param n_languages: with one language there is nothing to tell apart, and no embedding of it.
    :param pad: the id whose row starts at zero.
    """

    def __init__(
        self, options: ModelOptions, vocabulary_size: int, n_languages: int, pad: int
    ) -> None:
        super().__init__()
        self.max_positions = options.max_positions
        self.tokens = _embedding(vocabulary_size, options.dim)
        with torch.no_grad():
            self.tokens.weight[pad].zero_()
        self.positions: nn.Module
        if options.position_embeddings == "sinusoidal":
            self.positions = SinusoidalPositions(options.max_positions, options.dim)
        else:
            self.positions = _learned_positions(options.max_positions, options.dim)
        self.languages: nn.Embedding | None = None
        if options.language_embeddings and n_languages > 1:
            self.languages = _embedding(n_languages, options.dim)
        self.norm = nn.LayerNorm(options.dim, options.layer_norm_eps)
        self.dropout = Dropout(options.dropout)

    def forward(self, batch: Batch) -> Tensor:
        """Embed a batch's tokens.  Shape: (n_tokens, dim)"""
        x: Tensor = self.tokens(batch.tokens) + self.positions(batch.positions)
        if self.languages is not None:
            x = x + self.languages(batch.languages)
        embedded: Tensor = self.dropout(self.norm(x))
        return embedded


class SinusoidalPositions(nn.Module):
    """Fixed positions ("Attention Is All You Need", 3.5): sines at even, cosines at odd places."""

    table: Tensor

    def __init__(self, n_positions: int, dim: int) -> None:
        super().__init__()
        place = torch.arange(dim)
        rate = torch.exp((place - place % 2) * (-math.log(10000.0) / dim))
        angle = torch.arange(n_positions)[:, None] * rate
        table = torch.where(place % 2 == 0, angle.sin(), angle.cos())
        self.register_buffer("table", table, persistent=False)

    def forward(self, positions: Tensor) -> Tensor:
        """Shape: (n,) -> (n, dim)"""
        return functional.embedding(positions, self.table)


class FeedForward(nn.Module):
    """Two linear layers with GELU (the exact, erf form) or ReLU between them.

    Shape: (n, dim) -> (n, dim)
    """

    def __init__(self, options: ModelOptions) -> None:
        super().__init__()
        width = options.ffn_dim or 4 * options.dim
        self.expand = nn.Linear(options.dim, width)
        self.activation = nn.GELU() if options.activation == "gelu" else nn.ReLU()
        self.contract = nn.Linear(width, options.dim)

    def forward(self, x: Tensor) -> Tensor:
        contracted: Tensor = self.contract(self.activation(self.expand(x)))
        return contracted


class TransformerLayer(nn.Module):
    """Self-attention and FFN, each with a residual, then LayerNorm (SEMANTICS 4).

    :param inside: a plugin's layer in place of the FFN.
    :param after: a plugin's layer added to the result.
    """

    def __init__(
        self, options: ModelOptions, inside: Layer | None = None, after: Layer | None = None
    ) -> None:
        super().__init__()
        self.attention = Attention(options.dim, options.n_heads, options.attention_dropout)
        self.attention_norm = nn.LayerNorm(options.dim, options.layer_norm_eps)
        self.feed_forward = FeedForward(options) if inside is None else inside
        self.feed_forward_norm = nn.LayerNorm(options.dim, options.layer_norm_eps)
        self.dropout = Dropout(options.dropout)
        self.after = after

    def forward(self, x: Tensor, plan: AttentionPlan) -> Tensor:
        """Run the layer on the rows that the plan wants.

        :param x: packed states.  Shape: (n_tokens, dim)
        :returns: shape (n_tokens, dim), or (n_wanted, dim).
        """
        attended = self.dropout(self.attention(x, plan))
        if plan.rows is not None:
            x = x.index_select(0, plan.rows)
        x = self.attention_norm(x + attended)
        x = self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))
        return x if self.after is None else x + self.after(x)


class Stack(nn.Module):
    """Embeddings, layers and an output layer: an encoder, causal or not.

    :param vocabulary_size: number of token ids.
    :param n_languages: number of language ids.
    :param pad: id of the padding token.
    :param layers: the plugins' layers of this stack, by position.
    """

    def __init__(
        self,
        options: ModelOptions,
        vocabulary_size: int,
        n_languages: int,
        pad: int,
        layers: Mapping[Position, Layer],
    ) -> None:
        super().__init__()
        inside = {place.index: layer for place, layer in layers.items() if not place.after}
        after = {place.index: layer for place, layer in layers.items() if place.after}
        self.embeddings = Embeddings(options, vocabulary_size, n_languages, pad)
        self.layers = nn.ModuleList(
            TransformerLayer(options, inside.get(index), after.get(index))
            for index in range(options.n_layers)
        )
        tied = self.embeddings.tokens.weight if options.tied_output else None
        self.output = Output(options.dim, vocabulary_size, tied)

    def forward(self, batch: Batch, *, causal: bool = False, at: Tensor | None = None) -> Tensor:
        """The last layer's states.

        :param causal: a token sees itself and what comes before it, else its whole sequence.
        :param at: indices of the packed tokens whose states are wanted, none twice; the last
            layer then asks, projects and feeds forward on these only.  Shape: (n_wanted,)
        :returns: packed states, shape (n_tokens, dim), or those at ``at``, (n_wanted, dim).
        :raises DataError: a position beyond ``max_positions``.
        """
        x, plan = self._begin(batch, causal)
        *others, last = self.layers
        for layer in others:
            x = layer(x, plan)
        states: Tensor = last(x, plan if at is None else plan.at(at))
        return states

    def predict(self, batch: Batch, *, causal: bool = False) -> LossOutput:
        """The loss of the batch's targets, predicted from the states at ``batch.predicted``."""
        return self.loss(self(batch, causal=causal, at=batch.predicted), batch.targets)

    def hidden_states(self, batch: Batch, *, causal: bool = False) -> list[Tensor]:
        """The embeddings, then each layer's states.  Shapes: (n_tokens, dim)

        :raises DataError: a position beyond ``max_positions``.
        """
        x, plan = self._begin(batch, causal)
        states = [x]
        for layer in self.layers:
            states.append(layer(states[-1], plan))
        return states

    def scores(self, states: Tensor) -> Tensor:
        """Scores of every token id, before the softmax.  Shape: (n, dim) -> (n, vocabulary_size)"""
        scores: Tensor = self.output(states)
        return scores

    def loss(self, states: Tensor, targets: Tensor) -> LossOutput:
        """Cross-entropy of the scores, summed over rows; no rows give 0, with a graph.

        :param states: shape (n, dim).
        :param targets: token ids.  Shape: (n,)
        """
        loss: LossOutput = self.output(states, targets)
        return loss

    def _begin(self, batch: Batch, causal: bool) -> tuple[Tensor, AttentionPlan]:
        plan = AttentionPlan.of(batch.offsets, causal)
        # Positions may start anew inside a sequence, so only a long one needs a look at them.
        limit = self.embeddings.max_positions
        if plan.longest > limit and (longest := int(batch.positions.max()) + 1) > limit:
            raise DataError(
                f"a sequence of the batch has {longest} positions",
                expected=f"at most {limit}, the model's max-positions",
                remedy="a smaller --max-length or --window, or a model with more positions",
            )
        x: Tensor = self.embeddings(batch)
        return x, plan


def _learned_positions(n_positions: int, dim: int) -> nn.Embedding:
    """Learned from sinusoids on, of the size of the token embeddings.

    Neighbours are then alike from the start, and what is learned of one position serves the
    others (docs/architecture.md, "How a model starts").
    """
    positions = _embedding(n_positions, dim)
    with torch.no_grad():
        positions.weight.copy_(SinusoidalPositions(n_positions, dim).table * (2 / dim) ** 0.5)
    return positions


def _embedding(n_rows: int, dim: int) -> nn.Embedding:
    """Rows from N(0, dim^-1/2): tied to the output, they give scores of a sane size."""
    embedding = nn.Embedding(n_rows, dim)
    nn.init.normal_(embedding.weight, std=dim**-0.5)
    return embedding
