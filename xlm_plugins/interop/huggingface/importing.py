"""``xlm import hf``: converts a folder in Hugging Face's or fairseq's format into a bundle."""

from __future__ import annotations

from pathlib import Path

from xlm_plugins.contracts.tokenizer import Tokenizer
from xlm_plugins.core.errors import BundleError
from xlm_plugins.core.files import read_json
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.core.registry import Component
from xlm_plugins.core.saved_tokenizers import load_tokenizer, saved_component
from xlm_plugins.interop import fairseq
from xlm_plugins.interop.huggingface import encoder as huggingface
from xlm_plugins.interop.huggingface.files import CONFIG_NAME
from xlm_plugins.interop.huggingface.tokenizer import CONFIG_NAME as TOKENIZER_CONFIG_NAME
from xlm_plugins.interop.huggingface.tokenizer import FAST_NAME
from xlm_plugins.interop.imported_encoder import write_encoder
from xlm_plugins.interop.new_bundle import check_out
from xlm_plugins.interop.xlm.tokenizer import CODES_NAME, VOCABULARY_NAME, read_tokenizer

OWN_TOKENIZER = "xlm-tokenizer"
"""Folder of our own saved tokenizer, which `xlm export hf` adds, as it holds more than theirs."""

_TOKENIZER_FILES = (
    "sentencepiece.bpe.model, a tokenizer.json of unigrams, or XLM's vocab.json and merges.txt; "
    "with the plugin bytebpe also RoBERTa's, or a tokenizer.json of byte-level BPE"
)


def import_hugging_face(folder: Path, out: Path, plugins: Plugins) -> list[str]:
    """Write an encoder in Hugging Face's or fairseq's format as a bundle.

    :returns: what the user should know.
    :raises XLMError: the model cannot be imported; says why, and nothing is written.
    """
    check_out(out)
    is_fairseq = (folder / fairseq.MODEL_NAME).is_file() and not (folder / CONFIG_NAME).is_file()
    if not is_fairseq and not (folder / CONFIG_NAME).is_file():
        raise BundleError(
            f"{folder} holds no model" if folder.is_dir() else f"there is no folder {folder}",
            expected=f"a folder with {CONFIG_NAME}, or fairseq's with {fairseq.MODEL_NAME}",
            remedy="for a checkpoint of the original XLM code: xlm import xlm CHECKPOINT.pth OUT",
        )
    encoder = (fairseq if is_fairseq else huggingface).read_encoder(folder)
    component, tokenizer = _tokenizer(folder, tuple(encoder.languages), plugins)
    if is_fairseq and not fairseq.is_byte_level(folder):
        fairseq.check_dictionary(folder, tokenizer.tokens())
    return write_encoder(encoder, component, tokenizer, out, plugins, str(folder))


def _tokenizer(
    folder: Path, languages: tuple[str, ...], plugins: Plugins
) -> tuple[Component, Tokenizer]:
    """The folder's tokenizer, and the component that reads it.

    :raises BundleError: there is none that an installed plugin can read.
    """
    own = folder / OWN_TOKENIZER
    if own.is_dir():
        return saved_component(plugins, own), load_tokenizer(plugins, own)
    for component in plugins.registry.of("tokenizer"):
        tokenizer: Tokenizer | None = component.load().from_hugging_face(folder)
        if tokenizer is not None:
            return component, tokenizer
    if all((folder / name).is_file() for name in (VOCABULARY_NAME, CODES_NAME)):
        path = folder / TOKENIZER_CONFIG_NAME
        config = read_json(path) if path.is_file() else {}
        return read_tokenizer(folder, languages, config, plugins)
    raise _no_tokenizer(folder)


def _no_tokenizer(folder: Path) -> BundleError:
    """The reason why a folder's tokenizer cannot be read."""
    reason, remedy = "", "add the tokenizer's files that were published with the model"
    there = [name for name in (VOCABULARY_NAME, CODES_NAME) if (folder / name).is_file()]
    if there:
        reason = f": it has {there[0]} only"
    elif (folder / FAST_NAME).is_file():
        model = read_json(folder / FAST_NAME).get("model")
        kind = model.get("type") if isinstance(model, dict) else None
        reason = f": its {FAST_NAME} is of type {kind}"
    elif fairseq.is_byte_level(folder):
        remedy = "add GPT-2's encoder.json and vocab.bpe, whose ids dict.txt lists"
    return BundleError(
        f"{folder} holds no tokenizer that can be read{reason}",
        expected=_TOKENIZER_FILES,
        remedy=remedy,
    )
