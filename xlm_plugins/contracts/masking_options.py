"""The options that masked objectives share (MLM, TLM); without torch, so that --help is quick."""

from __future__ import annotations

from dataclasses import dataclass

from xlm_plugins.core.options import option


@dataclass(frozen=True)
class MaskingOptions:
    """BERT's masking as XLM applies it (arXiv 1901.07291, section 3.3)."""

    mask_prob: float = option(0.15, "share of positions to predict", above=0.0, maximum=1.0)
    keep_share: float = option(
        0.1, "share of predicted positions shown unchanged", minimum=0.0, maximum=0.5
    )
    random_share: float = option(
        0.1, "share of predicted positions shown as a random token", minimum=0.0, maximum=0.5
    )
    sample_alpha: float = option(
        0.0, "above 0: weight positions by count^-alpha of their token", minimum=0.0
    )
