"""How SentencePiece's ids become ours, in XLM's layout or in XLM-R's.

XLM's: ``<s> </s> <pad> <unk>``, ten reserved specials, of which the first is the separator and
the second the mask, then the pieces; SentencePiece's own ids are the same.

XLM-R's: ``<s> <pad> </s> <unk>``, then SentencePiece's pieces from its id 3, shifted by one, and
finally ``<mask>``; SentencePiece's own ids 0 to 2 are ``<unk> <s> </s>``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from xlm_plugins import BundleError

XLM_SPECIALS = ("<s>", "</s>", "<pad>", "<unk>", *(f"<special{i}>" for i in range(10)))
XLM_ROLES = {"bos": 0, "eos": 1, "pad": 2, "unk": 3, "sep": 4, "mask": 5}
XLM_R_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
XLM_R_PIECES = ("<unk>", "<s>", "</s>")
XLM_R_ROLES = {"bos": 0, "pad": 1, "eos": 2, "unk": 3, "sep": 2}
NOTHING = -1
"""The piece of special ids."""


@dataclass(frozen=True)
class IdLayout:
    """Which of our ids belongs to which piece.

    :param roles: the id of each role.
    :param begin_role: the role of the id before a sentence.
    :param tokens: the written form of each id.
    :param id_of_piece: our id for each of SentencePiece's.  Shape: (n_pieces,)
    :param piece_of_id: SentencePiece's id for each of ours, or `NOTHING`.  Shape: (n_ids,)
    """

    roles: Mapping[str, int]
    begin_role: str
    tokens: tuple[str, ...]
    id_of_piece: np.ndarray[tuple[int], np.dtype[np.int64]]
    piece_of_id: np.ndarray[tuple[int], np.dtype[np.int64]]

    @classmethod
    def of(cls, pieces: Sequence[str]) -> IdLayout:
        """The layout of a model, recognised by its first pieces.

        :raises BundleError: they are those of neither layout.
        """
        if tuple(pieces[: len(XLM_SPECIALS)]) == XLM_SPECIALS:
            return cls._of_xlm(pieces)
        if tuple(pieces[: len(XLM_R_PIECES)]) == XLM_R_PIECES:
            return cls._of_xlm_r(pieces)
        raise BundleError(
            f"the SentencePiece model begins with the pieces {' '.join(pieces[:6])} ...",
            expected=f"{' '.join(XLM_SPECIALS[:6])} ..., as `xlm tokenizer train` lays ids out, "
            f"or {' '.join(XLM_R_PIECES)} ..., as in XLM-R",
        )

    @classmethod
    def _of_xlm(cls, pieces: Sequence[str]) -> IdLayout:
        every = np.arange(len(pieces))
        return cls(XLM_ROLES, "eos", tuple(pieces), every, every)

    @classmethod
    def _of_xlm_r(cls, pieces: Sequence[str]) -> IdLayout:
        n_before, n_pieces = len(XLM_R_PIECES), len(pieces)
        ordinary = np.arange(n_before, n_pieces)
        ids = np.concatenate([[3, 0, 2], ordinary + 1])  # <unk> <s> </s>
        mask = n_pieces + 1
        piece_of_id = np.full(mask + 1, NOTHING)
        piece_of_id[ordinary + 1] = ordinary
        tokens = (*XLM_R_SPECIALS, *pieces[n_before:], "<mask>")
        return cls({**XLM_R_ROLES, "mask": mask}, "bos", tokens, ids, piece_of_id)
