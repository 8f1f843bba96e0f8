"""Our tokenizers in files that transformers reads.

SentencePiece models and byte-level BPE become a fast tokenizer, ``tokenizer.json``; XLM's own
tokenizer becomes an XLMTokenizer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xlm_plugins.core.files import write_json
from xlm_plugins.interop.xlm import tokenizer as xlm_tokenizer
from xlm_plugins.model.bundle import Bundle
from xlm_plugins.runs.layout import TOKENIZER_NAME

FAST_NAME = "tokenizer.json"
CONFIG_NAME = "tokenizer_config.json"


def has_form(bundle: Bundle) -> bool:
    """Whether transformers has an equivalent of a bundle's tokenizer.

    :raises BundleError: it is of a kind that has one, but uses a feature that theirs lacks.
    """
    return _fast(bundle) is not None or xlm_tokenizer.has_form(bundle.path / TOKENIZER_NAME)


def is_byte_level(bundle: Bundle) -> bool:
    """Whether the tokenizer is byte-level BPE, as RoBERTa's."""
    fast = bundle.tokenizer.to_hugging_face()
    if fast is None:
        return False
    from tokenizers.pre_tokenizers import ByteLevel

    return isinstance(fast.pre_tokenizer, ByteLevel)


def write_tokenizer(bundle: Bundle, folder: Path) -> None:
    """Write what `AutoTokenizer.from_pretrained` reads."""
    fast, forms = _fast(bundle), bundle.tokenizer.tokens()
    if fast is None:
        own = xlm_tokenizer.write_files(bundle.path / TOKENIZER_NAME, forms, folder)
    else:
        fast.save(str(folder / FAST_NAME))
        own = {"tokenizer_class": "PreTrainedTokenizerFast"}
        if is_byte_level(bundle):  # transformers 4 believes this file rather than the tokenizer's
            own["add_prefix_space"] = fast.pre_tokenizer.add_prefix_space
    begin, end = (forms[i] for i in bundle.description.vocabulary.frame)
    roles = {role: forms[bundle.tokenizer.special(role)] for role in ("unk", "pad", "mask")}
    config = {
        **own,
        **{f"{role}_token": form for role, form in roles.items()},
        **dict.fromkeys(("bos_token", "cls_token"), begin),
        **dict.fromkeys(("eos_token", "sep_token"), end),
        # If there were token types, XLM's class would add embeddings for them.
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": bundle.description.options.max_positions,
        "clean_up_tokenization_spaces": False,
    }
    write_json(folder / CONFIG_NAME, config)


def _fast(bundle: Bundle) -> Any | None:
    """The tokenizer as a `tokenizers.Tokenizer` with our frame; None if it has no such form."""
    fast = bundle.tokenizer.to_hugging_face()
    if fast is None:
        return None
    from tokenizers import AddedToken, processors

    forms, frame = bundle.tokenizer.tokens(), bundle.description.vocabulary.frame
    special = dict.fromkeys(bundle.tokenizer.special(role) for role in bundle.tokenizer.ROLES)
    mask = bundle.tokenizer.special("mask")
    # As in RoBERTa, a mask absorbs the space before it, which the word that it replaces would have.
    fast.add_special_tokens(
        [AddedToken(forms[i], normalized=False, lstrip=i == mask) for i in special]
    )
    begin, end = (forms[i] for i in frame)
    between = [end] if begin == end else [end, end]
    fast.post_processor = processors.TemplateProcessing(
        single=[begin, "$A", end],
        pair=[begin, "$A", *between, "$B", end],
        special_tokens=list({begin: frame[0], end: frame[1]}.items()),
    )
    return fast
