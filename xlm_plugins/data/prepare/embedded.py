"""The embedded corpus: a little real text in three languages, prepared when first needed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from xlm_plugins import __version__
from xlm_plugins.core.catalogue import default_of
from xlm_plugins.core.files import checksum
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.data.dataset.cache import cache_folder, exclusive_lock
from xlm_plugins.data.dataset.manifest import FORMAT, MANIFEST_NAME
from xlm_plugins.data.prepare.lines import sentences
from xlm_plugins.data.prepare.prepare import Progress, TokenizerTraining, prepare
from xlm_plugins.data.prepare.sources import Sources

VOCABULARY = 8000
_FOLDER = Path(__file__).parent / "embedded_corpus"


def embedded_source() -> Sources:
    """English, French and German, monolingual and in every pair; train, valid and test."""
    return Sources.open(_FOLDER / "sources.toml")


def embedded_sentences(split: str, language: str) -> list[str]:
    """The sentences of a split in one language; all languages are parallel line by line."""
    (stream,) = (s for s in embedded_source().streams if s.name == f"{split}.{language}")
    return [text for (text,) in sentences(stream, "strict")]


def embedded_data_set(
    plugins: Plugins,
    vocabulary_size: int = VOCABULARY,
    *,
    tokenizer: str = default_of("tokenizer"),
    report: Callable[[Progress], None] = lambda progress: None,
) -> Path:
    """The embedded corpus as a data set in the cache folder, prepared on first use.

    Processes that start together wait for the first one.

    :param vocabulary_size: number of ids of its tokenizer.
    :param tokenizer: name of the tokenizer's component.
    :raises PluginError: the tokenizer's plugin is not installed.
    """
    component = plugins.get("tokenizer", tokenizer)
    content = [component.full_name, component.version, __version__, str(FORMAT)]
    content += [checksum(path) for path in sorted(_FOLDER.glob("*.*"))]
    key = hashlib.sha256("\n".join(content).encode()).hexdigest()[:12]
    folder = cache_folder() / f"embedded-{vocabulary_size}-{key}"
    if not (folder / MANIFEST_NAME).is_file():
        with exclusive_lock(folder.with_suffix(".lock")):
            if not (folder / MANIFEST_NAME).is_file():
                training = TokenizerTraining(vocabulary_size, component.options())
                prepare(embedded_source(), folder, component, training, report=report)
    return folder
