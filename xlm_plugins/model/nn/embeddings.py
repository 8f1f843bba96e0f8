"""Embeddings of tokens, positions and languages: the input of the first layer."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from xlm_plugins.config.model import ModelOptions
from xlm_plugins.contracts.batch import Batch
from xlm_plugins.model.nn.dropout import Dropout


class Embeddings(nn.Module):
    """Sum of token, position and language embeddings, LayerNorm, dropout (XLM, section 3).

    :param n_languages: with a single language there are no language embeddings.
    :param pad: the id whose embedding starts at zero.
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
        return self._sum(batch.tokens, batch.positions, batch.languages)

    def at_position(self, tokens: Tensor, position: int, language: int) -> Tensor:
        """Embed tokens that share a position and a language.

        :param tokens: shape (n,).
        :returns: shape (n, dim).
        """
        return self._sum(tokens, *(tokens.new_tensor([value]) for value in (position, language)))

    def _sum(self, tokens: Tensor, positions: Tensor, languages: Tensor) -> Tensor:
        x: Tensor = self.tokens(tokens) + self.positions(positions)
        if self.languages is not None:
            x = x + self.languages(languages)
        embedded: Tensor = self.dropout(self.norm(x))
        return embedded


class SinusoidalPositions(nn.Module):
    """Fixed positions ("Attention Is All You Need", 3.5): sines at even, cosines at odd indices."""

    table: Tensor

    def __init__(self, n_positions: int, dim: int) -> None:
        super().__init__()
        index = torch.arange(dim)
        # In fp64, since in fp32 the angle of a late position is exact to some 1e-5 only.
        rate = torch.exp((index - index % 2).double() * (-math.log(10000.0) / dim))
        angle = torch.arange(n_positions)[:, None] * rate
        table = torch.where(index % 2 == 0, angle.sin(), angle.cos()).float()
        self.register_buffer("table", table, persistent=False)

    def forward(self, positions: Tensor) -> Tensor:
        """Shape: (n,) -> (n, dim)"""
        return functional.embedding(positions, self.table)


def _learned_positions(n_positions: int, dim: int) -> nn.Embedding:
    """Learned positions, initialized from sinusoids scaled to the size of token embeddings.

    Neighbouring positions are then similar from the start, and what is learned for one serves the
    others (docs/architecture.md, "How a model starts").
    """
    positions = _embedding(n_positions, dim)
    with torch.no_grad():
        positions.weight.copy_(SinusoidalPositions(n_positions, dim).table * (2 / dim) ** 0.5)
    return positions


def _embedding(n_rows: int, dim: int) -> nn.Embedding:
    """Rows with standard deviation dim^-1/2: scores of a tied output are then of order 1."""
    embedding = nn.Embedding(n_rows, dim)
    nn.init.normal_(embedding.weight, std=dim**-0.5)
    return embedding
