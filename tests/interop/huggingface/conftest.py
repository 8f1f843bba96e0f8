"""Fixtures for tests of exports: small models with random weights, and a run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from xlm_plugins.core.plugins import Plugins
from xlm_plugins.core.saved_tokenizers import mark_tokenizer

if TYPE_CHECKING:
    from xlm_plugins.config.settings import Settings
    from xlm_plugins.model.bundle import Bundle

SMALL = {"n_layers": 2, "max_positions": 64}
TEXT = "In the beginning was the word, and the word was short."
"""One of the samples that every export compares."""


@pytest.fixture(scope="session")
def plugins() -> Plugins:
    return Plugins.discover()


@pytest.fixture(scope="session")
def tokenizers(
    tmp_path_factory: pytest.TempPathFactory, tiny_data: Path, plugins: Plugins
) -> dict[str, Path]:
    """Saved tokenizers with XLM's and with XLM-R's layout.  For reading only."""
    import sentencepiece

    from xlm_plugins.interop.huggingface.export import SAMPLE

    folder = tmp_path_factory.mktemp("tokenizers") / "xlm-r"
    folder.mkdir()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*SAMPLE, TEXT] * 20),
        model_prefix=str(folder / "sentencepiece"),
        vocab_size=95,
        minloglevel=2,
    )
    component = plugins.get("tokenizer", "sentencepiece")
    mark_tokenizer(component, component.load().load(folder), folder)
    return {"xlm": tiny_data / "tokenizer", "xlm-r": folder}


@pytest.fixture
def build(
    tmp_path: Path, tokenizers: dict[str, Path], random_bundle: Callable[..., Bundle]
) -> Callable[..., Bundle]:
    """Make a bundle with random weights and save it.

    ``build("xlm", languages=("en",), tied_output=False)``: the tokenizer's layout or folder, and
    options.
    """

    def build(
        layout: str | Path = "xlm",
        languages: tuple[str, ...] = ("en", "fr", "de"),
        objectives: tuple[str, ...] = ("mlm",),
        **options: Any,
    ) -> Bundle:
        folder = layout if isinstance(layout, Path) else tokenizers[layout]
        given = {"languages": languages, **SMALL, **options}
        bundle = random_bundle(*objectives, tokenizer=folder, spread=0.2, **given)
        shutil.copytree(folder, tmp_path / "source" / "tokenizer")
        replace(bundle, path=tmp_path / "source").save(tmp_path / "bundle")
        return replace(bundle, path=tmp_path / "bundle")

    return build


@pytest.fixture(scope="session")
def run(tiny_settings: Callable[..., Settings], tiny_data: Path) -> Path:
    """A finished run without a layer.  For reading only."""
    from xlm_plugins.training.pretraining.job import train

    out = tiny_data.with_name("run-without-layer")
    return train(tiny_settings(layer=[], out=str(out)), Plugins.discover()).path
