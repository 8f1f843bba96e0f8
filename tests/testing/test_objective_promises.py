"""`check_objective`: for each promise, an objective that breaks it is refused."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest
import torch
from torch import nn

from xlm_plugins import Component, Layout, LossOutput, Objective, Ragged, Step, pack
from xlm_plugins.contracts.splitting import select
from xlm_plugins.testing import BrokenPromiseError, batch_promises, check_objective, loss_promises


class Sound(Objective):
    """Masks every third token of single sentences, and keeps all promises."""

    def layout(self, step):
        return Layout.SENTENCE

    def steps(self, languages, pairs):
        return [Step((languages[0],))]

    def make_batch(self, samples, step, rng):
        rows = samples.sides[0].framed(1, 1)
        predicted = np.arange(1, len(rows.values), 3)
        shown = Ragged(rows.values.copy(), rows.offsets)
        shown.values[predicted] = self.vocabulary.roles["mask"]
        language = rows.filled(self.languages[step.languages[0]])
        targets = rows.values[predicted]
        return pack(shown, rows.positions(), language, predicted, targets, samples.ids)

    def loss(self, model, batch):
        return model.stack("encoder").predict(batch)


class NoSteps(Sound):
    def steps(self, languages, pairs):
        return []


class StrangeSteps(Sound):
    def parse_step(self, text):
        return Step((text, text))


class NoLayout(Sound):
    def layout(self, step):
        return "sentence"


class NarrowTokens(Sound):
    def make_batch(self, samples, step, rng):
        batch = super().make_batch(samples, step, rng)
        return dataclasses.replace(batch, tokens=batch.tokens.int())


class TargetsShort(Sound):
    def make_batch(self, samples, step, rng):
        batch = super().make_batch(samples, step, rng)
        return dataclasses.replace(batch, targets=batch.targets[1:])


class LanguageOutOfRange(Sound):
    def make_batch(self, samples, step, rng):
        batch = super().make_batch(samples, step, rng)
        return dataclasses.replace(batch, languages=batch.languages + 2)


class SamplesForgotten(Sound):
    def make_batch(self, samples, step, rng):
        batch = super().make_batch(samples, step, rng)
        return dataclasses.replace(batch, sample_ids=-1 - batch.sample_ids)


class Unmasked(Sound):
    """Does not hide the tokens that it predicts."""

    predicts = "masked tokens"

    def make_batch(self, samples, step, rng):
        batch = super().make_batch(samples, step, rng)
        tokens = batch.tokens.clone()
        tokens[batch.predicted] = batch.targets
        return dataclasses.replace(batch, tokens=tokens)


class NotTheNext(Sound):
    predicts = "next token"


class PredictsAnything(Sound):
    predicts = "translations"


class GlobalDraws(Sound):
    def make_batch(self, samples, step, rng):
        batch = super().make_batch(samples, step, rng)
        return dataclasses.replace(batch, tokens=batch.tokens[torch.randperm(batch.n_tokens)])


class GlobalSeed(Sound):
    def make_batch(self, samples, step, rng):
        np.random.seed(int(rng.integers(100)))
        return super().make_batch(samples, step, rng)


class Remembers(Sound):
    n_made = 0

    def make_batch(self, samples, step, rng):
        self.n_made += 1
        batch = super().make_batch(samples, step, rng)
        return dataclasses.replace(batch, positions=batch.positions + self.n_made - 1)


class WritesIntoSamples(Sound):
    def make_batch(self, samples, step, rng):
        batch = super().make_batch(samples, step, rng)
        samples.sides[0].values[0] += 1
        return batch


class HoldsTensor(Sound):
    def __init__(self, options, vocabulary, languages):
        super().__init__(options, vocabulary, languages)
        self.table = torch.zeros(3)


class HoldsFunction(Sound):
    def __init__(self, options, vocabulary, languages):
        super().__init__(options, vocabulary, languages)
        self.draw = lambda rng: rng.random()


class FewerTargetsPrepared(Sound):
    def prepare(self, model, batch, step):
        return select(batch, [0])


class CountsAreNumbers(Sound):
    def loss(self, model, batch):
        return super().loss(model, batch)._replace(n_targets=batch.n_targets)


class Infinite(Sound):
    def loss(self, model, batch):
        output = super().loss(model, batch)
        return output._replace(loss=output.loss / 0)


class Detached(Sound):
    def loss(self, model, batch):
        output = super().loss(model, batch)
        return output._replace(loss=output.loss.detach())


class CountsTooMany(Sound):
    def loss(self, model, batch):
        output = super().loss(model, batch)
        return output._replace(n_correct=output.n_targets + 1)


class NeedsTwoTokens(Sound):
    def make_batch(self, samples, step, rng):
        if samples.sides[0].lengths.max() < 2:
            raise IndexError("list index out of range")
        return super().make_batch(samples, step, rng)


class AlwaysDropsOut(Sound):
    def loss(self, model, batch):
        output = super().loss(model, batch)
        return output._replace(loss=nn.functional.dropout(output.loss, 0.5))


class UnseededInTraining(Sound):
    def loss(self, model, batch):
        output = super().loss(model, batch)
        return output._replace(loss=output.loss * (random.random() if model.training else 1))


class Mean(Sound):
    def loss(self, model, batch):
        output = super().loss(model, batch)
        return output._replace(loss=output.loss / output.n_targets.clamp(min=1))


class SeesOtherSamples(Sound):
    def loss(self, model, batch):
        encoder = model.stack("encoder")
        states = encoder(batch)
        return encoder.loss(states[batch.predicted] + states.mean(0), batch.targets)


class LooksAtOrder(Sound):
    def loss(self, model, batch):
        output = super().loss(model, batch)
        backwards = batch.sample_ids[0] < batch.sample_ids[-1]
        return output._replace(loss=torch.where(backwards, 2, 1) * output.loss)


class WritesIntoBatch(Sound):
    def loss(self, model, batch):
        batch.sample_ids.zero_()
        return super().loss(model, batch)


class UnusedHead(Sound):
    def modules(self, options):
        return {"head": nn.Linear(options.dim, 2)}


class HeadOnly(Sound):
    """Learns without using the model."""

    def modules(self, options):
        return {"head": nn.Embedding(self.vocabulary.size, self.vocabulary.size)}

    def loss(self, model, batch):
        scores = model.head(self.name, "head")(batch.tokens[batch.predicted])
        loss = nn.functional.cross_entropy(scores, batch.targets, reduction="sum")
        n_correct = (scores.argmax(-1) == batch.targets).sum()
        return LossOutput(loss, torch.tensor(batch.n_targets), n_correct)


class SkipsTheModel(Sound):
    """Skips the model if there is nothing to predict, so that gradients are missing."""

    def loss(self, model, batch):
        if not batch.n_targets:
            nothing = model.stack("encoder").embeddings.tokens.weight.sum() * 0
            return LossOutput(nothing, torch.tensor(0), torch.tensor(0))
        return super().loss(model, batch)


class TwoWays(Sound):
    """Applies its head before or after the model, depending on the size of the batch."""

    def modules(self, options):
        return {"head": nn.Embedding(self.vocabulary.size, 1)}

    def loss(self, model, batch):
        if batch.n_tokens > 30:
            output = super().loss(model, batch)
            return output._replace(loss=output.loss + self.own(model, batch))
        own = self.own(model, batch)
        output = super().loss(model, batch)
        return output._replace(loss=output.loss + own)

    def own(self, model, batch):
        scores = model.head(self.name, "head")(batch.tokens[batch.predicted])
        return 1e-3 * (scores - 1).square().sum()


class CannotLearn(Sound):
    def loss(self, model, batch):
        output = super().loss(model, batch)
        return output._replace(loss=output.loss + 10 * output.n_targets)


BROKEN = [
    (NoSteps, "names_its_steps", "no step"),
    (StrangeSteps, "reads_its_steps", "'xa'"),
    (NoLayout, "has_a_layout", "'sentence'"),
    (NarrowTokens, "makes_whole_batches", "tokens of torch.int32, not int64"),
    (TargetsShort, "makes_whole_batches", "targets of shape"),
    (LanguageOutOfRange, "makes_whole_batches", "languages from 2 to 2, not from 0 to 1"),
    (SamplesForgotten, "makes_whole_batches", "sample_ids of no sample"),
    (Unmasked, "predicts_what_it_says", "is shown as MASK"),
    (NotTheNext, "predicts_what_it_says", "not the token that follows"),
    (PredictsAnything, "predicts_what_it_says", "is 'translations'"),
    (GlobalDraws, "makes_the_same_batch_again", "tokens is different"),
    (Remembers, "forgets_what_it_made", "positions depends on the batches before"),
    (GlobalSeed, "leaves_global_randomness", "numpy.random"),
    (WritesIntoSamples, "leaves_samples_alone", "modifies its samples"),
    (HoldsTensor, "travels_to_workers", r"tensor of shape \(3,\)"),
    (HoldsFunction, "travels_to_workers", "lambda"),
    (FewerTargetsPrepared, "prepares_as_many_targets", "targets instead of"),
    (CountsAreNumbers, "gives_sums", "n_targets is"),
    (Infinite, "gives_sums", "the loss is inf"),
    (Detached, "gives_sums", "no graph"),
    (CountsTooMany, "gives_sums", "n_correct is"),
    (NeedsTwoTokens, "takes_a_single_token", "IndexError"),
    (AlwaysDropsOut, "draws_nothing_in_eval_mode", "with two seeds"),
    (UnseededInTraining, "repeats_under_a_seed", "the second time"),
    (Mean, "adds_samples_up", "one by one"),
    (SeesOtherSamples, "adds_samples_up", "one by one"),
    (LooksAtOrder, "takes_samples_in_any_order", "backwards"),
    (WritesIntoBatch, "leaves_its_batch_alone", "sample_ids is different"),
    (UnusedHead, "sends_gradient", "heads.broken.head.bias"),
    (HeadOnly, "sends_gradient", "no parameter of the encoder"),
    (SkipsTheModel, "sends_gradients_in_one_order", "with nothing to predict"),
    (TwoWays, "sends_gradients_in_one_order", "with 4 samples"),
    (CannotLearn, "learns_a_batch_by_heart", "not to a third"),
]


def component(target: type, name: str) -> Component:
    return Component(name, f"{__name__}:{target.__name__}", summary="for a test")


@pytest.mark.parametrize(
    ("objective", "promise", "found"), BROKEN, ids=lambda value: getattr(value, "__name__", None)
)
def test_a_broken_promise_is_named(objective: type, promise: str, found: str) -> None:
    with pytest.raises(BrokenPromiseError, match=found) as error:
        check_objective(component(objective, "broken"))
    assert error.value.promise == promise


def test_a_valid_objective_is_accepted() -> None:
    check_objective(component(Sound, "sound"))


def test_every_promise_has_a_test() -> None:
    promises = {each.name for each in (*batch_promises.PROMISES, *loss_promises.PROMISES)}
    assert promises == {promise for _, promise, _ in BROKEN}
