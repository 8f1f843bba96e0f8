"""What users write to select components: ``tlm:en-fr@0.5`` and ``pkm:4,7+``, parsed."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from xlm_plugins.core.errors import OptionError

StackName = Literal["encoder", "decoder"]
_POSITION = re.compile(r"(?:(enc|dec)\.)?(\d+)(\+?)")
_STACKS = {"enc": "encoder", "dec": "decoder"}


@dataclass(frozen=True)
class LossWeight:
    """A piecewise-linear weight over iterations: ``0:1,100000:0.1,300000:0``.

    :param points: (iteration, weight) with increasing iterations; constant before and after.
    """

    points: tuple[tuple[int, float], ...] = ((0, 1.0),)

    def at(self, iteration: int) -> float:
        """The weight at an iteration."""
        (left, value), *rest = self.points
        if iteration <= left:
            return value
        for right, target in rest:
            if iteration < right:
                return value + (target - value) * (iteration - left) / (right - left)
            left, value = right, target
        return value


@dataclass(frozen=True)
class ObjectiveSelection:
    """``NAME[:STEPS][@WEIGHT]``, parsed.

    :param steps: as written; empty means all that the data allows.
    """

    text: str
    name: str
    steps: tuple[str, ...] = ()
    weight: LossWeight = LossWeight()

    @classmethod
    def parse(cls, text: str) -> ObjectiveSelection:
        """Parse one ``--objective``.

        :raises OptionError: not of this form.
        """
        match = re.fullmatch(r"([\w./-]+?)(?::([\w,-]+))?(?:@([\d.:,]+))?", text)
        if not match:
            raise OptionError(
                f"--objective {text!r} cannot be read",
                expected="NAME[:STEPS][@WEIGHT], such as tlm, mlm:en,fr or 'ae@0:1,100000:0.1'",
            )
        name, steps, weight = match.groups()
        return cls(text, name, tuple(steps.split(",")) if steps else (), _weight(text, weight))


@dataclass(frozen=True)
class Position:
    """One place in a stack: in layer ``index`` instead of its FFN, or after that layer."""

    stack: str
    index: int
    after: bool

    def __str__(self) -> str:
        return f"{self.stack[:3]}.{self.index}{'+' if self.after else ''}"


@dataclass(frozen=True)
class LayerSelection:
    """``NAME[:POSITIONS]``, parsed; without positions the layer's default is used."""

    text: str
    name: str
    positions: tuple[Position, ...] = ()

    @classmethod
    def parse(cls, text: str) -> LayerSelection:
        """Parse one ``--layer``.

        :raises OptionError: not of this form, or a position twice.
        """
        name, colon, where = text.partition(":")
        if not re.fullmatch(r"[\w./-]+", name) or (colon and not where):
            raise OptionError(
                f"--layer {text!r} cannot be read",
                expected="NAME[:POSITIONS], such as pkm, pkm:2 or pkm:4,7+",
            )
        return cls(text, name, parse_positions(where) if where else ())


def parse_positions(text: str) -> tuple[Position, ...]:
    """Parse ``4,7+,dec.2``: in layer 4, after layer 7, in layer 2 of the decoder.

    :raises OptionError: not of this form, or a position twice.
    """
    positions = []
    for part in text.split(","):
        match = _POSITION.fullmatch(part)
        if not match:
            raise OptionError(
                f"layer position {part!r} cannot be read",
                expected="4 (instead of layer 4's FFN), 4+ (after layer 4), enc.4 or dec.4+",
            )
        stack, index, plus = match.groups()
        positions.append(Position(_STACKS[stack or "enc"], int(index), bool(plus)))
    if len(set(positions)) < len(positions):
        raise OptionError(
            f"layer positions {text!r} contain a place twice", expected="each place once"
        )
    return tuple(positions)


def check_positions(positions: Sequence[Position], stacks: Collection[str], n_layers: int) -> None:
    """Check that a model has all the places at which layers are to be put.

    :param stacks: the model's stacks, each of ``n_layers`` layers.
    :raises OptionError: no such stack or layer, or two layers at one place.
    """
    for position in positions:
        if position.stack not in stacks:
            raise OptionError(
                f"layer position {position}: the model has no {position.stack}",
                expected=f"a position in the {' or '.join(sorted(stacks))}",
            )
        if position.index >= n_layers:
            raise OptionError(
                f"layer position {position}: the {position.stack} has {n_layers} layers",
                expected=f"0 to {n_layers - 1}; layers count from 0",
            )
        if positions.count(position) > 1:
            raise OptionError(
                f"two layers are selected for the same place, {position}",
                expected="one layer per place: in a layer, such as 2, or after it, 2+",
            )


def _weight(text: str, written: str | None) -> LossWeight:
    if written is None:
        return LossWeight()
    try:
        if ":" not in written:
            return LossWeight(((0, float(written)),))
        pairs = (point.split(":") for point in written.split(","))
        points = tuple((int(iteration), float(weight)) for iteration, weight in pairs)
    except ValueError:
        points = ()
    if not points or any(a[0] >= b[0] for a, b in itertools.pairwise(points)):
        raise OptionError(
            f"the weight in --objective {text!r} cannot be read",
            expected="a number, or ITERATION:WEIGHT,... with increasing iterations",
        )
    return LossWeight(points)
