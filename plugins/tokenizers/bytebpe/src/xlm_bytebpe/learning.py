"""Learning merges from text."""

from __future__ import annotations

import json
from collections.abc import Iterable

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from xlm_bytebpe.letters import LETTERS
from xlm_plugins import DataError

LEAST_COUNT = 2
"""A pair that occurs less often is not learned."""

Pair = tuple[str, str]


def learn(texts: Iterable[str], n_tokens: int, *, prefix_space: bool) -> list[Pair]:
    """Learn merges until there are so many tokens, letters included, or no pair occurs twice.

    :raises DataError: no pair occurs twice.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    trainer = trainers.BpeTrainer(
        vocab_size=n_tokens,
        min_frequency=LEAST_COUNT,
        initial_alphabet=list(LETTERS),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    if not merges:
        raise DataError("no pair of bytes occurs twice in the text", remedy="give more text")
    return [(left, right) for left, right in merges]
