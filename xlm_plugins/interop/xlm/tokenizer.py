"""XLM's own tokenizer, the plugin ``fastbpe``, in the files of transformers' XLMTokenizer.

``vocab.json`` has ``the</w>`` for ``the`` in XLM's vocabulary, and ``th`` for ``th@@``;
``merges.txt`` is the codes file.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from xlm_plugins.contracts.tokenizer import Tokenizer
from xlm_plugins.core.errors import BundleError
from xlm_plugins.core.files import read_json, write_text
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.core.registry import Component
from xlm_plugins.interop.xlm.vocabulary import SPECIALS

COMPONENT = "fastbpe"
VOCABULARY_NAME, CODES_NAME = "vocab.json", "merges.txt"
# In a folder that the plugin saved.
_SETTINGS_NAME, _OWN_CODES_NAME = "fastbpe.json", "codes"
_END, _CONTINUES = "</w>", "@@"


def read_tokenizer(
    folder: Path, languages: tuple[str, ...], config: dict[str, Any], plugins: Plugins
) -> tuple[Component, Tokenizer]:
    """The tokenizer in a folder that transformers wrote.

    :param languages: the model's.
    :param config: the content of ``tokenizer_config.json``.
    :raises BundleError: it is another kind of tokenizer.
    """
    ids = read_json(folder / VOCABULARY_NAME)
    tokens = sorted(ids, key=lambda token: ids[token])
    if not any(token.endswith(_END) for token in tokens):
        raise BundleError(
            f"{folder / VOCABULARY_NAME} holds a tokenizer that no installed plugin can read",
            expected="XLM's tokenizer, or RoBERTa's, which the plugin bytebpe reads",
        )
    words = [*tokens[: len(SPECIALS)], *map(_word, tokens[len(SPECIALS) :])]
    codes = (folder / CODES_NAME).read_text(encoding="utf-8")
    folds = bool(config.get("do_lowercase_and_remove_accent", True))
    component = plugins.get("tokenizer", COMPONENT)
    tokenizer: Tokenizer = component.load().from_vocabulary(
        words, None, codes, languages=languages, lowercase=folds, remove_accents=folds
    )
    return component, tokenizer


def has_form(saved: Path) -> bool:
    """Whether a saved tokenizer of ours has a form as XLMTokenizer.

    It must have codes, and either remove both case and accents or neither.

    :param saved: the tokenizer's folder.
    """
    if not (saved / _SETTINGS_NAME).is_file() or not (saved / _OWN_CODES_NAME).is_file():
        return False
    settings = read_json(saved / _SETTINGS_NAME)
    return bool(settings.get("lowercase")) == bool(settings.get("remove_accents"))


def write_files(saved: Path, tokens: list[str], folder: Path) -> dict[str, Any]:
    """Write a saved tokenizer's vocabulary and codes, and return its part of the configuration.

    :param saved: the folder that we saved it in.
    :param tokens: in order of their ids.
    """
    n_special = len(SPECIALS)
    forms = [*tokens[:n_special], *map(_form, tokens[n_special:])]
    ids = {form: number for number, form in enumerate(forms)}
    write_text(folder / VOCABULARY_NAME, json.dumps(ids, ensure_ascii=False))
    shutil.copyfile(saved / _OWN_CODES_NAME, folder / CODES_NAME)
    folds = bool(read_json(saved / _SETTINGS_NAME).get("lowercase"))
    return {"tokenizer_class": "XLMTokenizer", "do_lowercase_and_remove_accent": folds}


def _word(form: str) -> str:
    return form.removesuffix(_END) if form.endswith(_END) else form + _CONTINUES


def _form(word: str) -> str:
    return word.removesuffix(_CONTINUES) if word.endswith(_CONTINUES) else word + _END
