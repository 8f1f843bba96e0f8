"""The contract of a tokenizer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xlm_plugins.contracts.batch import Vocabulary
from xlm_plugins.contracts.ragged import Ragged

if TYPE_CHECKING:
    pass


class Tokenizer(ABC):
    """Text to ids and back.  Special ids go by role, and no number is assumed anywhere."""

    ROLES = ("bos", "eos", "pad", "unk", "mask", "sep")

    begin_role: str = "eos"
    """The role of the id before a sentence: EOS as XLM has it, or BOS as RoBERTa has it."""

    @classmethod
    @abstractmethod
    def train(
        cls, texts: Iterable[str], vocabulary_size: int, options: Any, folder: Path, workers: int
    ) -> Tokenizer:
        """Learn a vocabulary and save it into an empty folder.

        :param texts: sentences, already sampled to a bounded amount.
        :raises DataError: the text cannot give the vocabulary that was asked for.
        """

    @classmethod
    @abstractmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Read what `save` or `train` wrote.

        :raises BundleError: the folder holds no such tokenizer, or a damaged one.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write everything that `load` needs into a folder that exists."""

    def in_language(self, language: str) -> Tokenizer:
        """The tokenizer for text of one language: the same ids, by that language's rules.

        By default itself; override it where rules differ by language.
        """
        return self

    @classmethod
    def from_hugging_face(cls, folder: Path) -> Tokenizer | None:
        """The tokenizer in a folder of transformers, for `xlm import hf`; None if it is of another
        kind."""
        return None

    def to_hugging_face(self) -> Any | None:
        """The same as a `tokenizers.Tokenizer` without a frame, for `xlm export hf`; None if it has
        no such form."""
        return None

    @abstractmethod
    def encode_batch(self, texts: Sequence[str], *, continues: bool = False) -> Ragged:
        """Encode sentences, one row each, without any frame of special tokens.

        :param continues: the texts go on in the middle of a line, so nothing that marks a
            line's beginning is put before them; a space at their own beginning begins a word.
        """

    @abstractmethod
    def decode_batch(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Decode rows of ids to text; special tokens leave nothing behind."""

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
        """Every id that text never encodes to, in rising order."""

    @property
    def frame(self) -> tuple[int, int]:
        """The ids before and behind a sentence."""
        return self.special(self.begin_role), self.special("eos")

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A hash of everything that decides what text encodes to."""

    def vocabulary(self) -> Vocabulary:
        """What objectives and models need to know of this tokenizer."""
        roles = {role: self.special(role) for role in self.ROLES}
        if self.begin_role != "eos":
            roles["begin"] = self.special(self.begin_role)
        return Vocabulary(len(self.tokens()), roles, self.reserved())
