"""Touched rows: lazy Adam as adamw.py defines it, against a loop over rows."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from xlm_plugins.config.training import OptimizerOptions
from xlm_plugins.contracts.layer import Layer, ParameterGroup
from xlm_plugins.training.optim import adamw
from xlm_plugins.training.optim import parameter_groups as optim
from xlm_plugins.training.optim.adamw import MOMENTS, AdamW, Piece

OPTIONS = OptimizerOptions(lr=1e-2, weight_decay=0.1, eps=1e-3, clip=0.0)
SHAPES = [(12, 8), (11, 7), (9,), (5, 2, 4), (1, 3), ()]


class Table(Layer):
    def __init__(self, values, touched_rows):
        super().__init__(None, 4)
        self.values = nn.Parameter(values)
        self.touched_rows = touched_rows

    def parameter_groups(self):
        return [ParameterGroup((self.values,), touched_rows=self.touched_rows)]


class Run:
    """Updates a table and an ordinary parameter, as an engine does."""

    def __init__(self, values, touched_rows=True, options=OPTIONS):
        self.model = nn.ModuleDict({"table": Table(values.clone(), touched_rows)})
        self.model.register_parameter("other", nn.Parameter(torch.ones(2)))
        self.options = options
        self.groups = optim.parameter_groups(self.model, options)
        self.optimizer = optim.adamw(self.groups)
        self.optimizer.start(self.model.parameters(), 0)
        self.n_updates = 0

    def update(self, gradient, other=None):
        values = self.model["table"].values
        values.grad = None if gradient is None else gradient.clone()
        self.model.other.grad = other
        optim.set_rates(self.optimizer, self.groups, self.options, self.options.lr, self.n_updates)
        norm = optim.update(self.optimizer, self.options.clip)
        self.n_updates += math.isfinite(norm)

    @property
    def end(self):
        """Weights and moments."""
        values = self.model["table"].values
        state = self.optimizer.state[values]
        return [values.detach().clone(), *(state[key].clone() for key in MOMENTS)]


def random_gradients(shape, share=0.4, zeros=0.2, n_updates=6):
    """Gradients with a share of nonzero rows, which contain some zeros as well."""
    generator = torch.Generator().manual_seed(0)
    for update in range(n_updates):
        rows = shape[:1] + (1,) * (len(shape) - 1)
        touched = torch.rand(rows, generator=generator) < (1.0 if update == 0 else share)
        kept = torch.rand(shape, generator=generator) >= zeros
        yield torch.randn(shape, generator=generator) * touched * kept


def by_rows(values, gradients, options=OPTIONS):
    """The definition, row by row in float64 (docs/semantics.md, 6.2 and 6.3)."""
    rows = values.double().reshape(len(values) if values.dim() else 1, -1).clone()
    first, second = torch.zeros_like(rows), torch.zeros_like(rows)
    for t, gradient in enumerate(gradients, 1):
        size = options.lr * math.sqrt(1 - options.beta2**t) / (1 - options.beta1**t)
        of_rows = gradient.double().reshape(rows.shape)
        for row, g, m, v in zip(rows, of_rows, first, second, strict=True):
            if any(element != 0.0 for element in g.tolist()):
                m.mul_(options.beta1).add_((1 - options.beta1) * g)
                v.mul_(options.beta2).add_((1 - options.beta2) * g * g)
                row.mul_(1 - options.lr * options.weight_decay)
                row.sub_(size * m / (v.sqrt() + options.eps))
    return [tensor.float().reshape(values.shape) for tensor in (rows, first, second)]


def assert_close(found, expected):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.fixture(params=[2**21, 400], ids=["one chunk", "many chunks"])
def chunks(request, monkeypatch):
    monkeypatch.setattr(adamw, "CPU_CHUNK", request.param)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.8, 1.0])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_updates_are_those_of_the_definition(chunks, shape, share):
    """Few rows (gathered) and many (the others restored), of every shape."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    gradients = list(random_gradients(shape, share=share))
    run = Run(values)
    for gradient in gradients:
        run.update(gradient)
    assert_close(run.end, by_rows(values, gradients))


@pytest.mark.parametrize("share", [0.2, 0.8])
def test_untouched_rows_stay_bit_for_bit(chunks, share):
    run = Run(torch.randn(40, 8))
    for gradient in random_gradients((40, 8), share=share):
        before = run.end
        run.update(gradient)
        touched = gradient.ne(0).any(1)
        for old, new in zip(before, run.end, strict=True):
            assert torch.equal(old[~touched], new[~touched])
            assert old[touched].ne(new[touched]).any(1).all()


def test_where_all_rows_are_touched_it_is_the_ordinary_update(chunks):
    values = torch.randn(40, 8)
    touched, ordinary = Run(values), Run(values, touched_rows=False)
    for gradient in random_gradients((40, 8), share=1.0):
        touched.update(gradient)
        ordinary.update(gradient)
    for one, other in zip(touched.end, ordinary.end, strict=True):
        assert torch.equal(one, other)


def test_the_rows_of_a_transposed_parameter_are_its_own(chunks):
    values = torch.randn(8, 12).t()
    gradients = list(random_gradients((12, 8), share=0.8))
    run = Run(values)
    assert not run.model["table"].values.is_contiguous()
    for gradient in gradients:
        run.update(gradient)
    assert_close(run.end, by_rows(values, gradients))


def test_tiny_gradients_touch_a_row_and_minus_zero_does_not():
    """The square of the former is zero; the bits of the latter are not."""
    run = Run(torch.ones(3, 4))
    run.update(torch.tensor([[0, 0, 1e-30, 0], [0, -1e-30, 0, 0], [-0.0] * 4]))
    values, _, _ = run.end
    assert (values != 1.0).any(1).tolist() == [True, True, False]


