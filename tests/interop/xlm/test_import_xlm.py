"""``xlm import xlm``: a checkpoint becomes a bundle that every command accepts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from xlm_plugins.cli.main import main
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.inference.loaded_model import load
from xlm_plugins.interop.xlm.importing import import_xlm
from xlm_plugins.model.bundle import Bundle, read_description
from xlm_plugins.model.description import ModelDescription

Checkpoint = dict[str, Any]
Make = Callable[..., Checkpoint]


class Imported(NamedTuple):
    """An imported bundle, and the notes of the import."""

    out: Path
    description: ModelDescription
    notes: list[str]


Import = Callable[..., Imported]


@pytest.fixture
def imported(saved: Callable[..., Path], tmp_path: Path) -> Import:
    def imported(content: Checkpoint, **files: Path) -> Imported:
        plugins, out = Plugins.discover(), tmp_path / "out"
        notes = import_xlm(saved(content), out, plugins, **files)
        return Imported(out, read_description(out, plugins), notes)

    return imported


def steps_of(found: Imported) -> dict[str, tuple[str, ...]]:
    return {chosen.component.name: chosen.steps for chosen in found.description.objectives}


def test_shape_and_languages(imported: Import, xlm_checkpoint: Make) -> None:
    content = xlm_checkpoint(languages=("fr", "en"), dropout=0, n_heads=2)
    description = imported(content).description
    options = description.options
    assert (options.dim, options.n_layers, options.n_heads) == (16, 2, 2)
    assert (options.ffn_dim, options.max_positions) == (None, 24)
    assert (options.dropout, options.attention_dropout) == (0.0, 0.1)
    assert options.tied_output
    assert options.language_embeddings
    # By name, in the checkpoint's order rather than alphabetically.
    assert dict(description.languages) == {"fr": 0, "en": 1}
    assert description.stacks == ("encoder",)


def test_languages_from_a_sorted_list_if_there_is_no_map(
    imported: Import, xlm_checkpoint: Make
) -> None:
    content = xlm_checkpoint()
    del content["params"]["lang2id"]
    content["params"]["lgs"] = "fr-en"
    assert dict(imported(content).description.languages) == {"en": 0, "fr": 1}


@pytest.mark.parametrize(
    ("decoder", "params", "expected"),
    [
        (False, {}, {"mlm": ("en", "fr")}),
        (True, {}, {"mt": ("en-fr", "fr-en")}),
        (True, {"languages": ("en",)}, {"ae": ("en",)}),
        (False, {"clm_steps": "en,fr"}, {"clm": ("en", "fr")}),
        (
            False,
            {"mlm_steps": [("en", None), ("en", "fr")]},
            {"mlm": ("en",), "tlm": ("en-fr",)},
        ),
        (
            True,
            {"ae_steps": ["en"], "bt_steps": [("en", "fr", "en")], "mt_steps": [("fr", "en")]},
            {"ae": ("en",), "mt": ("fr-en",), "bt": ("en-fr-en",)},
        ),
    ],
)
def test_what_it_was_trained_on(
    imported: Import,
    xlm_checkpoint: Make,
    decoder: bool,
    params: dict[str, Any],
    expected: dict[str, tuple[str, ...]],
) -> None:
    assert steps_of(imported(xlm_checkpoint(decoder=decoder, **params))) == expected


def test_the_options_of_what_it_was_trained_on(imported: Import, xlm_checkpoint: Make) -> None:
    masking = {"word_pred": 0.2, "sample_alpha": 0.5, "word_mask_keep_rand": "0.7,0.2,0.1"}
    noise = {"word_shuffle": 3, "word_dropout": 0.1, "word_blank": 0.2}
    steps = {"mlm_steps": "en", "ae_steps": "en", "clm_steps": "en", "context_size": 4}
    found = imported(xlm_checkpoint(decoder=True, **masking, **noise, **steps)).description
    options = {chosen.component.name: chosen.options for chosen in found.objectives}
    mlm, ae = options["mlm"], options["ae"]
    assert (mlm.mask_prob, mlm.keep_share, mlm.random_share) == (0.2, 0.2, 0.1)
    assert mlm.sample_alpha == 0.5
    assert (ae.word_shuffle, ae.word_dropout, ae.word_blank) == (3.0, 0.1, 0.2)
    assert options["clm"].context_size == 4


def test_parallel_classification_is_left_out_with_a_note(
    imported: Import, xlm_checkpoint: Make
) -> None:
    found = imported(xlm_checkpoint(mlm_steps="en", pc_steps=[("en", "fr")]))
    assert steps_of(found) == {"mlm": ("en",)}
    assert any(note.startswith("pc is left out") for note in found.notes)


GOING_ON = [
    "--objective=mlm", "--steps=1", "--dim=16", "--n-layers=2", "--n-heads=4",
    "--max-positions=256", "--adaptive-cutoffs=20", "--adaptive-cutoffs=40",
    "--adaptive-div-value=2", "--threads=1",
]  # fmt: skip


MEMORY = {
    "use_memory": True,
    "mem_heads": 2,
    "mem_knn": 3,
    "mem_n_keys": 4,
    "mem_k_dim": 8,
    "mem_enc_positions": [(0, "in"), (1, "after")],
}


def with_memories(
    content: Checkpoint, stack: str, *places: str, shared: bool = False, batchnorm: bool = False
) -> None:
    """Add memories with MEMORY's options and a hidden layer before the queries to a checkpoint."""
    weights, values = content[stack], torch.randn(16, 16)
    for place in places:
        index, _, where = place.partition("_")
        parts = [nn.Linear(16, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 16)]
        parts = [*parts, nn.BatchNorm1d(16)] if batchnorm else [parts[0], *parts[2:]]
        own = {
            "keys": torch.randn(2, 2, 4, 4),
            "values.weight": values if shared else torch.randn(16, 16),
            **nn.Sequential(*parts).state_dict(prefix="query_proj.query_mlps.0."),
        }
        weights.update({f"memories.{place}.{name}": tensor for name, tensor in own.items()})
        if where == "in":
            for name in [name for name in weights if name.startswith(f"ffns.{index}.")]:
                del weights[name]


