"""What an objective promises about its loss, on a tiny model."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from xlm_plugins.contracts.batch import Batch, LossOutput, Samples, Step
from xlm_plugins.contracts.objective import Objective
from xlm_plugins.contracts.ragged import Ragged
from xlm_plugins.contracts.splitting import by_sample, select
from xlm_plugins.model.description import ChosenObjective, ModelDescription
from xlm_plugins.model.model import Model
from xlm_plugins.testing.batch_promises import MAKERS, ObjectiveCase, for_training
from xlm_plugins.testing.batches import copied, difference
from xlm_plugins.testing.data import TINY
from xlm_plugins.testing.gradients import demand_one_order, order_of_gradients
from xlm_plugins.testing.promises import demand, promise

TOLERANCE = 1e-4
"""Relative, for sums of float32 in a different order."""
N_UPDATES = 100
LEARNT = 1 / 3
"""Share of its initial loss that a batch may still have after overfitting."""


def build(case: ObjectiveCase, dropout: float = 0.0) -> tuple[Objective, Model]:
    """An objective and the model that is built for it, always with the same weights."""
    torch.manual_seed(0)
    objective = case.build()
    description = ModelDescription(
        dataclasses.replace(TINY, dropout=dropout),
        case.data.vocabulary,
        case.data.languages,
        tuple(sorted(objective.stacks)),
        objectives=(ChosenObjective(case.component, case.options),),
    )
    return objective, description.build_model({objective.name: objective})


def prepared(objective: Objective, model: Model, batch: Batch, step: Step) -> Batch:
    """A batch as `Objective.loss` receives it."""
    was_training = model.training
    torch.manual_seed(0)
    with torch.no_grad():
        batch = objective.prepare(model.eval(), batch, step)
    model.train(was_training)
    return batch


def batches(case: ObjectiveCase, objective: Objective, model: Model) -> Iterator[tuple[str, Batch]]:
    """Every kind of batch that the objective makes, with a name."""
    for step in case.steps:
        for make in MAKERS:
            for name, batch in case.made(make, step).items():
                yield f"{step}, {name}", prepared(objective, model, batch, step)


@promise("`prepare` does not change the number of targets", "Objective.prepare")
def prepares_as_many_targets(case: ObjectiveCase) -> None:
    objective, model = build(case)
    for step in case.steps:
        (batch,) = case.made(for_training, step).values()
        n, n_before = prepared(objective, model, batch, step).n_targets, batch.n_targets
        demand(n == n_before, f"{step}: {n} targets instead of {n_before}")


@promise("the loss is a finite scalar with gradient, the counts are integers", "Objective.loss")
def gives_sums(case: ObjectiveCase) -> None:
    objective, model = build(case)
    for where, batch in batches(case, objective, model):
        output = model(objective, batch)
        demand(isinstance(output, LossOutput), f"{where}: {type(output).__name__}, not LossOutput")
        for name, value in zip(output._fields, output, strict=True):
            fine = isinstance(value, torch.Tensor) and value.shape == ()
            demand(fine, f"{where}: {name} is {value!r}, not a tensor of shape ()")
        loss, n_targets, n_correct = (float(value.detach()) for value in output)
        demand(math.isfinite(loss), f"{where}: the loss is {loss}")
        demand(output.loss.requires_grad, f"{where}: the loss has no graph")
        n = batch.n_targets
        demand(n_targets == n, f"{where}: n_targets is {n_targets:g}, but the batch has {n}")
        fine = 0 <= n_correct <= n and n_correct == int(n_correct)
        demand(fine, f"{where}: n_correct is {n_correct:g} for {n} targets")


@promise("the loss of a sample of a single token is finite", "Objective.make_batch")
def takes_a_single_token(case: ObjectiveCase) -> None:
    objective, model = build(case)
    for step in case.steps:
        samples = _of_a_single_token(case, step)
        for make in MAKERS:
            for name, batch in make(objective, samples, step, np.random.default_rng(0)).items():
                output = model(objective, prepared(objective, model, batch, step))
                output.loss.backward()
                loss, n_targets = output.loss.item(), int(output.n_targets)
                found = f"{step}, {name}: a loss of {loss:g} for {n_targets} targets"
                demand(math.isfinite(loss), found)
                demand(n_targets > 0 or loss == 0, found)


@promise("in eval mode the loss is deterministic", "Objective.loss")
def draws_nothing_in_eval_mode(case: ObjectiveCase) -> None:
    objective, model = build(case, dropout=0.1)
    for where, batch in batches(case, objective, model):
        one, other = (_loss(model.eval(), objective, batch, seed) for seed in (1, 2))
        demand(one == other, f"{where}: {one:g} and {other:g} with two seeds")


@promise("with the same seed the model and the loss are the same", "Objective.loss")
def repeats_under_a_seed(case: ObjectiveCase) -> None:
    (objective, model), (again, twin) = build(case, dropout=0.1), build(case, dropout=0.1)
    for (where, batch), (_, same) in zip(
        batches(case, objective, model), batches(case, again, twin), strict=True
    ):
        one = _loss(model.train(), objective, batch, 1)
        other = _loss(twin.train(), again, same, 1)
        demand(one == other, f"{where}: {one:g}, but {other:g} the second time")


@promise("the loss is a sum over samples, however they are packed", "Objective.loss")
def adds_samples_up(case: ObjectiveCase) -> None:
    objective, model = build(case)
    for where, batch in batches(case, objective, model):
        whole = _sums(model.eval(), objective, [batch])
        parts = [select(batch, sequences) for sequences in by_sample(batch)]
        _demand_close(whole, _sums(model, objective, parts), f"{where}: %s together, %s one by one")


@promise("the loss does not depend on the order of samples", "Objective.loss")
def takes_samples_in_any_order(case: ObjectiveCase) -> None:
    objective, model = build(case)
    for where, batch in batches(case, objective, model):
        backwards = [sequence for group in by_sample(batch)[::-1] for sequence in group]
        one, other = (
            _sums(model.eval(), objective, [given]) for given in (batch, select(batch, backwards))
        )
        _demand_close(one, other, f"{where}: %s in order, %s backwards")


@promise("the loss does not modify its batch", "Objective.loss")
def leaves_its_batch_alone(case: ObjectiveCase) -> None:
    objective, model = build(case)
    for where, batch in batches(case, objective, model):
        before = copied(batch)
        model(objective, batch)
        field = difference(before, batch)
        demand(not field, f"{where}: {field} is different afterwards")


@promise("gradients reach the model and the objective's own modules", "Objective.modules")
def sends_gradient(case: ObjectiveCase) -> None:
    objective, model = build(case)
    for _, batch in batches(case, objective, model):
        model(objective, batch).loss.backward()
    reached = {
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and bool(parameter.grad.any())
    }
    for stack in objective.stacks:
        any_reached = any(name.startswith(f"{stack}.") for name in reached)
        demand(any_reached, f"no parameter of the {stack} gets a gradient")
    own = {name for name, _ in model.named_parameters() if name.startswith("heads.")}
    demand(own <= reached, f"no gradient reaches {', '.join(sorted(own - reached))}")


@promise("gradients arrive in the same order for all batches, for ZeRO 2 and 3", "Objective.loss")
def sends_gradients_in_one_order(case: ObjectiveCase) -> None:
    objective, model = build(case)
    for step in case.steps:
        (usual, all_samples), *others = _batches_of_ranks(case, objective, step)
        order = _order(model, objective, all_samples, step)
        for name, batch in others:
            found = _order(model, objective, batch, step)
            demand_one_order(order, found, (f"{usual} of {step}", name))


def _batches_of_ranks(
    case: ObjectiveCase, objective: Objective, step: Step
) -> Iterator[tuple[str, Batch]]:
    """Parts of one global batch that a rank may have, the most common one first."""
    samples, single = case.samples(step), _of_a_single_token(case, step)
    for name, part in (
        (f"{len(samples.ids)} samples", samples),
        ("4 samples", _first(samples, 4)),
        ("one sample", _first(samples, 1)),
        ("a single token", single),
    ):
        yield name, objective.make_batch(part, step, np.random.default_rng(len(part.ids)))
    # The part of a rank that has no text left, as the loader makes it.
    batch = objective.make_batch(single, step, np.random.default_rng(0))
    nothing = dataclasses.replace(batch, predicted=batch.predicted[:0], targets=batch.targets[:0])
    yield "nothing to predict", nothing


def _order(model: Model, objective: Objective, batch: Batch, step: Step) -> list[str]:
    batch = prepared(objective, model, batch, step)
    return order_of_gradients(model, lambda: model(objective, batch).loss)


@promise("the model can overfit a batch", "Objective.loss")
def learns_a_batch_by_heart(case: ObjectiveCase) -> None:
    for step in case.steps:
        objective, model = build(case)
        samples = _first(case.samples(step), 4)
        batch = objective.make_batch(samples, step, np.random.default_rng(0))
        batch = prepared(objective, model, batch, step)
        losses = _losses_while_learning(model, objective, batch)
        first = next(losses)
        best = min(loss for loss in (first, *_until(losses, LEARNT * first)))
        demand(
            best <= LEARNT * first,
            f"{step}: the loss per target of a batch of 4 samples falls from {first:.3g} to "
            f"{best:.3g} in {N_UPDATES} updates, not to a third",
        )


def _losses_while_learning(model: Model, objective: Objective, batch: Batch) -> Iterator[float]:
    """The loss per target before each update."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(N_UPDATES):
        loss, n_targets, _ = model(objective, batch)
        mean = loss / n_targets.clamp(min=1)
        yield mean.item()
        optimizer.zero_grad()
        mean.backward()
        optimizer.step()


