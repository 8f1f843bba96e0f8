"""Token ids in, hidden states of every layer out."""

from __future__ import annotations

import torch
from torch import Tensor

from xlm_plugins.contracts.batch import Batch
from xlm_plugins.core.errors import DataError, OptionError
from xlm_plugins.inference.common import device_of, is_causal, tokenizer_of
from xlm_plugins.model.bundle import Bundle


def encode(bundle: Bundle, text: str) -> Tensor:
    """The ids of a text in its frame, at full length.  Shape: (length,)"""
    rows = tokenizer_of(bundle, None).encode_batch([text])
    return torch.from_numpy(rows.framed(*bundle.description.vocabulary.frame).values)


def decode(bundle: Bundle, ids: Tensor) -> str:
    """The text of ids, without special tokens.

    :param ids: shape (length,).
    :raises DataError: an id is outside the vocabulary.
    """
    row = torch.as_tensor(ids)
    if row.dim() != 1:
        raise DataError(f"ids of shape {tuple(row.shape)}", expected="(length,)")
    return tokenizer_of(bundle, None).decode_batch([row.tolist()])[0]


@torch.no_grad()
def extract_features(
    bundle: Bundle,
    ids: Tensor,
    languages: Tensor | None = None,
    positions: Tensor | None = None,
) -> list[Tensor]:
    """The encoder's states of every token, in eval mode.

    :param ids: token ids in their frames, padded with the tokenizer's padding id.
        Shape: (length,) or (batch, length)
    :param languages: the language id of each token; required if the model has several.
        Shape: as ids
    :param positions: of each token, from 0; by default counted within each row.  Shape: as ids
    :returns: the embeddings, then each layer's states; zeros at padding.
        Shapes: (batch, length, dim)
    :raises DataError: shapes that differ, or a number out of range.
    :raises OptionError: languages are missing, or the model has no encoder.
    """
    encoder = bundle.model.stack("encoder")
    vocabulary, options = bundle.description.vocabulary, bundle.description.options
    grid = _grid("ids", ids, None, vocabulary.size)
    real = grid != vocabulary.roles["pad"]
    if languages is None:
        languages = torch.full_like(grid, _only_language(bundle))
    n_languages = max(len(bundle.description.languages), 1)
    spoken = _grid("languages", languages, grid, n_languages)
    placed = (real.cumsum(1) - 1).clamp(min=0)
    if positions is not None:
        placed = _grid("positions", positions, grid, options.max_positions)
    nothing = torch.empty(0, dtype=torch.long)
    batch = Batch(
        tokens=grid[real],
        positions=placed[real],
        languages=spoken[real],
        offsets=torch.nn.functional.pad(real.sum(1).cumsum(0), (1, 0)),
        predicted=nothing,
        targets=nothing,
        sample_ids=torch.arange(len(grid)),
    ).to(device_of(bundle))
    states = encoder.hidden_states(batch, causal=is_causal(bundle))
    real = real.to(batch.tokens.device)
    padded = [layer.new_zeros(*grid.shape, layer.shape[1]) for layer in states]
    for whole, layer in zip(padded, states, strict=True):
        whole[real] = layer
    return padded


def _only_language(bundle: Bundle) -> int:
    """The id of the model's only language, or 0 if it has no language embeddings."""
    known = bundle.description.known_languages or {}
    if len(known) > 1:
        ids = ", ".join(f"{name} = {number}" for name, number in known.items())
        raise OptionError(
            "the model has language embeddings, and no languages were given",
            expected=f"languages, of {ids}",
        )
    return next(iter(known.values()), 0)


def _grid(what: str, given: Tensor, like: Tensor | None, end: int) -> Tensor:
    """Check that numbers are integers from 0 to ``end`` - 1, as (batch, length) on the CPU.

    :param like: a tensor of the required shape, or None for any.
    """
    values = torch.as_tensor(given).cpu()
    if values.dim() == 1:
        values = values[None]
    wanted = "(length,) or (batch, length)" if like is None else str(tuple(like.shape))
    if values.dim() != 2 or (like is not None and values.shape != like.shape):
        raise DataError(f"{what} of shape {tuple(torch.as_tensor(given).shape)}", expected=wanted)
    if values.is_floating_point() or values.is_complex():
        raise DataError(f"{what} of type {values.dtype}", expected="whole numbers")
    if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < end:
        wrong = int(values.min()) if int(values.min()) < 0 else int(values.max())
        raise DataError(f"{what} with {wrong} among them", expected=f"0 to {end - 1}")
    return values.long()