def test_memories(imported: Import, xlm_checkpoint: Make) -> None:
    written = {"mem_dec_positions": "1", "mem_query_layer_sizes": [0, 12, 0], "mem_sparse": True}
    content = xlm_checkpoint(decoder=True, **MEMORY, **written)
    with_memories(content, "encoder", "0_in", "1_after")
    with_memories(content, "decoder", "1_in")
    found = imported(content)
    places = [str(placed.position) for placed in found.description.layers]
    assert places == ["enc.0", "enc.1+", "dec.1"]
    options = found.description.layers[0].options
    assert (options.heads, options.knn, options.n_keys, options.k_dim) == (2, 3, 4, 8)
    assert options.query_hidden == (12,)
    assert options.sparse_update
    weights = dict(Bundle.load(found.out, Plugins.discover()).model.named_parameters())
    theirs = content["decoder"]["memories.1_in.values.weight"]
    assert torch.equal(weights["decoder.layers.1.feed_forward.values"], theirs)
    theirs = content["encoder"]["memories.1_after.query_proj.query_mlps.0.2.weight"]
    assert torch.equal(weights["encoder.layers.1.after.query.weight"], theirs)


def test_memories_with_batchnorm_between(imported: Import, xlm_checkpoint: Make) -> None:
    written = {"mem_query_layer_sizes": "0,12,0", "mem_query_batchnorm": True}
    content = xlm_checkpoint(**MEMORY, **written)
    with_memories(content, "model", "0_in", "1_after", batchnorm=True)
    theirs = content["model"]
    prefix = "memories.0_in.query_proj.query_mlps.0"
    theirs[f"{prefix}.1.running_mean"].copy_(torch.arange(12))
    theirs[f"{prefix}.4.num_batches_tracked"].fill_(7)
    memory = Bundle.load(imported(content).out, Plugins.discover()).model.encoder.layers[0]
    ours = memory.feed_forward.state_dict()
    for number, name in enumerate(("query_hidden.0", "query_hidden.1", "", "query", "query_norm")):
        for kind in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            if f"{prefix}.{number}.{kind}" in theirs:
                assert torch.equal(ours[f"{name}.{kind}"], theirs[f"{prefix}.{number}.{kind}"])


