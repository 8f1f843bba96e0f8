"""`check_layer`: for each promise, a layer that breaks it is refused."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn

from xlm_plugins import Component, Layer, ParameterGroup
from xlm_plugins.testing import (
    BrokenPromiseError,
    check_layer,
    layer_in_model_promises,
    layer_promises,
)


class Sound(Layer):
    """A linear layer that counts its rows, and keeps all promises."""

    def __init__(self, options, dim):
        super().__init__(options, dim)
        self.map = nn.Linear(dim, dim)
        self.reset_statistics()

    def forward(self, x):
        if not self.training:
            self.n_rows = self.n_rows + len(x)
        return self.map(x)

    def parameter_groups(self):
        return [ParameterGroup((self.map.weight,), lr=1e-3)]

    def begin_at_zero(self):
        nn.init.zeros_(self.map.weight)
        nn.init.zeros_(self.map.bias)

    def statistics(self):
        return {"n_rows": self.n_rows}

    def reset_statistics(self):
        self.n_rows = torch.zeros(())

    def metrics(self, statistics):
        return {"n_rows": float(statistics["n_rows"])}


class OneForAll(Sound):
    @classmethod
    def build(cls, options, dim, n_positions):
        return [cls(options, dim)] * n_positions


class UnseededStart(Sound):
    def __init__(self, options, dim):
        super().__init__(options, dim)
        nn.init.constant_(self.map.bias, random.random())


class BeyondTheStack(Sound):
    @classmethod
    def default_position(cls, n_layers):
        return f"{n_layers}+"


class Narrows(Sound):
    def forward(self, x):
        return super().forward(x)[:, 1:]


class MeansOfNoRows(Sound):
    def forward(self, x):
        return super().forward(x).double()


class NoAutocast(Sound):
    def forward(self, x):
        rows = torch.arange(len(x))
        return torch.zeros_like(x).index_add(0, rows, super().forward(x))


class RowsSeeEachOther(Sound):
    def forward(self, x):
        y = super().forward(x)
        return y - y.mean(0) if len(x) else y


class AlwaysDropsOut(Sound):
    def forward(self, x):
        return nn.functional.dropout(super().forward(x), 0.5)


class UnseededInTraining(Sound):
    def forward(self, x):
        return super().forward(x) * (random.random() if self.training else 1)


class CountsInBuffer(Sound):
    def __init__(self, options, dim):
        super().__init__(options, dim)
        self.register_buffer("n_seen", torch.zeros(()))

    def forward(self, x):
        self.n_seen += len(x)
        return super().forward(x)


class Decays(Sound):
    def forward(self, x):
        self.map.weight.data.mul_(0.5)
        return super().forward(x)


class OverwritesInput(Sound):
    def forward(self, x):
        y = super().forward(x)
        x.data.zero_()
        return y


class OverwritesInTraining(Sound):
    def forward(self, x):
        y = super().forward(x)
        if self.training:
            x.data.zero_()
        return y


class GroupsTwice(Sound):
    def parameter_groups(self):
        return [ParameterGroup((self.map.weight,)), ParameterGroup((self.map.weight,))]


class GroupsOthers(Sound):
    def parameter_groups(self):
        return [ParameterGroup((nn.Parameter(torch.zeros(2)),))]


class TrainsByString(Sound):
    def train_only(self):
        return "*.map.*"


class UnusedParameter(Sound):
    def __init__(self, options, dim):
        super().__init__(options, dim)
        self.spare = nn.Parameter(torch.zeros(dim))


class CannotLearn(Sound):
    def forward(self, x):
        return 1e-6 * super().forward(x)


class BeginsNearZero(Sound):
    def begin_at_zero(self):
        nn.init.zeros_(self.map.weight)


class BeginsDead(Sound):
    def __init__(self, options, dim):
        super().__init__(options, dim)
        self.gate = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return super().forward(x) * self.gate

    def begin_at_zero(self):
        super().begin_at_zero()
        nn.init.zeros_(self.gate)


class AtMostTwo(Sound):
    @classmethod
    def build(cls, options, dim, n_positions):
        return super().build(options, dim, min(n_positions, 2))


class FoldsItsGate(Sound):
    """The same product, in a different order for many rows."""

    def __init__(self, options, dim):
        super().__init__(options, dim)
        self.gate = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        if len(x) < 256:
            return super().forward(x) * self.gate
        weight, bias = self.map.weight * self.gate[:, None], self.map.bias * self.gate
        return nn.functional.linear(x, weight, bias)


class SkipsNothing(Sound):
    def forward(self, x):
        return super().forward(x) if len(x) else x


class KeepsStateToItself(Sound):
    def __init__(self, options, dim):
        super().__init__(options, dim)
        self.scale = torch.rand(dim)

    def forward(self, x):
        return super().forward(x) * self.scale


class CountsTheLast(Sound):
    def forward(self, x):
        self.n_rows = torch.zeros(())
        return super().forward(x)


class NeverResets(Sound):
    def reset_statistics(self):
        self.n_rows = getattr(self, "n_rows", torch.zeros(()))


class CountsTraining(Sound):
    def forward(self, x):
        y = super().forward(x)
        if self.training:
            self.n_rows = self.n_rows + len(x)
        return y


class NamesWhatItHas(Sound):
    def statistics(self):
        return {"n_rows": self.n_rows} if self.n_rows else {}


class CountsInPlace(Sound):
    def forward(self, x):
        if not self.training:
            self.n_rows += len(x)
        return self.map(x)


class MetricsAreTensors(Sound):
    def metrics(self, statistics):
        return dict(statistics)


class MetricsOfNothing(Sound):
    def metrics(self, statistics):
        return {"share": 1 / float(statistics["n_rows"])}


class KeepsInferenceTensors(Sound):
    ones = None

    def forward(self, x):
        if self.ones is None:
            self.ones = torch.ones(x.shape[1])
        return super().forward(x) * self.ones


BROKEN = [
    (OneForAll, "builds_a_layer_a_position", "1 layers for 2 positions"),
    (UnseededStart, "is_built_the_same_under_a_seed", "map.bias"),
    (BeyondTheStack, "goes_where_there_is_a_place", "stack of 1 layers"),
    (Narrows, "keeps_shape_and_type", r"shape \(24, 15\), not \(24, 16\)"),
    (MeansOfNoRows, "keeps_shape_and_type", "float64"),
    (NoAutocast, "runs_under_autocast", "RuntimeError"),
    (RowsSeeEachOther, "keeps_rows_apart", "rows alone"),
    (AlwaysDropsOut, "keeps_rows_apart", "rows alone"),
    (UnseededInTraining, "repeats_under_a_seed", "training, with one seed"),
    (CountsInBuffer, "stays_as_it_is", "n_seen changed in eval mode"),
    (OverwritesInTraining, "leaves_its_input_alone", "different afterwards"),
    (GroupsTwice, "groups_its_own_parameters", "twice"),
    (GroupsOthers, "groups_its_own_parameters", "not the layer's"),
    (TrainsByString, "names_what_stays_trained", "not a tuple of strings"),
    (UnusedParameter, "learns", "no gradient ever reaches spare"),
    (CannotLearn, "learns", "the squared error falls"),
    (BeginsNearZero, "begins_at_zero", "map.weight changed, but outputs are still"),
    (BeginsDead, "begins_at_zero", "cannot learn"),
    (AtMostTwo, "works_in_every_place", "ValueError"),
    (FoldsItsGate, "sends_gradients_in_one_order", r"is 1\.gate with 24 rows, 1\.map.* with 257"),
    (SkipsNothing, "sends_gradients_in_one_order", r"is 1\.map.* with 24 rows, none with 0"),
    (KeepsStateToItself, "survives_saving", "saved and loaded"),
    (CountsTheLast, "counts_in_sums", "n_rows"),
    (NeverResets, "counts_in_sums", "n_rows"),
    (CountsTraining, "counts_anew_after_a_reset", "in training"),
    (NamesWhatItHas, "counts_anew_after_a_reset", r"\{\} and \{'n_rows': \(\)\} initially"),
    (CountsInPlace, "hands_counters_out_for_good", "a batch changes n_rows"),
    (MetricsAreTensors, "makes_metrics_of_counters", "of type Tensor"),
    (MetricsOfNothing, "makes_metrics_of_counters", "ZeroDivisionError"),
    (KeepsInferenceTensors, "trains_after_inference", "RuntimeError"),
]


def component(target: type, name: str) -> Component:
    return Component(name, f"{__name__}:{target.__name__}", summary="for a test")


@pytest.mark.parametrize(
    ("layer", "promise", "found"), BROKEN, ids=lambda value: getattr(value, "__name__", None)
)
def test_a_broken_promise_is_named(layer: type, promise: str, found: str) -> None:
    with pytest.raises(BrokenPromiseError, match=found) as error:
        check_layer(component(layer, "broken"))
    assert error.value.promise == promise


@pytest.mark.parametrize("layer", [AlwaysDropsOut, Decays, OverwritesInput])
def test_what_breaks_several_promises_is_refused(layer: type) -> None:
    with pytest.raises(BrokenPromiseError):
        check_layer(component(layer, "broken"))


def test_a_valid_layer_is_accepted() -> None:
    check_layer(component(Sound, "sound"))


def test_every_promise_has_a_test() -> None:
    every = (*layer_promises.PROMISES, *layer_in_model_promises.PROMISES)
    assert {each.name for each in every} == {promise for _, promise, _ in BROKEN}
