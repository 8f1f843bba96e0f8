"""What an objective promises about its steps and batches."""

from __future__ import annotations

import io
import pickle
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xlm_plugins.contracts.batch import Batch, Layout, Samples, Step
from xlm_plugins.contracts.objective import Objective
from xlm_plugins.core.registry import Component
from xlm_plugins.model.description import build_objective
from xlm_plugins.testing.batches import difference
from xlm_plugins.testing.data import TINY, TinyData
from xlm_plugins.testing.promises import demand, promise
from xlm_plugins.testing.text import LANGUAGES

Make = Callable[[Objective, Samples, Step, np.random.Generator], dict[str, Batch]]


def for_training(
    objective: Objective, samples: Samples, step: Step, rng: np.random.Generator
) -> dict[str, Batch]:
    return {"make_batch": objective.make_batch(samples, step, rng)}


def for_evaluation(
    objective: Objective, samples: Samples, step: Step, rng: np.random.Generator
) -> dict[str, Batch]:
    batches = objective.evaluation_batches(samples, step, rng)
    return {f"evaluation_batches {key!r}": batch for key, batch in batches.items()}


MAKERS: tuple[Make, ...] = (for_training, for_evaluation)


@dataclass(frozen=True)
class ObjectiveCase:
    """An objective under test, and the data to test it with."""

    component: Component
    options: Any
    data: TinyData

    def build(self) -> Objective:
        """The objective as the trainer and the loader workers have it."""
        return build_objective(
            self.component, self.options, self.data.vocabulary, self.data.languages
        )

    @cached_property
    def steps(self) -> list[Step]:
        """The steps that it chooses by default."""
        return self.build().steps(list(LANGUAGES), [LANGUAGES])

    def samples(self, step: Step, number: int = 0) -> Samples:
        """Samples of many lengths, which would need padding."""
        samples = self.data.samples(self.build().layout(step), step, number=number)
        if len(samples.sides) > 1:
            return samples
        (rows,) = samples.sides
        kept = np.maximum(rows.lengths - np.arange(rows.n_rows) % 4, 1)
        return Samples(samples.ids, (rows.cut(kept),))

    def made(self, make: Make, step: Step, seed: int = 0) -> dict[str, Batch]:
        """Batches of the same samples every time, made by a new objective."""
        return make(self.build(), self.samples(step), step, np.random.default_rng(seed))


@promise("for two languages and their pair there are steps to train on", "Objective.steps")
def names_its_steps(case: ObjectiveCase) -> None:
    found = case.steps
    demand(bool(found), "no step, so that `--objective NAME` alone could train on nothing")
    known = {Step.parse(str(step)) for step in found}
    demand(len(known) == len(found), f"a step occurs twice in {', '.join(map(str, found))}")
    foreign = {code for step in found for code in step.languages} - {*LANGUAGES}
    demand(not foreign, f"languages that the data does not have: {foreign}")


@promise("a step is parsed as it is written", "Objective.parse_step")
def reads_its_steps(case: ObjectiveCase) -> None:
    for step in case.steps:
        read = case.build().parse_step(str(step))
        demand(read == step, f"{str(step)!r} is parsed as {read!r}")


@promise("each step has a layout; PAIR needs a step of two languages", "Objective.layout")
def has_a_layout(case: ObjectiveCase) -> None:
    for step in case.steps:
        layout = case.build().layout(step)
        demand(isinstance(layout, Layout), f"{layout!r} for {step}")
        demand(layout is not Layout.PAIR or len(step.languages) > 1, f"PAIR for {step}")


@promise("the fields of a batch have the shapes, types and ranges of `Batch`", "Batch")
def makes_whole_batches(case: ObjectiveCase) -> None:
    for step in case.steps:
        samples = case.samples(step)
        for make in MAKERS:
            batches = case.made(make, step)
            demand(bool(batches), f"{step}: evaluation_batches returns none")
            for name, batch in batches.items():
                _demand_whole(batch, case, f"{step}, {name}")
                known = np.isin(batch.sample_ids.numpy(), samples.ids).all()
                demand(bool(known), f"{step}, {name}: sample_ids of no sample")


@promise(
    "`predicts` says what the targets are: next tokens, or masked tokens", "Objective.predicts"
)
def predicts_what_it_says(case: ObjectiveCase) -> None:
    says, mask = case.build().predicts, case.data.vocabulary.roles["mask"]
    demand(says in ("next token", "masked tokens", None), f"predicts is {says!r}")
    for step in case.steps:
        for name, batch in case.made(for_training, step).items():
            where = f"{step}, {name}: predicts is {says!r}, but"
            if says == "next token":
                demand(batch.source is None, f"{where} the batch has a source")
                inside = ~torch.isin(batch.predicted, batch.offsets[1:] - 1)
                following = batch.tokens[batch.predicted[inside] + 1]
                wrong = int((following != batch.targets[inside]).sum())
                demand(not wrong, f"{where} {wrong} targets are not the token that follows")
            elif says == "masked tokens":
                masked = bool((batch.tokens[batch.predicted] == mask).any())
                demand(masked, f"{where} none of the predicted tokens is shown as MASK")


@promise("a batch depends on samples, step and generator only", "Objective.make_batch")
def makes_the_same_batch_again(case: ObjectiveCase) -> None:
    for step, make in _each(case):
        _seed_global_randomness(1)
        first = case.made(make, step)
        _seed_global_randomness(2)
        second = case.made(make, step)
        for name, batch in first.items():
            field = difference(batch, second[name])
            demand(not field, f"{step}, {name}: {field} is different the second time")


