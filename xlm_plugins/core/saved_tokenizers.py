"""Saved tokenizers: a folder that says which plugin wrote it, and is checked when it is read.

Data sets, runs and model bundles all carry their tokenizer in such a folder: the tokenizer's own
files, and ``component.json`` with the plugin's name, distribution, version and the tokenizer's
fingerprint.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xlm_plugins.core.errors import BundleError
from xlm_plugins.core.files import write_json
from xlm_plugins.core.recorded_components import resolve_recorded

if TYPE_CHECKING:
    from xlm_plugins.contracts.tokenizer import Tokenizer
    from xlm_plugins.core.plugins import Plugins
    from xlm_plugins.core.registry import Component

COMPONENT_NAME = "component.json"
# Where a tokenizer is: in its own folder, in a data set or bundle, in a run and its bundles.
_PLACES = (".", "tokenizer", "*/tokenizer", "*/*/tokenizer")


@dataclass(frozen=True)
class SavedTokenizer:
    """The content of ``component.json``."""

    name: str
    distribution: str
    version: str
    fingerprint: str

    @classmethod
    def of(cls, component: Component, tokenizer: Tokenizer) -> SavedTokenizer:
        return cls(component.name, component.distribution, component.version, tokenizer.fingerprint)

    @classmethod
    def read(cls, folder: Path) -> SavedTokenizer:
        """Read ``folder/component.json``.

        :raises BundleError: it is missing or damaged.
        """
        path = folder / COMPONENT_NAME
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise BundleError(
                f"{folder} is not a saved tokenizer: {type(error).__name__}: {error}",
                expected=f"a folder with {COMPONENT_NAME} and the tokenizer's own files",
            ) from error


def save_tokenizer(component: Component, tokenizer: Tokenizer, folder: Path) -> SavedTokenizer:
    """Write a tokenizer, and which component it belongs to, into an empty folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(folder)
    return mark_tokenizer(component, tokenizer, folder)


def mark_tokenizer(component: Component, tokenizer: Tokenizer, folder: Path) -> SavedTokenizer:
    """Add ``component.json`` to a folder that `Tokenizer.train` or `save` has filled."""
    saved = SavedTokenizer.of(component, tokenizer)
    write_json(folder / COMPONENT_NAME, asdict(saved))
    return saved


def saved_component(plugins: Plugins, folder: Path) -> Component:
    """The installed component that a saved tokenizer belongs to.

    :raises BundleError: the folder is not a saved tokenizer.
    :raises PluginError: its plugin is not installed, or does not work.
    """
    saved = SavedTokenizer.read(folder)
    name, origin = f"{saved.distribution}/{saved.name}", f"{saved.distribution} {saved.version}"
    return resolve_recorded(plugins, "tokenizer", name, origin, str(folder))


def load_tokenizer(plugins: Plugins, folder: Path) -> Tokenizer:
    """Load a saved tokenizer with the plugin that wrote it.

    :raises BundleError: the folder is not a saved tokenizer, or differs from what was saved.
    :raises PluginError: its plugin is not installed, or does not work.
    """
    component = saved_component(plugins, folder)
    tokenizer: Tokenizer = component.load().load(folder)
    saved = SavedTokenizer.read(folder)
    if tokenizer.fingerprint != saved.fingerprint:
        raise BundleError(
            f"the tokenizer in {folder} was saved with fingerprint {saved.fingerprint}, but now "
            f"has {tokenizer.fingerprint}: its files were changed, or {saved.distribution} "
            f"{component.version} reads them differently than {saved.version} did",
            remedy=f"restore the folder, or pip install {saved.distribution}=={saved.version}",
        )
    return tokenizer


def find_tokenizer(path: Path) -> Path:
    """Find the saved tokenizer of a data set, run or bundle, or in the folder itself.

    :raises BundleError: there is none.
    """
    for place in _PLACES:
        found = sorted(path.glob(f"{place}/{COMPONENT_NAME}"))
        if found:
            return found[0].parent
    raise BundleError(
        f"{path} holds no tokenizer" if path.exists() else f"{path} does not exist",
        expected="a data set, a run, a model bundle or a tokenizer folder",
        remedy="train one on your text: xlm prepare SOURCE OUT",
    )
