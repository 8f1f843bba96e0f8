"""Product-key memory: compared with a naive implementation, and its other properties."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor
from xlm_pkm import ProductKeyOptions
from xlm_pkm.gather import weighted_rows
from xlm_pkm.layer import ProductKeyMemory

from xlm_plugins.testing import check_layer

DIM = 16
SMALL = {"heads": 2, "knn": 5, "n_keys": 8, "k_dim": 6}


def memory(**options: object) -> ProductKeyMemory:
    torch.manual_seed(0)
    layer = ProductKeyMemory(ProductKeyOptions(**{**SMALL, **options}), DIM)
    torch.nn.init.normal_(layer.values)
    return layer


VARIANTS: dict[str, dict[str, object]] = {
    "plain": {},
    "one slot a head": {"knn": 1},
    "every sub-key": {"knn": 8},
    "flat": {"flat": True, "k_dim": 5},
    "shared keys": {"share_keys": True, "keys_init": "gaussian"},
    "flat, shared keys": {"flat": True, "share_keys": True},
    "hidden": {"query_hidden": (7, 9)},
    "normalised query": {"normalize_query": True},
    "qk norm": {"qk_norm": True},
    "flat qk norm": {"flat": True, "qk_norm": True},
    "cold": {"temperature": 0.3},
    "shares": {"score_norm": "sum", "score_subtract": "min"},
    "above the mean": {"score_norm": "none", "score_subtract": "mean"},
    "above the median": {"score_norm": "none", "score_subtract": "median"},
    "bare scores": {"score_norm": "none"},
    "shuffled": {"shuffle_slots": True},
    "folded": {"shuffle_slots": True, "modulo_size": 11},
    "gated": {"gate": True},
}
"""The options of each variant, by name."""


def naive(layer: ProductKeyMemory, x: Tensor) -> Tensor:
    """The definition: score every slot by its whole key, for each head."""
    options, out = layer.options, torch.zeros_like(x)
    queries = layer.query_norm(layer.query(layer.query_hidden(x)))
    for head, query in enumerate(queries.split(options.k_dim, dim=1)):
        if options.flat:
            keys = layer.keys if options.share_keys else layer.keys[head]
            scores = scored(layer, query, keys)
        else:
            first, second = [layer.keys] * 2 if options.share_keys else layer.keys[head]
            left, right = query.chunk(2, dim=1)
            sums = scored(layer, left, first)[:, :, None] + scored(layer, right, second)[:, None]
            scores = sums.flatten(1)  # (n_tokens, n_slots)
        best, slots = scores.topk(options.knn)
        if options.shuffle_slots:
            slots = layer.head_permutations[head][slots]
        rows = layer.values[slots % (options.modulo_size or options.n_slots)]
        out = out + torch.einsum("tk,tkd->td", weighed(options, best), rows)
    if options.gate:
        gate = x @ layer.gate.weight.T
        out = (out * gate * gate.sigmoid()) @ layer.output.weight.T
    return out


def scored(layer: ProductKeyMemory, query: Tensor, keys: Tensor) -> Tensor:
    if layer.options.normalize_query:
        query = query / query.norm(dim=-1, keepdim=True)
    if layer.options.qk_norm:
        query, keys = (
            gain * part / (part.square().mean(-1, keepdim=True) + 1e-6).sqrt()
            for gain, part in ((layer.query_gain, query), (layer.key_gain, keys))
        )
        return query @ keys.T / query.shape[-1] ** 0.5
    return query @ keys.T


def weighed(options: ProductKeyOptions, best: Tensor) -> Tensor:
    if options.score_norm == "softmax":
        return (best / options.temperature).softmax(-1)
    if options.score_subtract is not None:
        middle = best.sort(dim=-1).values[:, (options.knn - 1) // 2 :][:, :1]
        best = (
            best
            - {
                "min": best[:, -1:],
                "mean": best.mean(-1, keepdim=True),
                "median": middle,
            }[options.score_subtract]
        )
    return best / best.sum(-1, keepdim=True) if options.score_norm == "sum" else best


@pytest.mark.parametrize("variant", VARIANTS)
def test_outputs_and_gradients_are_those_of_the_definition(variant: str) -> None:
    layer = memory(query_batchnorm=False, **VARIANTS[variant]).double()
    for name, gain in layer.named_parameters():
        if name.endswith("gain"):
            torch.nn.init.uniform_(gain, 0.5, 2.0)
    x = torch.randn(13, DIM, dtype=torch.float64, requires_grad=True)
    seen = torch.randn(13, DIM, dtype=torch.float64)
    inputs = (x, *layer.parameters())
    expected, given = naive(layer, x), layer(x)
    torch.testing.assert_close(given, expected)
    for ours, theirs in zip(
        torch.autograd.grad(given, inputs, seen),
        torch.autograd.grad(expected, inputs, seen),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_gradients_of_the_weighted_sum_are_exact() -> None:
    torch.manual_seed(0)
    values = torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(5, 6, dtype=torch.float64, requires_grad=True)
    slots = torch.randint(7, (5, 6))  # some twice in a row, the last two never
    assert torch.autograd.gradcheck(lambda v, w: weighted_rows(v, slots, w), (values, weights))


def test_pruned_search_finds_the_best_sums_at_full_size() -> None:
    layer = memory(heads=1, knn=32, n_keys=40, query_batchnorm=False)
    queries = torch.randn(50, 1, 2, 3)
    scores, slots = layer.search(queries)
    halves = torch.einsum("thsd,hskd->thsk", queries, layer.keys)
    sums = (halves[:, :, 0, :, None] + halves[:, :, 1, None, :]).flatten(2)
    torch.testing.assert_close(scores, sums.topk(32).values)
    torch.testing.assert_close(sums.gather(-1, slots), scores)
    assert layer.pairs.shape == (2, 119)


def test_in_evaluation_tokens_do_not_affect_each_other() -> None:
    layer = memory()
    for _ in range(3):
        layer(torch.randn(40, DIM))
    layer.eval()
    x = torch.randn(10, DIM)
    together = layer(x)
    torch.testing.assert_close(torch.cat([layer(row[None]) for row in x]), together)


@pytest.mark.parametrize("training", [True, False])
def test_fp16_weights_with_fp32_statistics_make_the_same_queries(training: bool) -> None:
    """As in DeepSpeed, which casts parameters but not buffers."""
    layer, x = memory().train(training), torch.randn(50, DIM)
    expected = layer.queries(x)
    for parameter in layer.parameters():
        parameter.data = parameter.data.half()
    found = layer.queries(x.half())
    torch.testing.assert_close(found, expected.half(), atol=0.02, rtol=0.0)


def test_batchnorm_uses_the_batch_in_training_only() -> None:
    layer = memory()
    before = layer.query_norm.running_mean.clone()
    x = torch.randn(40, DIM) + 3
    first = layer(x)
    assert not torch.equal(layer.query_norm.running_mean, before)
    kept = layer.query_norm.running_mean.clone()
    assert not torch.allclose(layer.eval()(x), first)
    assert torch.equal(layer.query_norm.running_mean, kept)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("batchnorm", [False, True])
@pytest.mark.parametrize("n_tokens", [0, 1])
def test_very_few_tokens_work(variant: str, batchnorm: bool, n_tokens: int) -> None:
    layer = memory(query_batchnorm=batchnorm, **VARIANTS[variant])
    out = layer(torch.randn(n_tokens, DIM))
    out.sum().backward()
    assert out.shape == (n_tokens, DIM)
    assert layer.values.grad.isfinite().all()


def test_equal_scores_minus_their_minimum_are_zero() -> None:
    layer = memory(query_batchnorm=False, score_norm="sum", score_subtract="min")
    torch.nn.init.zeros_(layer.keys)
    out = layer(torch.randn(3, DIM))
    out.sum().backward()
    assert torch.equal(out, torch.zeros(3, DIM))
    assert layer.query.weight.grad.isfinite().all()


def test_values_have_their_own_parameter_group() -> None:
    layer = memory(value_lr=0.5)
    (group,) = layer.parameter_groups()
    assert group.parameters == (layer.values,)
    assert (group.lr, group.schedule, group.weight_decay) == (0.5, "constant", 0.0)
    assert group.betas is None
    assert not group.touched_rows


def test_values_can_follow_the_run_and_leave_unread_rows_alone() -> None:
    (group,) = memory(value_schedule="run", sparse_update=True).parameter_groups()
    assert (group.lr, group.schedule, group.weight_decay) == (1e-3, None, 0.0)
    assert group.touched_rows


def test_without_sharing_each_position_has_its_own_memory() -> None:
    first, second = ProductKeyMemory.build(ProductKeyOptions(**SMALL), DIM, 2)
    assert not {*first.parameters()} & {*second.parameters()}
    assert [len(layer.parameter_groups()) for layer in (first, second)] == [1, 1]


def test_a_shared_table_is_one_parameter_in_one_group() -> None:
    options = ProductKeyOptions(**SMALL, share_values=True)
    layers = ProductKeyMemory.build(options, DIM, 3)
    assert len({layer.values for layer in layers}) == 1
    assert len({layer.keys for layer in layers}) == len({layer.query for layer in layers}) == 3
    groups = [group for layer in layers for group in layer.parameter_groups()]
    assert [group.parameters for group in groups] == [(layers[0].values,)]


def test_gradients_of_a_shared_table_add_up() -> None:
    shared = ProductKeyMemory.build(ProductKeyOptions(**SMALL, share_values=True), DIM, 3)
    alone = [copy.deepcopy(layer) for layer in shared]
    inputs = torch.randn(3, 12, DIM)
    for layers in (shared, alone):
        outputs = [layer(x) for layer, x in zip(layers, inputs, strict=True)]
        sum(out.square().sum() for out in outputs).backward()
    total = sum(layer.values.grad for layer in alone)
    torch.testing.assert_close(shared[0].values.grad, total)


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_can_start_at_zero_and_learn(variant: str) -> None:
    layer = memory(**VARIANTS[variant])
    layer.begin_at_zero()
    x = torch.randn(12, DIM)
    out = layer(x)
    assert torch.equal(out, torch.zeros(12, DIM))
    (out - x).square().sum().backward()
    assert layer.values.grad.abs().sum() > 0
    with torch.no_grad():
        layer.values -= 0.01 * layer.values.grad
    assert (layer(x) - x).square().sum() < x.square().sum()


def test_statistics_count_reads_in_evaluation_only() -> None:
    layer = memory(query_batchnorm=False)
    x = torch.randn(30, DIM)
    layer(x)
    assert layer.statistics()["reads"].sum() == 0
    assert layer.metrics(layer.statistics()) == {}
    layer.eval()
    with torch.inference_mode():
        layer(x)
    with torch.no_grad():
        layer(x[:20])
    counted = layer.statistics()
    _, slots = layer.search(layer.query(x).view(30, 2, 2, -1))
    expected = torch.bincount(torch.cat([slots, slots[:20]]).flatten(), minlength=64).double()
    torch.testing.assert_close(counted["reads"], expected)
    assert counted["weights"].sum().item() == pytest.approx(50 * 2)  # 1 per token and head
    assert layer.metrics(counted)["usage"] == pytest.approx(100 * (expected > 0).double().mean())
    layer.reset_statistics()
    assert layer.statistics()["weights"].sum() == 0


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_read_is_counted_in_the_row_that_it_reads(variant: str) -> None:
    layer = memory(query_batchnorm=False, **VARIANTS[variant]).eval()
    x = torch.randn(9, DIM)
    layer(x)
    scores, slots = layer.search(layer.queries(x))
    assert slots.max() < layer.options.n_slots == len(layer.values)
    expected = torch.zeros(len(layer.values), dtype=torch.float64)
    weights = expected.clone()
    for slot, weight in zip(slots.flatten(), layer.weigh(scores).flatten(), strict=True):
        expected[slot] += 1
        weights[slot] += weight.abs().double()
    counted = layer.statistics()
    assert torch.equal(counted["reads"], expected)
    torch.testing.assert_close(counted["weights"], weights)
    assert all(math.isfinite(value) for value in layer.metrics(counted).values())


def test_metrics_distinguish_even_from_uneven_use() -> None:
    layer = memory()
    even = torch.ones(64, dtype=torch.float64)
    one = torch.zeros(64, dtype=torch.float64)
    one[3] = 7.0
    metrics = layer.metrics({"reads": even, "weights": one})
    assert metrics == {
        "usage": 100.0,
        "kl": pytest.approx(0.0, abs=1e-12),
        "kl_weighted": pytest.approx(math.log(64)),
    }


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("how", ["autocast", "cast"])
@pytest.mark.parametrize("variant", ["plain", "flat qk norm", "hidden", "folded", "gated"])
def test_half_precision_trains(dtype: torch.dtype, how: str, variant: str) -> None:
    layer, x = memory(**VARIANTS[variant]), torch.randn(20, DIM)
    expected = layer(x)
    if how == "autocast":
        with torch.autocast("cpu", dtype):
            out = layer(x)
    else:
        out = layer.to(dtype)(x.to(dtype))
    assert out.dtype == (dtype if how == "cast" else torch.float32)
    assert (out.float() - expected).abs().mean() < 0.1 * expected.abs().mean()
    out.float().square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0 or name == "query.bias", name


@pytest.mark.parametrize("how", ["autocast", "cast"])
def test_scores_are_in_single_precision_for_any_queries(how: str) -> None:
    layer, x = memory(query_batchnorm=False), torch.randn(50, DIM)
    if how == "cast":
        layer, x = layer.bfloat16(), x.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        out, queries = layer(x), layer.queries(x)
    assert queries.dtype == torch.bfloat16
    single = copy.deepcopy(layer).float()
    scores, slots = single.search(queries.float())
    rows = single.values[slots.flatten(1)]
    expected = torch.einsum("tk,tkd->td", scores.softmax(-1).flatten(1), rows)
    tolerance = 1e-5 if how == "autocast" else 0.02  # a cast layer's sums are in half precision
    torch.testing.assert_close(out.float(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("which", ["input_dropout", "query_dropout", "value_dropout"])
def test_dropout_applies_in_training_only(which: str) -> None:
    layer, x = memory(query_batchnorm=False, **{which: 0.5}), torch.randn(20, DIM)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


def test_it_starts_as_the_paper_says() -> None:
    torch.manual_seed(0)
    layer = ProductKeyMemory(ProductKeyOptions(), 64)
    assert layer.values.shape == (128**2, 64)
    assert layer.values.std().item() == pytest.approx(64**-0.5, rel=0.01)
    bound = 128**-0.5
    assert bound * 0.999 < layer.keys.abs().max().item() <= bound
    gaussian = ProductKeyMemory(ProductKeyOptions(keys_init="gaussian"), 64)
    assert gaussian.keys.std().item() == pytest.approx(1.0, rel=0.01)


def test_heads_have_their_own_orders_which_are_saved() -> None:
    layer = memory(shuffle_slots=True)
    orders = layer.state_dict()["head_permutations"]
    assert orders.dtype == torch.int64
    assert torch.equal(orders.sort().values, torch.arange(64).expand(2, 64))
    assert not torch.equal(orders[0], orders[1])


def test_names_of_weights() -> None:
    assert set(memory(query_batchnorm=False).state_dict()) == {
        "keys", "values", "query.weight", "query.bias"
    }  # fmt: skip
    more = memory(query_hidden=(7,), qk_norm=True, gate=True).state_dict()
    assert {name.split(".")[0] for name in more} == {
        "keys", "values", "query_hidden", "query", "query_norm", "query_gain", "key_gain",
        "gate", "output",
    }  # fmt: skip


def test_a_memory_learns_from_its_input() -> None:
    layer = memory()
    x, wanted = torch.randn(32, DIM), torch.randn(32, DIM)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    losses = []
    for _ in range(60):
        loss = (layer(x) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


def test_a_flat_memory_may_have_keys_of_odd_width() -> None:
    layer = memory(flat=True, k_dim=7, n_keys=12, modulo_size=10)
    assert layer.keys.shape == (2, 12, 7)
    assert layer.values.shape == (10, DIM)


@pytest.mark.parametrize(
    "options",
    [{}, {"share_values": True, "gate": True, "qk_norm": True}, VARIANTS["flat"]],
    ids=["plain", "shared", "flat"],
)
def test_it_keeps_the_contract_of_layers(options: dict[str, object]) -> None:
    check_layer("pkm", **{**SMALL, **options})
