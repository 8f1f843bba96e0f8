"""Word segmenters for languages that are written without spaces; each needs a package.

Each function returns a function that splits text into words, or raises a `PluginError` that names
the package to install.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from xlm_plugins import PluginError

Segmenter = Callable[[str], list[str]]


def segmenter(language: str) -> Segmenter:
    """A function that splits Chinese (zh), Thai (th) or Japanese (ja) into words.

    :raises PluginError: its package is not installed.
    """
    return _SEGMENTERS[language]()


def _chinese() -> Segmenter:
    split = _needed("rjieba", "zh").cut
    return lambda text: list(split(text))


def _thai() -> Segmenter:
    split = _needed("pythainlp.tokenize", "th").word_tokenize
    return lambda text: list(split(text))


def _japanese() -> Segmenter:
    _needed("unidic_lite", "ja")  # the dictionary, which fugashi finds by itself
    parse = _needed("fugashi", "ja").Tagger("-Owakati").parse
    return lambda text: str(parse(text)).split()


def _needed(module: str, language: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise PluginError(
            f"{language} text is split into words by the package {package}, which cannot be "
            f"imported: {error}",
            remedy=f"pip install 'xlm-fastbpe[{language}]'",
        ) from error


_SEGMENTERS: dict[str, Callable[[], Segmenter]] = {
    "zh": _chinese,
    "th": _thai,
    "ja": _japanese,
}
SEGMENTED = frozenset(_SEGMENTERS)
