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
from typing import TYPE_CHECKING, Literal, overload

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from xlm_plugins.config.model import GenerationOptions
    from xlm_plugins.inference.fill_mask import Filling
    from xlm_plugins.inference.generate import Continuation
    from xlm_plugins.inference.predict import Prediction
    from xlm_plugins.inference.score import SentenceScore
    from xlm_plugins.inference.translate import Translation
    from xlm_plugins.model.bundle import Bundle


def load(reference: str | PathLike[str], device: str = "cpu") -> LoadedModel:
    """Load a trained model, ready to be used.

    :param reference: a run folder (its best model), ``RUN@last``, ``RUN@step-N``, or a bundle.
    :param device: as torch names it.
    :raises BundleError: there is no such model, or it is damaged.
    :raises PluginError: a plugin that made it is missing.
    """
    from xlm_plugins.core.plugins import Plugins
    from xlm_plugins.model.bundle import Bundle
    from xlm_plugins.runs.find import find_bundle

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
        from xlm_plugins.inference.translate import directions

        return [(step.languages[0], step.languages[1]) for step in directions(self.bundle)]

    @property
    def language_ids(self) -> dict[str, int]:
        """What `extract_features` takes for each language."""
        return dict(self.bundle.description.languages)

    def encode(self, text: str) -> Tensor:
        """The ids of a text in the frame that the model was trained with.  Shape: (length,)"""
        from xlm_plugins.inference.features import encode

        return encode(self.bundle, text)

    def decode(self, ids: Tensor) -> str:
        """The text of ids; special tokens leave nothing behind.

        :param ids: shape (length,).
        :raises DataError: an id is outside the vocabulary.
        """
        from xlm_plugins.inference.features import decode

        return decode(self.bundle, ids)

    @overload
    def extract_features(
        self,
        ids: Tensor,
        languages: Tensor | None = None,
        positions: Tensor | None = None,
        return_all_hiddens: Literal[False] = False,
    ) -> Tensor: ...

    @overload
    def extract_features(
        self,
        ids: Tensor,
        languages: Tensor | None = None,
        positions: Tensor | None = None,
        *,
        return_all_hiddens: Literal[True],
    ) -> list[Tensor]: ...

    def extract_features(
        self,
        ids: Tensor,
        languages: Tensor | None = None,
        positions: Tensor | None = None,
        return_all_hiddens: bool = False,
    ) -> Tensor | list[Tensor]:
        """The encoder's states of every token, without gradient; zeros at padding.

        :param ids: token ids in their frames, as `encode` gives them; several rows are padded
            with the tokenizer's padding id.  Shape: (length,) or (batch, length)
        :param languages: the language id of each token (`language_ids`); needed where the model
            tells several languages apart.  Shape: as ids
        :param positions: of each token, counted from 0, if not as they stand.  Shape: as ids
        :param return_all_hiddens: the embeddings and each layer's states, in a list.
        :returns: shape (batch, length, dim), the last layer's or a list of those.
        :raises DataError: shapes that differ, or a number out of its range.
        :raises OptionError: languages are needed, or the model has no encoder.
        """
        from xlm_plugins.inference.features import extract_features

        states = extract_features(self.bundle, ids, languages, positions)
        return states if return_all_hiddens else states[-1]

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
        from xlm_plugins.inference.translate import Translator, check_direction

        check_direction(self.bundle, source, target)
        translator = Translator(self.bundle, source, target, options, n_best=n_best)
        return translator.translate(translator.encode(texts))

    def embed(
        self,
        texts: Sequence[str],
        language: str | None = None,
        *,
        layer: int = -1,
        pool: str = "mean",
    ) -> npt.NDArray[np.float32]:
        """Sentence embeddings.  A text that is too long is cut.

        :param language: of the texts; needed where the model knows several.
        :param layer: 0 is the embedding layer, -1 the last.
        :param pool: ``mean`` over each sentence's own tokens, or the ``first`` position's state.
        :returns: shape (len(texts), dim).
        :raises OptionError: an unknown language, no such layer, or a model without an encoder.
        """
        from xlm_plugins.inference.embed import embed

        return embed(self.bundle, texts, language, layer=layer, pool=pool)

    def score(
        self, texts: Sequence[str], language: str | None = None, *, kind: str | None = None
    ) -> list[float]:
        """How probable each text is: a log-probability, as `scores` has it token by token."""
        return [found.score for found in self.scores(texts, language, kind=kind)]

    def scores(
        self, texts: Sequence[str], language: str | None = None, *, kind: str | None = None
    ) -> list[SentenceScore]:
        """How probable each text is, and each of its tokens.  A text that is too long is cut.

        :param language: of the texts; needed where the model knows several.
        :param kind: ``causal``, the log-probability of the text and its end, from a model trained
            on clm; ``pseudo``, the sum over its tokens, each masked in turn.
        :raises OptionError: an unknown language, or a model that was not trained for it.
        """
        from xlm_plugins.inference.score import Scorer

        scorer = Scorer(self.bundle, language, kind=kind)
        return scorer.score(scorer.encode(texts))

    def generate(
        self,
        prompts: Sequence[str],
        language: str | None = None,
        options: GenerationOptions | None = None,
        *,
        max_tokens: int | None = None,
    ) -> list[str]:
        """Each prompt with what the model writes behind it; an empty one begins a new text.

        :param options: how; greedily by default.
        :raises OptionError: as `continuations`.
        """
        found = self.continuations(prompts, language, options, max_tokens=max_tokens)
        return [continuations[0].text for continuations in found]

    def continuations(
        self,
        prompts: Sequence[str],
        language: str | None = None,
        options: GenerationOptions | None = None,
        *,
        number: int = 1,
        max_tokens: int | None = None,
    ) -> list[list[Continuation]]:
        """Several texts for each prompt, with their scores; a beam's best first.

        :param language: of the prompts; needed where the model knows several.
        :param number: samples of each, or at most ``options.beam``.
        :param max_tokens: tokens to write at most, 100 if the model has the positions.
        :raises OptionError: an unknown language, or a model that was not trained on clm.
        """
        from xlm_plugins.inference.generate import TextGenerator

        generator = TextGenerator(
            self.bundle, language, options, number=number, max_tokens=max_tokens
        )
        return generator.generate(prompts, generator.encode(prompts))

    def predict(
        self, texts: Sequence[str] | Sequence[tuple[str, str]], language: str | None = None
    ) -> list[Prediction]:
        """What a fine-tuned model says of each text, or pair.  Too long a one is cut.

        :param texts: pairs where the task compares two texts.
        :param language: of the texts; needed where the model knows several.
        :raises BundleError: the model was not fine-tuned.
        :raises OptionError: an unknown language, or not as many texts as the task has.
        """
        from xlm_plugins.inference.predict import Predictor

        predictor = Predictor(self.bundle, language)
        if not texts:
            return []
        rows = [(text,) if isinstance(text, str) else text for text in texts]
        tokens, _ = predictor.encode_columns(list(zip(*rows, strict=True)))
        return predictor.predict(tokens)

    @overload
    def fill_mask(  # type: ignore[overload-overlap]  # a str is a sequence of texts, too
        self, texts: str, language: str | None = None, *, top: int = 5
    ) -> list[list[Filling]]: ...

    @overload
    def fill_mask(
        self, texts: Sequence[str], language: str | None = None, *, top: int = 5
    ) -> list[list[list[Filling]]]: ...

    def fill_mask(
        self, texts: str | Sequence[str], language: str | None = None, *, top: int = 5
    ) -> list[list[Filling]] | list[list[list[Filling]]]:
        """The most probable tokens for each ``<mask>`` of a text, by falling probability.

        :param texts: one text, or several.
        :param language: of the texts; needed where the model knows several.
        :returns: one list of ``top`` fillings for each mask, in order; for several texts a list
            of such lists.
        :raises OptionError: no mask in a text, or too long a text.
        """
        from xlm_plugins.inference.fill_mask import MaskFiller

        filler = MaskFiller(self.bundle, language, top=top)
        return filler.fill([texts])[0] if isinstance(texts, str) else filler.fill(texts)
