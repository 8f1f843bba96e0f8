"""Fixtures of the core's tests."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from torch import Tensor


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded corpus's English and French with a vocabulary of 400: quick to train on."""
    from xlm_plugins.core.plugins import Plugins
    from xlm_plugins.data.embedded import embedded_source
    from xlm_plugins.data.prepare import TokenizerTraining, prepare

    component = Plugins.discover().get("tokenizer", "sentencepiece")
    training = TokenizerTraining(400, component.options())
    folder = tmp_path_factory.mktemp("tiny") / "data"
    prepare(embedded_source().restricted(["en", "fr"]), folder, component, training, workers=1)
    return folder


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Install a distribution with one plugin for this test: a real dist-info folder on the path.

    ``install("xlm-x", source)`` writes the module ``xlm_x`` and its entry point, and returns the
    folder to put on PYTHONPATH where a process of its own shall see it.
    """
    site = tmp_path / "site-packages"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def install(name: str, source: str, *, version: str = "1.0", requires: str = "") -> Path:
        module = name.replace("-", "_")
        monkeypatch.delitem(sys.modules, module, raising=False)
        (site / f"{module}.py").write_text(source)
        info = site / f"{module}-{version}.dist-info"
        info.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        lines += [f"Requires-Dist: {requires}"] if requires else []
        (info / "METADATA").write_text("\n".join(lines) + "\n")
        (info / "entry_points.txt").write_text(f"[xlm]\n{name.removeprefix('xlm-')} = {module}\n")
        return site

    return install


@pytest.fixture(scope="session")
def reference_weights() -> Callable[[Mapping[str, Tensor]], dict[str, Tensor]]:
    """Name the reference implementation's weights, or gradients, as our encoder stack does."""
    return rename_reference_weights


def rename_reference_weights(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Ours has queries, keys and values in one projection; a tied output weight has one name."""
    import torch  # here, for most tests need no torch

    renamed: dict[str, Tensor] = {}
    fused: dict[str, dict[str, Tensor]] = {}
    for name, value in theirs.items():
        if match := re.fullmatch(r"attentions\.(\d+)\.([qkv])_lin\.(weight|bias)", name):
            index, part, kind = match.groups()
            fused.setdefault(f"layers.{index}.attention.qkv.{kind}", {})[part] = value
            continue
        for pattern, replacement in REFERENCE_NAMES.items():
            if re.match(pattern, name):
                renamed[re.sub(pattern, replacement, name)] = value
                break
        else:
            raise KeyError(name)
    for name, parts in fused.items():
        renamed[name] = torch.cat([parts[part] for part in "qkv"])
    return renamed


REFERENCE_NAMES = {
    r"embeddings\.": "embeddings.tokens.",
    r"position_embeddings\.": "embeddings.positions.",
    r"lang_embeddings\.": "embeddings.languages.",
    r"layer_norm_emb\.": "embeddings.norm.",
    r"attentions\.(\d+)\.out_lin\.": r"layers.\1.attention.output.",
    r"layer_norm1\.(\d+)\.": r"layers.\1.attention_norm.",
    r"ffns\.(\d+)\.lin1\.": r"layers.\1.feed_forward.expand.",
    r"ffns\.(\d+)\.lin2\.": r"layers.\1.feed_forward.contract.",
    r"layer_norm2\.(\d+)\.": r"layers.\1.feed_forward_norm.",
    r"memories\.(\d+)_in\.": r"layers.\1.feed_forward.",
    r"memories\.(\d+)_after\.": r"layers.\1.after.",
    r"pred_layer\.proj\.": "output.",
}
