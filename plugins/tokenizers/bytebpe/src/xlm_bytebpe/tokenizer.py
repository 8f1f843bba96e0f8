"""Byte-level BPE behind the `Tokenizer` contract (Radford et al. 2019, section 2.2).

Text is UTF-8, and bytes are merged within words, so nothing is unknown.  Ids are laid out as in
RoBERTa: ``<s> <pad> </s> <unk>``, the tokens, ``<mask>``; an imported model's order is kept.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path

from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models, pre_tokenizers

from xlm_bytebpe import ByteBPEOptions
from xlm_bytebpe.files import TOKENIZER_NAME, Parts, find_parts, read_saved
from xlm_bytebpe.learning import Pair, learn
from xlm_bytebpe.letters import LETTERS, bytes_of
from xlm_bytebpe.word_ids import WordIds
from xlm_plugins import BundleError, DataError, Ragged, Tokenizer, write_text

BEFORE, MASK = ("<s>", "<pad>", "</s>", "<unk>"), "<mask>"
FORMS = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>", "sep": "</s>", "mask": MASK}
"""The written form of each role's id."""

N_FIXED = len(BEFORE) + len(LETTERS) + 1
"""Ids that every vocabulary has."""

MOST_LEFT = 16
"""Limit of tokens that no merge makes: one of GPT-2's, and those that pad a vocabulary."""


