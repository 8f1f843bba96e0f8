"""What the names of metrics say."""

from __future__ import annotations

from xlm_plugins.runs.metric_names import MetricName, parse_names


def test_objectives_translations_and_layers() -> None:
    names = (
        "valid_en_mlm_ppl", "valid_mlm_ppl", "valid_en-fr_tlm_ppl", "valid_en-fr_tlm_alone_ppl",
        "valid_tlm_ppl", "valid_en-fr-en_bt_other_language", "valid_enc.2+_pkm_kl_weighted",
    )  # fmt: skip
    assert list(parse_names(names).values()) == [
        MetricName("mlm", "", "en", "ppl"),
        MetricName("mlm", "", "", "ppl"),
        MetricName("tlm", "", "en-fr", "ppl"),
        MetricName("tlm", "alone", "en-fr", "ppl"),
        MetricName("tlm", "", "", "ppl"),
        MetricName("bt", "", "en-fr-en", "other_language"),
        MetricName("pkm", "", "enc.2+", "kl_weighted", of_layer=True),
    ]


def test_codes_and_objectives_with_underscores() -> None:
    found = parse_names(["valid_zh_Hant_word_order_acc", "valid_word_order_acc", "valid_x_mlm_ppl"])
    assert found["valid_zh_Hant_word_order_acc"] == MetricName("word_order", "", "zh_Hant", "acc")


def test_a_task_may_measure_anything() -> None:
    found = parse_names(["valid_en_classify_macro_f1", "valid_classify_macro_f1"])
    assert found["valid_en_classify_macro_f1"] == MetricName("classify", "", "en", "macro_f1")
    assert found["valid_classify_macro_f1"].title == "macro f1"
