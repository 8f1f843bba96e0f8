"""AdamW over named parameter groups, with the same meaning under both engines.

Two conventions hold everywhere: a parameter that got no gradient counts as having gradient zero
(as in ZeRO), and eps is added to Adam's denominator before bias correction
(docs/semantics.md, 6.2).  `xlm_plugins.training.optim.adamw` defines ``touched_rows``.
"""

from __future__ import annotations

import difflib
import fnmatch
import math
from collections.abc import Collection, Sequence
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
    """Parameters that are optimised alike.

    :param names: of the parameters in the model, in order.
    :param lr: the peak learning rate.
    :param constant: the rate stays at ``lr``, whatever the run's schedule does.
    :param touched_rows: an update leaves rows without a gradient as they are.
    """

    names: tuple[str, ...]
    parameters: tuple[nn.Parameter, ...]
    lr: float
    betas: tuple[float, float]
    weight_decay: float
    constant: bool = False
    touched_rows: bool = False

    def rate(self, run_rate: float, run_peak: float) -> float:
        """The group's rate where the run's schedule says ``run_rate`` of ``run_peak``."""
        return self.lr if self.constant else run_rate * (self.lr / run_peak)


def parameter_groups(
    model: nn.Module, options: OptimizerOptions, train_only: Sequence[str] = ()
) -> list[Group]:
    """Divide the trainable parameters; what `train_only` leaves out is frozen on the spot.

    :param train_only: shell patterns over parameter names; empty trains everything, but where
        a layer wants the others frozen.
    :returns: the run's own group first, then those that layers ask for; none is empty.
    :raises OptionError: a pattern matches no parameter.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}
    if train_only:
        _check_patterns(names.values(), train_only)
        _freeze(names, train_only)
    else:
        _freeze_for_layers(model, names)
    taken: set[nn.Parameter] = set()
    own = []
    for wanted in _asked_for(model):
        if not taken.isdisjoint(wanted.parameters):
            raise TypeError("two parameter groups that differ hold the same parameter")
        taken.update(wanted.parameters)
        own.append(_group(wanted, names, options))
    rest = tuple(parameter for parameter in names if parameter not in taken)
    groups = [_group(ParameterGroup(rest), names, options), *own]
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

    Where the norm is not finite, nothing is updated.

    :param clip: the greatest norm; 0 does not clip.
    :returns: the norm before clipping.
    """
    for group in optimizer.param_groups:
        for parameter in () if group["touched_rows"] else group["params"]:
            if parameter.grad is None:  # counts as zero: its moments and its decay go on
                parameter.grad = torch.zeros_like(parameter)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    total = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    norm = float(total)  # the one place where the host waits for the device
    if math.isfinite(norm):
        optimizer.step(scale=clip / (norm + 1e-6) if 0.0 < clip < norm else 1.0)
    optimizer.zero_grad(set_to_none=True)
    return norm


def _asked_for(model: nn.Module) -> list[ParameterGroup]:
    """What layers and heads ask for; those that share parameters may all ask for the same."""
    asked: list[ParameterGroup] = []
    for module in (m for m in model.modules() if isinstance(m, Layer | Head)):
        for wanted in module.parameter_groups():
            if not any(_same(wanted, other) for other in asked):
                asked.append(wanted)
    return asked


def _same(one: ParameterGroup, other: ParameterGroup) -> bool:
    held = [tuple(map(id, group.parameters)) for group in (one, other)]
    return held[0] == held[1] and replace(one, parameters=()) == replace(other, parameters=())


def _group(
    wanted: ParameterGroup, names: dict[nn.Parameter, str], options: OptimizerOptions
) -> Group:
    trained = tuple(parameter for parameter in wanted.parameters if parameter.requires_grad)
    return Group(
        names=tuple(names[parameter] for parameter in trained),
        parameters=trained,
        lr=options.lr if wanted.lr is None else wanted.lr,
        betas=wanted.betas or (options.beta1, options.beta2),
        weight_decay=options.weight_decay if wanted.weight_decay is None else wanted.weight_decay,
        constant=wanted.schedule == "constant",
        touched_rows=wanted.touched_rows,
    )


def _freeze_for_layers(model: nn.Module, names: dict[nn.Parameter, str]) -> None:
    """Freeze what layers want frozen; their own parameters stay trained."""
    asking = [m for m in model.modules() if isinstance(m, Layer) and m.train_only()]
    if asking:
        kept = [names[parameter] for layer in asking for parameter in layer.parameters()]
        _freeze(names, [*(p for layer in asking for p in layer.train_only()), *kept])


def _check_patterns(names: Collection[str], patterns: Sequence[str]) -> None:
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            close = difflib.get_close_matches(pattern, names, n=3, cutoff=0.3)
            raise OptionError(
                f"--train-only {pattern!r} matches no parameter",
                expected="a shell pattern such as 'encoder.*' over the names of the parameters",
                remedy=f"near it: {', '.join(close)}" if close else "",
            )


def _freeze(names: dict[nn.Parameter, str], patterns: Sequence[str]) -> None:
    """Train what a pattern matches, and nothing else."""
    for parameter, name in names.items():
        matched = any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
        parameter.requires_grad_(matched)