@pytest.mark.parametrize("share", [0.2, 0.8])
def test_rows_are_clipped_by_the_norm_of_everything(chunks, share):
    values, other = torch.randn(12, 8), torch.tensor([3.0, 4.0])
    gradients = list(random_gradients((12, 8), share=share))
    run = Run(values, options=replace(OPTIONS, clip=0.5))
    for gradient in gradients:
        run.update(gradient, other.clone())
    clipped = [gradient * 0.5 / math.hypot(5.0, gradient.norm()) for gradient in gradients]
    assert_close(run.end, by_rows(values, clipped))


def test_a_skipped_update_leaves_rows_and_the_count():
    gradients = list(random_gradients((12, 8)))
    skipping, plain = Run(torch.ones(12, 8)), Run(torch.ones(12, 8))
    for gradient in gradients:
        plain.update(gradient)
        skipping.update(gradient)
        before = skipping.end
        skipping.update(gradient, other=torch.tensor([math.nan, 0.0]))
        assert all(map(torch.equal, skipping.end, before))
    assert all(map(torch.equal, skipping.end, plain.end))


def test_updates_without_a_gradient_change_nothing_but_count():
    """The next update's bias correction counts all updates of the run."""
    gradients = list(random_gradients((12, 8)))
    zero = torch.zeros(12, 8)
    absent, zeros = Run(torch.ones(12, 8)), Run(torch.ones(12, 8))
    for gradient in gradients:
        for run, nothing in ((absent, None), (zeros, zero)):
            run.update(gradient)
            before = run.end
            run.update(nothing)
            assert all(map(torch.equal, run.end, before))
    assert all(map(torch.equal, absent.end, zeros.end))
    spaced = [g for gradient in gradients for g in (gradient, zero)]
    assert_close(absent.end, by_rows(torch.ones(12, 8), spaced))


def test_other_groups_are_updated_as_usual():
    run = Run(torch.ones(3, 4))
    run.update(torch.zeros(3, 4), other=torch.tensor([1.0, 0.0]))
    run.update(None, other=None)
    assert (run.model.other.detach() < 1.0).all()  # moved, or decayed
    assert torch.equal(run.end[0], torch.ones(3, 4))


@pytest.mark.parametrize("cut", range(16))
def test_pieces_cover_rows_wherever_a_parameter_is_split(cut):
    """A (5, 3) parameter in two flat tensors, after two elements of something else."""
    whole = torch.arange(15)
    parts = [
        (Piece(2, cut, 0, 3), torch.cat([torch.tensor([-1, -1]), whole[:cut]])),
        (Piece(0, 15 - cut, cut, 3), whole[cut:]),
    ]
    found = [row.tolist() for piece, flat in parts for b in piece.blocks(flat) for row in b]
    assert list(itertools.chain(*found)) == whole.tolist()
    assert all(len({element // 3 for element in row}) == 1 for row in found)
    assert len(found) == 5 + (cut % 3 > 0)


def test_a_piece_within_a_row_is_one_part_of_it():
    assert [b.tolist() for b in Piece(1, 2, 4, 9).blocks(torch.arange(5))] == [[[1, 2]]]


def test_the_parts_of_a_split_row_are_updated_separately():
    part = nn.Parameter(torch.ones(3))
    part.grad = torch.tensor([0.0, 0.0, 1.0])
    group = {"params": [part], "lr": 1e-2, "touched_rows": True}
    optimizer = AdamW([group])
    optimizer.start([part], 0)
    optimizer.pieces[part] = [Piece(0, 3, 2, 4)]  # the second half of row 0, the first of row 1
    optimizer.step()
    assert part.detach().ne(1.0).tolist() == [False, False, True]


@pytest.mark.parametrize("cut", [0, 1, 33, 40, 60, 77, 82, 88])
def test_flat_partitions_are_updated_like_the_parameters_in_them(cut):
    """Two parameters of different row length in one flat tensor, split as if over two ranks."""
    shapes = [(11, 7), (11,)]
    starts = [torch.randn(shape, generator=torch.Generator().manual_seed(2)) for shape in shapes]
    gradients = [list(random_gradients(shape, zeros=0.0)) for shape in shapes]
    expected = [by_rows(*pair)[0] for pair in zip(starts, gradients, strict=True)]
    flat = torch.cat([start.flatten() for start in starts])
    parts = [nn.Parameter(part.clone()) for part in (flat[:cut], flat[cut:]) if part.numel()]
    group = {"params": parts, "lr": OPTIONS.lr, "betas": (0.9, 0.98), "touched_rows": True}
    optimizer = AdamW([{**group, "weight_decay": OPTIONS.weight_decay}])
    optimizer.start(parts, 0)
    begin = 0
    for part in parts:
        for at, n, row in ((0, 77, 7), (77, 11, 1)):
            low, high = max(at, begin), min(at + n, begin + len(part))
            if low < high:
                piece = Piece(low - begin, high - low, low - at, row)
                optimizer.pieces.setdefault(part, []).append(piece)
        begin += len(part)
    for t, gradient in enumerate(zip(*gradients, strict=True), 1):
        whole = torch.cat([one.flatten() for one in gradient])
        for part, own in zip(parts, whole.split([len(part) for part in parts]), strict=True):
            part.grad = own
        optimizer.param_groups[0]["eps"] = OPTIONS.eps / math.sqrt(1 - 0.98**t)
        optimizer.step()
    found = torch.cat([part.detach() for part in parts])
    torch.testing.assert_close(
        found, torch.cat([one.flatten() for one in expected]), rtol=1e-5, atol=1e-6
    )