class ByteBPE(Tokenizer):
    """A vocabulary, and the merges that make its tokens.

    :param tokens: the written form of every id, with bytes written in `letters`.
    :param merges: pairs of tokens, in the order in which they are applied.
    :param prefix_space: put a space before a line that does not begin with one.
    :raises BundleError: a special token or a byte is missing, or tokens and merges do not match.
    """

    begin_role = "bos"

    def __init__(
        self, tokens: Sequence[str], merges: Sequence[Pair], prefix_space: bool = False
    ) -> None:
        self._tokens, self._merges, self._prefix_space = list(tokens), list(merges), prefix_space
        ids = {token: number for number, token in enumerate(tokens)}
        # The pattern separates letters from other characters, so no text merges to "<s>".
        made = {*LETTERS, *map("".join, merges)} - {*FORMS.values()}
        _check(self._tokens, ids, self._merges, made)
        self._roles = {role: ids[form] for role, form in FORMS.items()}
        self._reserved = tuple(n for n, token in enumerate(tokens) if token not in made)
        self._bytes = [bytes_of(token) if token in made else b"" for token in tokens]
        self._model = models.BPE(vocab=ids, merges=self._merges)
        plain = self._fast(prefix_space=False)
        # One text per call: several would start the library's threads, which a fork would lose.
        self._word_ids = WordIds(lambda text: plain.encode(text).ids)

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocabulary_size: int,
        options: ByteBPEOptions,
        folder: Path,
        workers: int,
    ) -> ByteBPE:
        """Learn merges; the same text gives the same merges, whatever the number of workers.

        :param vocabulary_size: number of ids, special ones and bytes included; there are fewer if
            no pair of the text occurs twice any more.
        :param workers: not used.
        :raises DataError: the text has no pair to merge, or the vocabulary is too small for one.
        """
        if vocabulary_size <= N_FIXED:
            raise DataError(
                f"a vocabulary of {vocabulary_size} has no room for the special tokens, the 256 "
                "bytes and a merge",
                expected=f"at least {N_FIXED + 1}",
                remedy=f"--vocab-size {N_FIXED + 1} or, better, many times that",
            )
        n_tokens = vocabulary_size - N_FIXED + len(LETTERS)
        merges = learn(texts, n_tokens, prefix_space=options.prefix_space)
        learned = dict.fromkeys([*LETTERS, *("".join(pair) for pair in merges)])
        tokenizer = cls([*BEFORE, *learned, MASK], merges, options.prefix_space)
        tokenizer.save(folder)
        return tokenizer

    @classmethod
    def load(cls, folder: Path) -> ByteBPE:
        path = folder / TOKENIZER_NAME
        if not path.is_file():
            raise BundleError(
                f"{folder} holds no byte-level BPE tokenizer: it has no {TOKENIZER_NAME}",
                remedy=f"train one: xlm tokenizer train TEXT --tokenizer bytebpe --out {folder}",
            )
        return cls._of(read_saved(path))

    @classmethod
    def from_hugging_face(cls, folder: Path) -> ByteBPE | None:
        """RoBERTa's tokenizer from a folder in Hugging Face's or fairseq's format.

        :returns: None if the folder has another type of tokenizer.
        :raises BundleError: its files are damaged, or use features that are not supported.
        """
        return None if (found := find_parts(folder)) is None else cls._of(found)

    @classmethod
    def _of(cls, parts: Parts) -> ByteBPE:
        try:
            return cls(parts.tokens, parts.merges, parts.prefix_space)
        except BundleError as error:
            raise BundleError(
                f"{parts.origin} cannot be used: {error.problem}",
                expected=error.expected,
                remedy="use the files that were published together",
            ) from error

    def save(self, folder: Path) -> None:
        write_text(folder / TOKENIZER_NAME, self.to_hugging_face().to_str())

    def to_hugging_face(self) -> FastTokenizer:
        """The same tokenizer as a `tokenizers.Tokenizer` that adds no special tokens."""
        return self._fast(prefix_space=self._prefix_space)

    def _fast(self, *, prefix_space: bool) -> FastTokenizer:
        fast = FastTokenizer(self._model)
        fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
        fast.decoder = decoders.ByteLevel()
        return fast

    def encode_batch(self, texts: Sequence[str], *, continues: bool = False) -> Ragged:
        """Encode sentences; see `Tokenizer.encode_batch`."""
        if self._prefix_space and not continues:
            texts = [f" {text}" if text and text[0] != " " else text for text in texts]
        return self._word_ids.encode(texts)

    def decode_batch(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Decode rows of ids; special ids leave nothing, and invalid UTF-8 leaves ``�``.

        :raises DataError: an id is outside the vocabulary.
        """
        return [self._text(row) for row in rows]

    def _text(self, row: Sequence[int]) -> str:
        ids = [int(number) for number in row]
        if ids and not 0 <= min(ids) <= max(ids) < len(self._tokens):
            wrong = min(ids) if min(ids) < 0 else max(ids)
            raise DataError(f"id {wrong}", expected=f"an id from 0 to {len(self._tokens) - 1}")
        text = b"".join(map(self._bytes.__getitem__, ids)).decode(errors="replace")
        return text.removeprefix(" ") if self._prefix_space else text

    def tokens(self) -> list[str]:
        return list(self._tokens)

    def special(self, role: str) -> int:
        return self._roles[role]

    def reserved(self) -> tuple[int, ...]:
        """The special ids, and those of tokens that no merge makes, such as ``madeupword0000``."""
        return self._reserved

    @functools.cached_property
    def fingerprint(self) -> str:
        made_of = json.dumps([self._tokens, self._merges, self._prefix_space])
        return hashlib.sha256(made_of.encode()).hexdigest()[:16]

    def __reduce__(self) -> tuple[type[ByteBPE], tuple[object, ...]]:
        return type(self), (self._tokens, self._merges, self._prefix_space)


def _check(
    tokens: Sequence[str], ids: Mapping[str, int], merges: Sequence[Pair], made: Container[str]
) -> None:
    """Check that the vocabulary is complete, and matches the merges.

    :param made: the tokens that text can encode to.
    :raises BundleError: a token is missing, repeated or left over.
    """
    if len(ids) != len(tokens):
        twice = next(token for number, token in enumerate(tokens) if ids[token] != number)
        raise BundleError(f"the vocabulary has {twice!r} twice", expected="each token once")
    for kind, forms in (("special tokens", FORMS.values()), ("256 bytes", LETTERS)):
        if missing := [form for form in dict.fromkeys(forms) if form not in ids]:
            raise BundleError(
                f"the vocabulary lacks {len(missing)} of the {kind}, such as {missing[0]!r}",
                expected=f"all of RoBERTa's: {' '.join([*BEFORE, MASK])} and every byte",
            )
    for number, (left, right) in enumerate(merges, start=1):
        for token in (left, right, left + right):
            if token not in ids:
                raise BundleError(
                    f"merge {number}, {left} {right}, has {token!r}, which is not in the vocabulary"
                )
    lost = [token for token in tokens if token not in made and token not in FORMS.values()]
    if len(lost) > max(MOST_LEFT, len(tokens) // 100):
        raise BundleError(
            f"{len(lost)} of the {len(tokens)} tokens, such as {lost[-1]!r}, are made by none of "
            f"the {len(merges)} merges",
            expected="all merges of this vocabulary",
        )
