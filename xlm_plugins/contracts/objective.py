"""The contracts of what can be trained: any loss, and a pretraining objective."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from torch import nn

from xlm_plugins.contracts.batch import Batch, Layout, LossOutput, Samples, Step, Vocabulary
from xlm_plugins.core.errors import OptionError
from xlm_plugins.core.selection import StackName

if TYPE_CHECKING:
    from xlm_plugins.config.model import ModelOptions
    from xlm_plugins.model.model import Model


class Trainable(ABC):
    """Anything that a model can be trained on: a loss, and the modules that it needs.

    `Objective` is one, and so is the head of a downstream task.
    """

    name: str = ""
    """The name of its modules and metrics."""

    def modules(self, options: ModelOptions) -> dict[str, nn.Module]:
        """Additional modules, such as the head of a classifier, by name.

        They become part of the model; ``model.head(self.name, key)`` returns them.
        """
        return {}

    def prepare(self, model: Model, batch: Batch, step: Step) -> Batch:
        """Complete a batch with the model, without gradient; back-translation generates here.

        The model is in eval mode, and the batch on its device.  torch's random state is a function
        of (seed, update, micro-batch, rank).  The number of targets must not change.
        """
        return batch

    @abstractmethod
    def loss(self, model: Model, batch: Batch) -> LossOutput:
        """The loss of a batch: a sum over independent samples.

        The other samples of the batch, and the order, must not matter: ranks and gradient
        accumulation split a global batch arbitrarily.  In eval mode nothing is random.  The batch
        is not modified.  No collectives and no I/O.  The order in which gradients reach the
        parameters must not depend on the batch: ranks sum them in the order of arrival, and the
        batch of one rank may have nothing to predict.
        """


class Objective(Trainable):
    """A pretraining objective: how samples become a batch, and how a batch becomes a loss.

    The trainer and every loader worker have an instance, so it must be picklable and hold no
    tensors; its parameters, if any, come from `modules`.

    :param options: the component's options object.
    :param vocabulary: size and special ids of the data's tokenizer.
    :param languages: id of each language that the model knows.
    """

    stacks: frozenset[StackName] = frozenset({"encoder"})
    n_languages: tuple[int, ...] = (1,)
    """How many languages a step may name: 1 for ``en``, 2 for ``en-fr``, 3 for ``en-fr-en``."""
    predicts: Literal["next token", "masked tokens"] | None = None
    """What a model trained on it can be used for.

    ``next token``: ``model.causal_stack`` learns to predict each token from those before it, so the
    model generates text and gives causal log-probabilities.  ``masked tokens``: the encoder learns
    to predict tokens hidden by MASK, so it fills masks and gives pseudo-log-likelihoods.  None:
    neither, or only given a source.
    """

    def __init__(self, options: Any, vocabulary: Vocabulary, languages: Mapping[str, int]) -> None:
        self.options = options
        self.vocabulary = vocabulary
        self.languages = dict(languages)

    @abstractmethod
    def layout(self, step: Step) -> Layout:
        """How the samples of a step are cut from the text."""

    @abstractmethod
    def make_batch(self, samples: Samples, step: Step, rng: np.random.Generator) -> Batch:
        """Turn one lane's samples into a packed batch.

        Called in loader workers.  All randomness must come from ``rng``, which is keyed by
        (seed, update, lane), so that the batch is the same for any number of processes.
        """

    def steps(self, languages: Sequence[str], pairs: Sequence[tuple[str, str]]) -> list[Step]:
        """The steps if the user names none: every language, or both orders of every pair.

        :raises DataError: the data has nothing to train on; for objectives that can explain why.
        """
        found = []
        if 1 in self.n_languages:
            found += [Step((language,)) for language in languages]
        elif 2 in self.n_languages:
            found += [Step(order) for pair in pairs for order in (pair, pair[::-1])]
        return found

    def parse_step(self, text: str) -> Step:
        """Parse a step as the user wrote it.

        :raises OptionError: the objective cannot train on that number of languages.
        """
        step = Step.parse(text)
        if len(step.languages) not in self.n_languages:
            forms = {1: "a language such as en", 2: "a pair such as en-fr", 3: "a loop en-fr-en"}
            raise OptionError(
                f"{self.name}:{text} names {len(step.languages)} language(s)",
                expected=" or ".join(forms[n] for n in self.n_languages),
            )
        return step

    def evaluation_batches(
        self, samples: Samples, step: Step, rng: np.random.Generator
    ) -> dict[str, Batch]:
        """The batches to evaluate on; ``rng`` is the same in every evaluation.

        The key ``""`` stands for the objective's own metric, ``valid_en_mlm_ppl``; another key
        becomes part of the name: ``alone`` of ``valid_en-fr_tlm_alone_ppl``.
        """
        return {"": self.make_batch(samples, step, rng)}

    def translations(self, step: Step) -> tuple[Step, ...]:
        """What the model translates in evaluation, if it was trained on a step.

        ``en-fr`` is compared with the French side of held-out pairs, ``en-fr-en`` (a round trip)
        with the held-out English text itself.
        """
        return ()