@promise("a batch does not depend on the batches made before", "Objective.make_batch")
def forgets_what_it_made(case: ObjectiveCase) -> None:
    for step, make in _each(case):
        objective = case.build()
        make(objective, case.samples(step, number=1), step, np.random.default_rng(9))
        found = make(objective, case.samples(step), step, np.random.default_rng(0))
        for name, batch in case.made(make, step).items():
            field = difference(batch, found[name])
            demand(not field, f"{step}, {name}: {field} depends on the batches before")


@promise("all randomness comes from the given generator", "Objective.make_batch")
def leaves_global_randomness(case: ObjectiveCase) -> None:
    for step, make in _each(case):
        _seed_global_randomness(3)
        before = _random_states()
        case.made(make, step)
        after = _random_states()
        drawn = ", ".join(name for name in before if before[name] != after[name])
        demand(not drawn, f"{step}: {make.__name__} draws from {drawn}")


@promise("samples are not modified: their arrays may be shared", "Objective.make_batch")
def leaves_samples_alone(case: ObjectiveCase) -> None:
    for step, make in _each(case):
        samples, untouched = case.samples(step), case.samples(step)
        make(case.build(), samples, step, np.random.default_rng(0))
        pairs = [(samples.ids, untouched.ids)]
        for side, copy in zip(samples.sides, untouched.sides, strict=True):
            pairs += [(side.values, copy.values), (side.offsets, copy.offsets)]
        same = all(np.array_equal(one, other) for one, other in pairs)
        demand(same, f"{step}: {make.__name__} modifies its samples")


@promise("it can be pickled for loader workers, and holds no tensors", "Objective")
def travels_to_workers(case: ObjectiveCase) -> None:
    buffer = io.BytesIO()
    _PicklerWithoutTensors(buffer).dump(case.build())
    copy = pickle.loads(buffer.getvalue())
    for step, make in _each(case):
        found = make(copy, case.samples(step), step, np.random.default_rng(0))
        for name, batch in case.made(make, step).items():
            field = difference(batch, found[name])
            demand(not field, f"{step}, {name}: the unpickled copy makes a different {field}")


def _each(case: ObjectiveCase) -> Iterator[tuple[Step, Make]]:
    return ((step, make) for step in case.steps for make in MAKERS)


def _demand_whole(batch: Batch, case: ObjectiveCase, where: str) -> None:
    n_tokens, n_sequences = len(batch.tokens), len(batch.offsets) - 1
    n_predicted = len(batch.predicted)
    _demand_ids(batch.tokens, n_tokens, case.data.vocabulary.size, f"{where}: tokens")
    _demand_ids(batch.positions, n_tokens, TINY.max_positions, f"{where}: positions")
    _demand_ids(batch.languages, n_tokens, len(case.data.languages), f"{where}: languages")
    _demand_ids(batch.predicted, n_predicted, n_tokens, f"{where}: predicted")
    _demand_ids(batch.offsets, n_sequences + 1, n_tokens + 1, f"{where}: offsets")
    offsets = batch.offsets.tolist()
    demand(offsets == sorted(offsets), f"{where}: offsets that decrease")
    whole = offsets[:1] == [0] and offsets[-1:] == [n_tokens]
    demand(whole, f"{where}: offsets that do not run from 0 to {n_tokens}, the number of tokens")
    _demand_ids(batch.sample_ids, n_sequences, None, f"{where}: sample_ids")
    shape, dtype = tuple(batch.targets.shape), batch.targets.dtype
    demand(shape == (n_predicted,), f"{where}: targets of shape {shape}, not ({n_predicted},)")
    demand(dtype in (torch.int64, torch.float32), f"{where}: targets of {dtype}")
    if batch.source is not None:
        n_theirs = len(batch.source.offsets) - 1
        demand(n_theirs == n_sequences, f"{where}: {n_theirs} sources for {n_sequences} sequences")
        _demand_whole(batch.source, case, f"{where}, source")


def _demand_ids(values: Tensor, n: int, limit: int | None, what: str) -> None:
    demand(tuple(values.shape) == (n,), f"{what} of shape {tuple(values.shape)}, not ({n},)")
    demand(values.dtype == torch.int64, f"{what} of {values.dtype}, not int64")
    if limit is not None and n:
        low, high = int(values.min()), int(values.max())
        fine = low >= 0 and high < limit
        demand(fine, f"{what} from {low} to {high}, not from 0 to {limit - 1}")


def _seed_global_randomness(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _random_states() -> dict[str, bytes]:
    return {
        "random": pickle.dumps(random.getstate()),
        "numpy.random": pickle.dumps(np.random.get_state()),
        "torch": torch.get_rng_state().numpy().tobytes(),
    }


class _PicklerWithoutTensors(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Tensor):
            demand(False, f"it holds a tensor of shape {tuple(obj.shape)}")
        return NotImplemented


PROMISES = (
    names_its_steps,
    reads_its_steps,
    has_a_layout,
    makes_whole_batches,
    predicts_what_it_says,
    makes_the_same_batch_again,
    forgets_what_it_made,
    leaves_global_randomness,
    leaves_samples_alone,
    travels_to_workers,
)
