"""The contract of a tokenizer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from xlm_plugins.contracts.batch import Vocabulary
from xlm_plugins.contracts.ragged import Ragged


class Tokenizer(ABC):
    """Text to ids and back.  Special ids are looked up by role; no number is assumed."""

    ROLES = ("bos", "eos", "pad", "unk", "mask", "sep")

    begin_role: str = "eos"
    """The role of the id before a sentence: EOS as in XLM, or BOS as in RoBERTa."""

    @classmethod
    @abstractmethod
    def train(
        cls, texts: Iterable[str], vocabulary_size: int, options: Any, folder: Path, workers: int
    ) -> Tokenizer:
        """Learn a vocabulary, and save it in an empty folder.

        :param texts: a bounded sample of sentences.
        :raises DataError: the text is not enough for a vocabulary of that size.
        """

    @classmethod
    @abstractmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Read what `save` or `train` wrote.

        :raises BundleError: the folder has no such tokenizer, or a damaged one.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write everything that `load` needs into an existing folder."""

    def in_language(self, language: str) -> Tokenizer:
        """The tokenizer for text of one language: the same ids, with that language's rules.

        By default itself; override it if rules depend on the language.
        """
        return self

    @classmethod
    def from_hugging_face(cls, folder: Path) -> Tokenizer | None:
        """The tokenizer in a folder of transformers, for `xlm import hf`; None if it is of another
        type."""
        return None

    def to_hugging_face(self) -> Any | None:
        """The same as a `tokenizers.Tokenizer` that adds no special tokens, for `xlm export hf`;
        None if that is impossible."""
        return None

    @abstractmethod
    def encode_batch(self, texts: Sequence[str], *, continues: bool = False) -> Ragged:
        """Encode sentences, one row each, without special tokens.

        :param continues: the texts continue a line, so nothing that marks the beginning of a line
            is put before them; a space at their own beginning begins a word.
        """

    @abstractmethod
    def decode_batch(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Decode rows of ids to text; special tokens leave no trace."""

    @abstractmethod
    def tokens(self) -> list[str]:
        """The written form of every id, in order of id."""

    @abstractmethod
    def special(self, role: str) -> int:
        """The id of a role (see ROLES).

        :raises KeyError: no such role.
        """

    @abstractmethod
    def reserved(self) -> tuple[int, ...]:
        """Every id that text never encodes to, in increasing order."""

    @property
    def frame(self) -> tuple[int, int]:
        """The ids before and after a sentence."""
        return self.special(self.begin_role), self.special("eos")

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A hash of everything that decides what text encodes to."""

    def vocabulary(self) -> Vocabulary:
        """What objectives and models need to know about this tokenizer."""
        roles = {role: self.special(role) for role in self.ROLES}
        if self.begin_role != "eos":
            roles["begin"] = self.special(self.begin_role)
        return Vocabulary(len(self.tokens()), roles, self.reserved())
