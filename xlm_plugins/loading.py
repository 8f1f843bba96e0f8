"""Trained models from Python, in three lines::

    import xlm_plugins

    model = xlm_plugins.load("my-run")
    model.translate(["Bonjour."], source="fr", target="en")

torch comes in with the first call of `load`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from xlm_plugins.model.bundle import Bundle
    from xlm_plugins.model.config import GenerationOptions
    from xlm_plugins.model.inference import Filling
    from xlm_plugins.model.translation import Translation


def load(reference: str | PathLike[str], device: str = "cpu") -> LoadedModel:
    """Load a trained model, ready to be used.

    :param reference: a run folder (its best model), ``RUN@last``, ``RUN@step-N``, or a bundle.
    :param device: as torch names it.
    :raises BundleError: there is no such model, or it is damaged.
    :raises PluginError: a plugin that made it is missing.
    """
    from xlm_plugins.core.plugins import Plugins
    from xlm_plugins.model.bundle import Bundle
    from xlm_plugins.training.run import find_bundle

    return LoadedModel(Bundle.load(find_bundle(fspath(reference)), Plugins.discover(), device))


@dataclass(frozen=True)
class LoadedModel:
    """A trained model and what can be done with it."""

    bundle: Bundle

    @property
    def languages(self) -> list[str]:
        """The languages that the model knows."""
        return sorted(self.bundle.description.languages)

    @property
    def directions(self) -> list[tuple[str, str]]:
        """What the model was trained to translate, as (source, target)."""
        from xlm_plugins.model.translation import directions

        return [(step.languages[0], step.languages[1]) for step in directions(self.bundle)]

    def translate(
        self,
        texts: Sequence[str],
        source: str,
        target: str,
        options: GenerationOptions | None = None,
    ) -> list[str]:
        """The best translation of each text.  A text that is too long is cut.

        :param options: how; greedily by default.
        :raises OptionError: the model was not trained for it; says what it can do.
        """
        found = self.translations(texts, source, target, options)
        return [translations[0].text for translations in found]

    def translations(
        self,
        texts: Sequence[str],
        source: str,
        target: str,
        options: GenerationOptions | None = None,
        n_best: int = 1,
    ) -> list[list[Translation]]:
        """The ``n_best`` translations of each text with their scores, the best first.

        :param n_best: at most ``options.beam``.
        :raises OptionError: as `translate`, or more translations than the beam is wide.
        """
        from xlm_plugins.model.translation import Translator

        translator = Translator(self.bundle, source, target, options, n_best=n_best)
        return translator.translate(translator.encode(texts))

    def embed(
        self, texts: Sequence[str], language: str | None = None, *, layer: int = -1
    ) -> npt.NDArray[np.float32]:
        """Sentence embeddings: the mean of a layer's states over each sentence's own tokens.

        :param language: of the texts; needed where the model knows several.
        :param layer: 0 is the embedding layer, -1 the last.
        :returns: shape (len(texts), dim).
        """
        from xlm_plugins.model.inference import embed

        return embed(self.bundle, texts, language, layer=layer)

    def fill_mask(
        self, text: str, language: str | None = None, *, top: int = 5
    ) -> list[list[Filling]]:
        """The most probable tokens for each ``<mask>`` of a text, by falling probability.

        :param language: of the text; needed where the model knows several.
        :returns: one list of ``top`` fillings for each mask, in order.
        :raises OptionError: no mask in the text, or too long a text.
        """
        from xlm_plugins.model.inference import fill_mask

        return fill_mask(self.bundle, text, language, top=top)
