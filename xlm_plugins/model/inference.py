"""Using a bundle on raw text: fill masks, embed sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from xlm_plugins.core.batch import Batch, pack
from xlm_plugins.core.errors import OptionError
from xlm_plugins.core.ragged import Ragged
from xlm_plugins.model.bundle import Bundle

MASK_MARK = "<mask>"


@dataclass(frozen=True)
class Filling:
    """One guess for a mask: the token, its probability and the whole text with it put in."""

    token: str
    probability: float
    text: str


def language_id(bundle: Bundle, language: str | None) -> int:
    """The id of a language that the model knows; of the only one when none is named.

    :raises OptionError: unknown, or none named where there are several.
    """
    known = bundle.description.languages
    if language is None and len(known) == 1:
        return next(iter(known.values()))
    if language is None or language not in known:
        raise OptionError(
            f"the model does not know the language {language!r}"
            if language
            else "the model knows several languages, and none was named",
            expected=f"--language with one of {', '.join(sorted(known))}",
        )
    return known[language]


def sentence_batch(bundle: Bundle, rows: Ragged, language: int) -> Batch:
    """Unframed rows as a batch ``</s> w1 .. wn </s>``, cut to the model's positions."""
    vocabulary = bundle.description.vocabulary
    eos = vocabulary.roles["eos"]
    longest = bundle.description.options.max_positions - 2
    framed = Ragged.of([row[:longest] for row in rows.rows]).framed(eos, eos)
    nothing = np.empty(0, np.int64)
    return pack(
        framed,
        framed.positions(),
        framed.filled(language),
        nothing,
        nothing,
        np.arange(framed.n_rows),
    )


@torch.inference_mode()
def embed(
    bundle: Bundle,
    texts: Sequence[str],
    language: str | None = None,
    *,
    layer: int = -1,
    batch_size: int = 64,
) -> npt.NDArray[np.float32]:
    """Sentence embeddings: the mean of a layer's states over the sentence's own tokens.

    The two framing EOS are left out of the mean.  (SEMANTICS 8)

    :param layer: 0 is the embedding layer, -1 the last.
    :returns: shape (len(texts), dim).
    """
    rows = bundle.tokenizer.encode_batch(list(texts))
    lang = language_id(bundle, language)
    encoder = bundle.model.stack("encoder")
    pieces = []
    for begin in range(0, rows.n_rows, batch_size):
        part = rows.take(np.arange(begin, min(begin + batch_size, rows.n_rows)))
        batch = sentence_batch(bundle, part, lang).to(_device(bundle))
        pieces.append(_mean_inside(encoder.hidden_states(batch)[layer], batch.offsets))
    empty = torch.empty(0, bundle.description.options.dim)
    result: npt.NDArray[np.float32] = torch.cat([empty, *pieces]).float().cpu().numpy()
    return result


def _mean_inside(states: Tensor, offsets: Tensor) -> Tensor:
    """The mean over each sequence without its first and last token. (n_tokens, dim) -> (n, dim)"""
    sums = torch.cat([states.new_zeros(1, states.shape[1]), states.double().cumsum(0)])
    begin, end = offsets[:-1] + 1, offsets[1:] - 1
    end = torch.maximum(end, begin + 1)  # an empty sentence takes its closing EOS
    return ((sums[end] - sums[begin]) / (end - begin)[:, None]).float()


@torch.inference_mode()
def fill_mask(
    bundle: Bundle, text: str, language: str | None = None, *, top: int = 5
) -> list[list[Filling]]:
    """The most probable tokens for each ``<mask>`` of a text, by falling probability.

    The model was trained to fill masks, by mlm or tlm say; else the guesses mean nothing.

    :returns: one list of ``top`` fillings for each mask, in order.
    :raises OptionError: no mask in the text, too long a text, or a model without an encoder.
    """
    parts = text.split(MASK_MARK)
    if len(parts) == 1:
        raise OptionError(
            f"the text has no {MASK_MARK}: {text!r}", expected=f"such as 'the {MASK_MARK} of God'"
        )
    encoder = bundle.model.stack("encoder")
    row, masks = _encode_masked(bundle, parts)
    longest = bundle.description.options.max_positions - 2
    if len(row) > longest:
        raise OptionError(f"the text has {len(row)} tokens", expected=f"at most {longest}")
    batch = sentence_batch(bundle, Ragged.of([row]), language_id(bundle, language))
    at = torch.tensor(masks) + 1  # behind the framing EOS
    device = _device(bundle)
    scores = encoder.scores(encoder(batch.to(device), at=at.to(device))).float()
    scores[:, list(bundle.description.vocabulary.reserved)] = -torch.inf
    return [
        _fillings(bundle, row, mask, of_mask, top)
        for mask, of_mask in zip(masks, scores.softmax(-1).cpu(), strict=True)
    ]


def _encode_masked(bundle: Bundle, parts: list[str]) -> tuple[list[int], list[int]]:
    """Encode the text between masks; gives the row and where in it the masks stand."""
    row: list[int] = []
    masks = []
    for index, part in enumerate(parts):
        if index:
            masks.append(len(row))
            row.append(bundle.tokenizer.special("mask"))
        row += bundle.tokenizer.encode_batch([part], continues=index > 0).values.tolist()
    return row, masks


def _fillings(
    bundle: Bundle, row: list[int], mask: int, probabilities: Tensor, top: int
) -> list[Filling]:
    vocabulary = bundle.description.vocabulary
    best = probabilities.topk(min(top, len(vocabulary.ordinary)))
    tokens = bundle.tokenizer.tokens()
    found = []
    for probability, token in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        filled = [*row[:mask], token, *row[mask + 1 :]]
        (text,) = bundle.tokenizer.decode_batch([filled])
        found.append(Filling(tokens[token], probability, text))
    return found


def _device(bundle: Bundle) -> torch.device:
    parameter: Tensor = next(bundle.model.parameters())
    return parameter.device