def test_memories_that_share_their_values(imported: Import, xlm_checkpoint: Make) -> None:
    sharing = {"mem_share_values": True, "mem_query_layer_sizes": "0,12,0"}
    content = xlm_checkpoint(**MEMORY, **sharing)
    with_memories(content, "model", "0_in", "1_after", shared=True)
    model = Bundle.load(imported(content).out, Plugins.discover()).model
    first, last = model.encoder.layers[0].feed_forward, model.encoder.layers[1].after
    assert first.values is last.values
    assert torch.equal(first.values, content["model"]["memories.1_after.values.weight"])


def test_weights_are_saved_once_and_in_single_precision(
    imported: Import, xlm_checkpoint: Make
) -> None:
    content = xlm_checkpoint()
    content["model"] = {name: tensor.double() for name, tensor in content["model"].items()}
    weights = load_file(imported(content).out / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert "encoder.output.weight" not in weights
    n_theirs = sum(tensor.numel() for tensor in content["model"].values())
    n_ours = sum(tensor.numel() for tensor in weights.values())
    assert n_ours == n_theirs - content["model"]["pred_layer.proj.weight"].numel()


def published(folder: Path, content: Checkpoint, words: list[str]) -> dict[str, Path]:
    """Replace a checkpoint's words, and write them and codes to files, as in a publication."""
    old = content["dico_id2word"]
    content["dico_id2word"] = {n: words[n - 14] if n > 13 else old[n] for n in range(len(old))}
    content["dico_counts"] = {word: 100 - n for n, word in content["dico_id2word"].items()}
    codes, vocabulary = folder / "codes", folder / "vocab"
    codes.write_text("t h 90\nth e</w> 80\n")
    vocabulary.write_text("".join(f"{word} {100 - n}\n" for n, word in enumerate(words)))
    return {"codes": codes, "vocabulary": vocabulary}


def test_codes_and_vocabulary(imported: Import, xlm_checkpoint: Make, tmp_path: Path) -> None:
    content = xlm_checkpoint(n_words=20)
    words = ["the", "a@@", "b", "c", "th@@", "."]
    found = imported(content, **published(tmp_path, content, words))
    tokenizer = Bundle.load(found.out, Plugins.discover()).tokenizer
    assert tokenizer.tokens()[14:] == words
    pieces = [tokenizer.tokens()[i] for i in tokenizer.encode_batch(["The ab thc."]).values]
    assert pieces == ["the", "a@@", "b", "th@@", "c", "."]
    assert any("lower-cased" in note for note in found.notes)
    assert any("accents are removed" in note for note in found.notes)


def test_a_vocabulary_with_capitals_and_accents_keeps_them(
    imported: Import, xlm_checkpoint: Make, tmp_path: Path
) -> None:
    content = xlm_checkpoint(n_words=18)
    found = imported(content, **published(tmp_path, content, ["The", "é", "b", "c"]))
    assert found.notes == []


def test_a_vocabulary_that_the_run_used_in_part(
    imported: Import, xlm_checkpoint: Make, tmp_path: Path
) -> None:
    content = xlm_checkpoint(n_words=17, max_vocab=17)
    files = published(tmp_path, content, ["the", "b", "c"])
    with files["vocabulary"].open("a") as file:
        file.write("d 7\ne 6\n")
    assert imported(content, **files).description.vocabulary.size == 17


def test_without_codes_text_must_be_tokens(imported: Import, xlm_checkpoint: Make) -> None:
    found = imported(xlm_checkpoint())
    assert any("no codes" in note for note in found.notes)
    tokenizer = Bundle.load(found.out, Plugins.discover()).tokenizer
    assert tokenizer.encode_batch(["w14 w15@@ w16 nowhere"]).values.tolist() == [14, 15, 16, 3]


def test_the_command_describes_the_bundle(
    saved: Callable[..., Path],
    xlm_checkpoint: Make,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    assert main(["import", "xlm", str(saved(xlm_checkpoint(decoder=True))), str(out)]) == 0
    reported = capsys.readouterr().err
    for fact in (f"{out}: encoder and decoder, 2 layers of 16, 60 ids", "en, fr", "mt"):
        assert fact in reported
    made_with = json.loads((out / "plugins.json").read_text())
    assert set(made_with) == {"objective/mt", "tokenizer/fastbpe"}
    # Complete, with nothing else left behind.
    assert {path.name for path in tmp_path.iterdir()} == {"out", "checkpoint.pth"}


def test_commands_accept_the_bundle(
    imported: Import, xlm_checkpoint: Make, piped: Callable[..., tuple[int, bytes, str]]
) -> None:
    out = imported(xlm_checkpoint(mlm_steps="en", clm_steps="en")).out
    status, shown, err = piped("fill-mask", out, "w14 <mask> w16", "--language=en", "--json")
    assert status == 0, err
    assert len(json.loads(shown)["masks"][0]) == 5
    text = "w14 w15@@ w16\nw17\n"
    for command in ("embed", "score"):
        status, shown, err = piped(command, out, "--language=fr", content=text)
        assert status == 0, err
        assert shown


def test_training_starts_from_the_bundle(
    imported: Import, xlm_checkpoint: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def xlm(*arguments: object) -> str:
        assert main([str(argument) for argument in arguments]) == 0
        return capsys.readouterr().out

    params = {"asm": True, "asm_cutoffs": [20, 40], "asm_div_value": 2, "languages": ("en",)}
    bundle = imported(xlm_checkpoint(n_positions=256, mlm_steps="en", **params)).out
    text, data, run, tuned = (tmp_path / name for name in ("text", "data", "run", "tuned"))
    text.mkdir()
    for split in ("train", "valid", "test"):
        lines = [f"w{14 + n} w{20 + n} w16\n" for n in range(30)]
        (text / f"{split}.en.txt").write_text("".join(lines))
        rows = [f"{'ab'[n % 2]}\t{line}" for n, line in enumerate(lines)]
        (text / f"{split}.en.tsv").write_text("label\ttext\n" + "".join(rows))
    xlm("prepare", text, data, f"--tokenizer-from={bundle}")
    metrics = json.loads(xlm("evaluate", bundle, f"--data={data}", "--split=valid", "--json"))
    xlm("train", f"--data={data}", f"--out={run}", f"--init={bundle}", *GOING_ON)
    first = json.loads((run / "metrics.jsonl").read_text().partition("\n")[0])
    assert first["valid_en_mlm_ppl"] == pytest.approx(metrics["valid_en_mlm_ppl"], rel=1e-5)
    files = [f"--classify.{split}={text}/{split}.en.tsv" for split in ("train", "valid", "test")]
    xlm("finetune", "classify", f"--from={bundle}", f"--out={tuned}", *files, "--epochs=1")
    assert load(tuned).bundle.classifier is not None


def test_translations_are_the_references(
    golden_checkpoint: Callable[[str], Path],
    golden_values: Callable[[str], Any],
    tmp_path: Path,
    piped: Callable[..., tuple[int, bytes, str]],
) -> None:
    """Through the command line, from the golden file's text to that of its translations."""
    out = tmp_path / "out"
    import_xlm(golden_checkpoint("encdec"), out, Plugins.discover())
    words = (out / "tokenizer" / "vocab").read_text().split()[::2]
    golden = golden_values("encdec")

    def lines(tokens: torch.Tensor, lengths: torch.Tensor) -> list[str]:
        columns = zip(tokens.T.tolist(), lengths.tolist(), strict=True)
        return [" ".join(words[i - 14] for i in row[1 : n - 1]) for row, n in columns]

    text = "\n".join(lines(golden["x1"], golden["len1"])) + "\n"
    settings = {(): golden["greedy"]}
    settings["--beam=4", "--length-penalty=0.6"] = golden["beam"][4, 0.6, False]
    for flags, answer in settings.items():
        status, shown, err = piped("translate", out, "--from=en", "--to=fr", *flags, content=text)
        assert status == 0, err
        expected = [
            line.replace("@@ ", "").removesuffix("@@")
            for line in lines(answer["generated"], answer["lengths"])
        ]
        assert shown.decode().splitlines() == expected
