"""AdamW over named parameter groups, with the same semantics in both engines.

Two conventions hold everywhere: a parameter without a gradient counts as having gradient zero
(as in ZeRO), and eps is added to Adam's denominator before bias correction
(docs/semantics.md, 6.2).  `xlm_plugins.training.optim.adamw` defines ``touched_rows``.
"""

from __future__ import annotations

import difflib
import fnmatch
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from xlm_plugins.config.training import OptimizerOptions
from xlm_plugins.contracts.layer import Layer, ParameterGroup
from xlm_plugins.core.errors import OptionError
from xlm_plugins.model.classifier import Head
from xlm_plugins.training.optim.adamw import AdamW


@dataclass(frozen=True)
class Group:
    """Parameters with the same optimizer settings.

    :param names: of the parameters in the model, in order.
    :param lr: peak learning rate.
    :param constant: the rate stays at ``lr``, whatever the run's schedule.
    :param touched_rows: updates leave rows without a gradient unchanged.
    """

    names: tuple[str, ...]
    parameters: tuple[nn.Parameter, ...]
    lr: float
    betas: tuple[float, float]
    weight_decay: float
    constant: bool = False
    touched_rows: bool = False

    def rate(self, run_rate: float, run_peak: float) -> float:
        """The group's rate when the run's is ``run_rate``, with a peak of ``run_peak``."""
        return self.lr if self.constant else run_rate * (self.lr / run_peak)


def selected_parameters(
    model: nn.Module, train_only: Sequence[str] = ()
) -> dict[str, nn.Parameter]:
    """The parameters to train, by name; the model is left unchanged.

    :param train_only: shell patterns over parameter names.  If empty, layers may select
        (`Layer.train_only`); otherwise everything that requires a gradient is trained.
    :raises OptionError: a pattern matches no parameter.
    """
    named = dict(model.named_parameters())
    if train_only:
        _check_patterns(named, train_only)
        return _matching(named, train_only)
    selecting = [m for m in model.modules() if isinstance(m, Layer) and m.train_only()]
    if not selecting:
        return {name: parameter for name, parameter in named.items() if parameter.requires_grad}
    own = {parameter for layer in selecting for parameter in layer.parameters()}
    matching = _matching(named, [p for layer in selecting for p in layer.train_only()])
    return {n: parameter for n, parameter in named.items() if n in matching or parameter in own}


def freeze_others(model: nn.Module, trained: Collection[str]) -> None:
    """Require gradients for the parameters with these names, and for no others."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)


def parameter_groups(
    model: nn.Module, options: OptimizerOptions, train_only: Sequence[str] = ()
) -> list[Group]:
    """Divide the `selected_parameters` into groups; the model is left unchanged.

    :returns: the run's own group first, then those that layers ask for; none is empty.
    :raises OptionError: a pattern matches no parameter.
    """
    trained = selected_parameters(model, train_only)
    names = {parameter: name for name, parameter in model.named_parameters()}
    taken: set[nn.Parameter] = set()
    requested = _requested_groups(model)
    for group in requested:
        if not taken.isdisjoint(group.parameters):
            raise TypeError("two parameter groups that differ hold the same parameter")
        taken.update(group.parameters)
    rest = ParameterGroup(tuple(parameter for parameter in names if parameter not in taken))
    groups = [_group(group, names, trained, options) for group in (rest, *requested)]
    return [group for group in groups if group.parameters]


def trained_parameters(groups: Sequence[Group]) -> dict[str, nn.Parameter]:
    """All parameters of the groups by name, in the groups' order."""
    return {
        name: parameter
        for group in groups
        for name, parameter in zip(group.names, group.parameters, strict=True)
    }


def adamw(groups: Sequence[Group]) -> AdamW:
    """The optimizer of the groups, in their order."""
    return AdamW(
        [
            {
                "params": list(group.parameters),
                "lr": group.lr,
                "betas": group.betas,
                "weight_decay": group.weight_decay,
                "touched_rows": group.touched_rows,
            }
            for group in groups
        ]
    )


def set_rates(
    optimizer: torch.optim.Optimizer,
    groups: Sequence[Group],
    options: OptimizerOptions,
    run_rate: float,
    n_updates: int,
) -> None:
    """Set each group's rate and eps for the next update.

    torch adds eps after the bias correction of the second moment; dividing it by that
    correction is the same as adding it before.

    :param n_updates: updates made so far.
    """
    for group, settings in zip(groups, optimizer.param_groups, strict=True):
        settings["lr"] = group.rate(run_rate, options.lr)
        settings["eps"] = options.eps / (1.0 - group.betas[1] ** (n_updates + 1)) ** 0.5


def update(optimizer: AdamW, clip: float) -> float:
    """Clip by one norm over everything, update, and clear the gradients.

    If the norm is not finite, nothing is updated.

    :param clip: maximum norm; 0 does not clip.
    :returns: the norm before clipping.
    """
    for group in optimizer.param_groups:
        for parameter in () if group["touched_rows"] else group["params"]:
            if parameter.grad is None:  # counts as zero: moments and weights still decay
                parameter.grad = torch.zeros_like(parameter)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    total = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    norm = float(total)  # the only place where the host waits for the device
    if math.isfinite(norm):
        optimizer.step(scale=clip / (norm + 1e-6) if 0.0 < clip < norm else 1.0)
    optimizer.zero_grad(set_to_none=True)
    return norm


def _requested_groups(model: nn.Module) -> list[ParameterGroup]:
    """The groups that layers and heads ask for; layers that share parameters may ask twice."""
    requested: list[ParameterGroup] = []
    for module in (m for m in model.modules() if isinstance(m, Layer | Head)):
        for group in module.parameter_groups():
            if not any(_same(group, other) for other in requested):
                requested.append(group)
    return requested


def _same(one: ParameterGroup, other: ParameterGroup) -> bool:
    held = [tuple(map(id, group.parameters)) for group in (one, other)]
    return held[0] == held[1] and replace(one, parameters=()) == replace(other, parameters=())


def _group(
    requested: ParameterGroup,
    names: Mapping[nn.Parameter, str],
    trained: Collection[str],
    options: OptimizerOptions,
) -> Group:
    decay = requested.weight_decay
    parameters = tuple(p for p in requested.parameters if names[p] in trained)
    return Group(
        names=tuple(names[parameter] for parameter in parameters),
        parameters=parameters,
        lr=options.lr if requested.lr is None else requested.lr,
        betas=requested.betas or (options.beta1, options.beta2),
        weight_decay=options.weight_decay if decay is None else decay,
        constant=requested.schedule == "constant",
        touched_rows=requested.touched_rows,
    )


def _check_patterns(names: Collection[str], patterns: Sequence[str]) -> None:
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            close = difflib.get_close_matches(pattern, names, n=3, cutoff=0.3)
            raise OptionError(
                f"--train-only {pattern!r} matches no parameter",
                expected="a shell pattern over parameter names, such as 'encoder.*'",
                remedy=f"similar: {', '.join(close)}" if close else "",
            )


def _matching(
    named: Mapping[str, nn.Parameter], patterns: Sequence[str]
) -> dict[str, nn.Parameter]:
    return {
        name: parameter
        for name, parameter in named.items()
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    }
