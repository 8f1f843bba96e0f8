"""Parameter groups, their rates, and one update."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from xlm_plugins.config.training import OptimizerOptions
from xlm_plugins.contracts.layer import Layer, ParameterGroup
from xlm_plugins.core.errors import OptionError
from xlm_plugins.training.optim import parameter_groups as optim

OPTIONS = OptimizerOptions(lr=1e-2, weight_decay=0.1, eps=1e-3, clip=0.0)


class Values(Layer):
    def __init__(self):
        super().__init__(None, 4)
        self.values = nn.Parameter(torch.ones(3, 4))
        self.query = nn.Linear(4, 4)

    def parameter_groups(self):
        return [ParameterGroup((self.values,), lr=0.5, schedule="constant", weight_decay=0.0)]


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Linear(4, 3)
        self.output = nn.Linear(4, 3)
        self.output.weight = self.embedding.weight
        self.layer = Values()


def test_layers_get_their_groups_and_tied_parameters_come_once():
    run, values = optim.parameter_groups(Tiny(), OPTIONS)
    assert run.names == (
        "embedding.weight",
        "embedding.bias",
        "output.bias",
        "layer.query.weight",
        "layer.query.bias",
    )
    assert values.names == ("layer.values",)
    assert (run.lr, run.betas, run.weight_decay, run.constant) == (1e-2, (0.9, 0.98), 0.1, False)
    assert (values.lr, values.betas, values.weight_decay) == (0.5, (0.9, 0.98), 0.0)
    assert values.rate(1e-4, 1e-2) == 0.5
    assert run.rate(1e-4, 1e-2) == 1e-4


def test_a_group_without_its_own_schedule_follows_the_run():
    model = Tiny()
    model.layer.parameter_groups = lambda: [ParameterGroup((model.layer.values,), lr=0.5)]
    values = optim.parameter_groups(model, OPTIONS)[1]
    assert values.rate(0.25e-2, 1e-2) == pytest.approx(0.125)


def requiring_gradients(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


def test_train_only_selects_and_freezing_is_a_separate_step():
    model = Tiny()
    everything = requiring_gradients(model)
    groups = optim.parameter_groups(model, OPTIONS, ("layer.*", "output.bias"))
    trained = {"output.bias", "layer.query.weight", "layer.query.bias", "layer.values"}
    assert set(optim.trained_parameters(groups)) == trained
    assert requiring_gradients(model) == everything
    optim.freeze_others(model, trained)
    assert requiring_gradients(model) == trained
    assert set(optim.selected_parameters(model)) == trained


def test_train_only_may_train_what_was_frozen():
    model = Tiny()
    optim.freeze_others(model, {"layer.values"})
    selected = optim.selected_parameters(model, ("output.bias",))
    optim.freeze_others(model, selected)
    assert requiring_gradients(model) == {"output.bias"}


def test_a_group_that_train_only_empties_is_left_out():
    groups = optim.parameter_groups(Tiny(), OPTIONS, ("embedding.*",))
    assert [group.names for group in groups] == [("embedding.weight", "embedding.bias")]


def test_a_pattern_that_matches_nothing_suggests_similar_names():
    with pytest.raises(OptionError, match=r"(?s)'embeding\.weight'.*similar: embedding\.weight"):
        optim.parameter_groups(Tiny(), OPTIONS, ("embeding.weight",))


def trained_names(model, train_only=()):
    """What the groups train, compared with what is selected."""
    names = set(optim.trained_parameters(optim.parameter_groups(model, OPTIONS, train_only)))
    assert names == set(optim.selected_parameters(model, train_only))
    return names


OWN = {"layer.values", "layer.query.weight", "layer.query.bias"}


@pytest.mark.parametrize(
    ("patterns", "beside"),
    [(("output.*",), {"output.bias"}), (("*.bias",), {"output.bias", "embedding.bias"})],
)
def test_a_layer_freezes_everything_except_its_patterns_and_itself(patterns, beside):
    """``output.weight`` is tied, and known by its first name."""
    model = Tiny()
    model.layer.train_only = lambda: patterns
    assert trained_names(model) == OWN | beside


def test_a_layer_s_pattern_may_match_nothing():
    """It cannot know whether the model has a head; a user who names one wants it."""
    model = Tiny()
    model.layer.train_only = lambda: ("head.*",)
    assert trained_names(model) == OWN
    with pytest.raises(OptionError, match=r"'head\.\*' matches no parameter"):
        trained_names(model, ("head.*",))


def test_the_user_s_train_only_wins_over_a_layer_s():
    model = Tiny()
    model.layer.train_only = lambda: ("output.*",)
    assert trained_names(model, ("embedding.*",)) == {"embedding.weight", "embedding.bias"}


def test_layers_that_freeze_do_so_together_and_freeze_other_layers():
    model = Tiny()
    model.second, model.third = Values(), Values()
    model.layer.train_only = lambda: ("output.bias",)
    model.second.train_only = lambda: ("embedding.bias",)
    second = {name.replace("layer", "second") for name in OWN}
    assert trained_names(model) == OWN | second | {"output.bias", "embedding.bias"}


def test_layers_that_share_a_table_ask_for_its_group_together():
    model = Tiny()
    model.second = Values()
    model.second.values = model.layer.values
    groups = optim.parameter_groups(model, OPTIONS)
    assert [group.names for group in groups[1:]] == [("layer.values",)]
    assert "second.query.weight" in groups[0].names


@pytest.mark.parametrize("other", [{"lr": 0.1}, {"touched_rows": True}])
def test_one_parameter_in_two_different_groups_is_an_error(other):
    model = Tiny()
    values = (model.layer.values,)
    model.layer.parameter_groups = lambda: [ParameterGroup(values), ParameterGroup(values, **other)]
    with pytest.raises(TypeError, match="two parameter groups"):
        optim.parameter_groups(model, OPTIONS)


def test_groups_that_overlap_are_an_error():
    model = Tiny()
    values, bias = model.layer.values, model.layer.query.bias
    groups = [ParameterGroup((values,)), ParameterGroup((values, bias))]
    model.layer.parameter_groups = lambda: groups
    with pytest.raises(TypeError, match="two parameter groups"):
        optim.parameter_groups(model, OPTIONS)


def test_touched_rows_reach_the_optimizer():
    model = Tiny()
    group = ParameterGroup((model.layer.values,), touched_rows=True)
    model.layer.parameter_groups = lambda: [group]
    groups = optim.parameter_groups(model, OPTIONS)
    assert [group.touched_rows for group in groups] == [False, True]
    assert [group["touched_rows"] for group in optim.adamw(groups).param_groups] == [False, True]


def updates(gradients, options=OPTIONS):
    """The parameter after updates with these gradients; None for a missing one."""
    parameter = nn.Parameter(torch.tensor([1.0, -2.0]))
    model = nn.Module()
    model.register_parameter("weight", parameter)
    groups = optim.parameter_groups(model, options)
    optimizer = optim.adamw(groups)
    optimizer.start([parameter], 0)
    for n_updates, gradient in enumerate(gradients):
        parameter.grad = None if gradient is None else torch.tensor(gradient)
        optim.set_rates(optimizer, groups, options, options.lr, n_updates)
        optim.update(optimizer, options.clip)
        assert parameter.grad is None
    return parameter.detach()


def by_hand(gradients, options=OPTIONS):
    """Adam with eps before the bias correction, and decoupled decay (docs/semantics.md, 6.2)."""
    weight = torch.tensor([1.0, -2.0], dtype=torch.float64)
    m, v = torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    for t, gradient in enumerate(gradients, 1):
        g = torch.tensor([0.0, 0.0] if gradient is None else gradient, dtype=torch.float64)
        if options.clip:
            g = g * min(1.0, options.clip / float(g.norm()))
        m = options.beta1 * m + (1 - options.beta1) * g
        v = options.beta2 * v + (1 - options.beta2) * g * g
        size = options.lr * math.sqrt(1 - options.beta2**t) / (1 - options.beta1**t)
        weight = weight * (1 - options.lr * options.weight_decay) - size * m / (
            v.sqrt() + options.eps
        )
    return weight.float()


def test_updates_are_those_of_adam_computed_by_hand():
    gradients = [[0.1, -3.0], [0.02, 1.0], [-0.3, 0.001]]
    torch.testing.assert_close(updates(gradients), by_hand(gradients), rtol=1e-6, atol=1e-7)


def test_no_gradient_counts_as_zero():
    gradients = [[0.1, -3.0], None, None]
    torch.testing.assert_close(updates(gradients), by_hand(gradients), rtol=1e-6, atol=1e-7)


def test_clipping_is_by_the_norm():
    options = OptimizerOptions(lr=1e-2, eps=1.0, clip=0.5)
    gradients = [[3.0, -4.0], [0.1, 0.1]]
    torch.testing.assert_close(
        updates(gradients, options), by_hand(gradients, options), rtol=1e-5, atol=1e-7
    )


def test_a_gradient_that_is_not_finite_updates_nothing():
    expected = torch.tensor([1.0, -2.0])
    assert torch.equal(updates([[math.nan, 1.0], [math.inf, 1.0]]), expected)
