"""Product-key memory: against golden values, a naive implementation, and its own promises."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from xlm_pkm import ProductKeyOptions, xlm_layers
from xlm_pkm.gather import weighted_rows
from xlm_pkm.layer import ProductKeyMemory

from xlm_plugins import OptionError

DIM = 16
SMALL = {"heads": 2, "knn": 5, "n_keys": 8, "k_dim": 6}


def memory(**options: object) -> ProductKeyMemory:
    torch.manual_seed(0)
    layer = ProductKeyMemory(ProductKeyOptions(**{**SMALL, **options}), DIM)
    torch.nn.init.normal_(layer.values)
    return layer


def naive(layer: ProductKeyMemory, x: Tensor) -> Tensor:
    """The definition: score every slot by its whole key, head by head."""
    options, out = layer.options, torch.zeros_like(x)
    queries = layer.query(x).view(len(x), options.heads, 2, -1)
    for head in range(options.heads):
        first = queries[:, head, 0] @ layer.keys[head, 0].T
        second = queries[:, head, 1] @ layer.keys[head, 1].T
        scores = (first[:, :, None] + second[:, None, :]).flatten(1)  # (n_tokens, n_slots)
        best, slots = scores.topk(options.knn)
        out = out + torch.einsum("tk,tkd->td", best.softmax(-1), layer.values[slots])
    return out


@pytest.mark.parametrize("case", ["default", "pq_default"])
def test_it_computes_what_the_reference_computes(shared: Path, case: str) -> None:
    golden = torch.load(shared / "golden" / "pkm.pt", weights_only=True)[case]
    params, weights = golden["params"], golden["state_dict"]
    options = ProductKeyOptions(
        heads=params["mem_heads"],
        knn=params["mem_knn"],
        n_keys=params["mem_n_keys"],
        k_dim=params["mem_k_dim"],
        query_batchnorm=params["mem_query_batchnorm"],
    )
    layer = ProductKeyMemory(options, params["emb_dim"]).eval()
    layer.load_state_dict(
        {
            "keys": weights["keys"],
            "values": weights["values.weight"],
            "query.weight": weights["query_proj.query_mlps.0.weight"],
            "query.bias": weights["query_proj.query_mlps.0.bias"],
        }
    )
    x = golden["x"].flatten(0, 1)
    scores, slots = layer.search(layer.query(x).view(len(x), options.heads, 2, -1))
    torch.testing.assert_close(slots, golden["used_indices"])
    torch.testing.assert_close(scores.softmax(-1), golden["used_scores"], atol=1e-5, rtol=0)
    torch.testing.assert_close(layer(x), golden["output"].flatten(0, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("knn", [1, 5, 8])
def test_outputs_and_gradients_are_those_of_the_definition(knn: int) -> None:
    layer = memory(knn=knn, query_batchnorm=False).double()
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


def test_in_evaluation_tokens_do_not_see_each_other() -> None:
    layer = memory()
    for _ in range(3):
        layer(torch.randn(40, DIM))
    layer.eval()
    x = torch.randn(10, DIM)
    together = layer(x)
    torch.testing.assert_close(torch.cat([layer(row[None]) for row in x]), together)


def test_batchnorm_sees_the_batch_while_training_only() -> None:
    layer = memory()
    before = layer.query_norm.running_mean.clone()
    x = torch.randn(40, DIM) + 3
    first = layer(x)
    assert not torch.equal(layer.query_norm.running_mean, before)
    kept = layer.query_norm.running_mean.clone()
    assert not torch.allclose(layer.eval()(x), first)
    assert torch.equal(layer.query_norm.running_mean, kept)


@pytest.mark.parametrize("batchnorm", [False, True])
@pytest.mark.parametrize("n_tokens", [0, 1])
def test_hardly_any_token_is_no_trouble(batchnorm: bool, n_tokens: int) -> None:
    layer = memory(query_batchnorm=batchnorm)
    out = layer(torch.randn(n_tokens, DIM))
    out.sum().backward()
    assert out.shape == (n_tokens, DIM)
    assert layer.values.grad.isfinite().all()


def test_values_are_a_group_of_their_own() -> None:
    layer = memory(value_lr=0.5)
    (group,) = layer.parameter_groups()
    assert group.parameters == (layer.values,)
    assert (group.lr, group.schedule, group.weight_decay) == (0.5, "constant", 0.0)
    assert group.betas is None


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
    assert counted["weights"].sum().item() == pytest.approx(50 * 2)  # 1 a token and head
    assert layer.metrics(counted)["usage"] == pytest.approx(100 * (expected > 0).double().mean())
    layer.reset_statistics()
    assert layer.statistics()["weights"].sum() == 0


def test_metrics_tell_even_use_from_uneven() -> None:
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
def test_half_precision_trains(dtype: torch.dtype, how: str) -> None:
    layer, x = memory(), torch.randn(20, DIM)
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


@pytest.mark.parametrize("which", ["input_dropout", "query_dropout", "value_dropout"])
def test_dropouts_act_while_training_only(which: str) -> None:
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


def test_a_memory_learns_what_its_input_says() -> None:
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


@pytest.mark.parametrize(
    ("values", "allowed"),
    [({"k-dim": 7}, "even"), ({"knn": 9, "n-keys": 8}, "1 to 8"), ({"heads": 0}, "at least 1")],
)
def test_impossible_options_are_refused(values: dict[str, int], allowed: str) -> None:
    (component,) = xlm_layers()
    with pytest.raises(OptionError, match="pkm") as error:
        component.options_from(values)
    assert allowed in error.value.expected


def test_the_component_names_the_class() -> None:
    (component,) = xlm_layers()
    assert component.load() is ProductKeyMemory
    assert component.options().n_keys == 128
    assert ProductKeyMemory.default_position(4) == "2"