def _until(losses: Iterator[float], low_enough: float) -> Iterator[float]:
    for loss in losses:
        yield loss
        if loss <= low_enough:
            return


def _loss(model: Model, objective: Objective, batch: Batch, seed: int) -> float:
    torch.manual_seed(seed)
    return float(model(objective, batch).loss.detach())


def _sums(model: Model, objective: Objective, parts: Sequence[Batch]) -> list[float]:
    """Loss, number of targets and of correct ones, summed over batches."""
    with torch.no_grad():
        outputs = [torch.stack([p.double() for p in model(objective, part)]) for part in parts]
    sums: list[float] = torch.stack(outputs).sum(0).tolist()
    return sums


def _demand_close(one: list[float], other: list[float], found: str) -> None:
    for name, a, b in zip(LossOutput._fields, one, other, strict=True):
        close = abs(a - b) <= TOLERANCE * max(1.0, abs(a), abs(b))
        demand(close, f"{found % (f'{a:g}', f'{b:g}')} ({name})")


def _first(samples: Samples, n: int) -> Samples:
    rows = np.arange(min(n, len(samples.ids)))
    return Samples(samples.ids[rows], tuple(side.take(rows) for side in samples.sides))


def _of_a_single_token(case: ObjectiveCase, step: Step) -> Samples:
    samples = _first(case.samples(step), 1)
    return Samples(samples.ids, tuple(Ragged.of([side.values[:1]]) for side in samples.sides))


PROMISES = (
    prepares_as_many_targets,
    gives_sums,
    takes_a_single_token,
    draws_nothing_in_eval_mode,
    repeats_under_a_seed,
    adds_samples_up,
    takes_samples_in_any_order,
    leaves_its_batch_alone,
    sends_gradient,
    sends_gradients_in_one_order,
    learns_a_batch_by_heart,
)
