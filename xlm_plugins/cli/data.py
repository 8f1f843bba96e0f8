"""``xlm data``: show what a data set contains, or verify it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from xlm_plugins.core.messages import warn

if TYPE_CHECKING:
    from rich.table import Table

    from xlm_plugins.data.dataset.inspect import DataReport
    from xlm_plugins.data.dataset.manifest import Manifest

_BARS = " ▁▂▃▄▅▆▇█"


@click.command()
@click.argument("place", metavar="DIR")
@click.option("--verify", is_flag=True, help="Only verify the checksum of every shard.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def data(place: str, verify: bool, as_json: bool) -> None:
    """Show what the data set DIR contains: sizes, unknown words, lengths, duplicates, leakage.

    DIR is a folder or a URL, whose shards are downloaded into the cache.
    """
    from xlm_plugins.data.dataset.remote_copy import open_data_set

    folder, manifest = open_data_set(place)
    if verify:
        _verify(folder, manifest, as_json)
        return
    from xlm_plugins.data.dataset.health import findings, unused_files
    from xlm_plugins.data.dataset.inspect import inspect

    report = inspect(folder, manifest)
    if as_json:
        _print_json(manifest, report)
        return
    _print_tables(folder, manifest, report)
    for finding in [*unused_files(manifest), *findings(manifest)]:
        warn(finding)


def _verify(folder: Path, manifest: Manifest, as_json: bool) -> None:
    import json

    from xlm_plugins.core.errors import DataError
    from xlm_plugins.data.dataset.shards import find_damage

    found = find_damage(folder, manifest)
    if as_json:
        click.echo(json.dumps({"n_shards": len(manifest.shards), "damages": found}))
    if found:
        raise DataError(
            "\n".join(found),
            remedy="download these files again, or prepare the text again: xlm prepare SOURCE OUT",
        )
    if not as_json:
        n_bytes = sum(shard.n_bytes for shard in manifest.shards)
        click.echo(f"{len(manifest.shards)} shards, {n_bytes:,} bytes: all checksums match")


def _print_json(manifest: Manifest, report: DataReport) -> None:
    import json
    from dataclasses import asdict

    from xlm_plugins.data.dataset.health import findings, unused_files
    from xlm_plugins.data.dataset.inspect import BIN_STARTS

    tree = {
        "fingerprint": manifest.fingerprint,
        "tokenizer": asdict(manifest.tokenizer),
        "languages": manifest.languages,
        "n_shards": len(manifest.shards),
        "histogram_starts": BIN_STARTS,
        **asdict(report),
        "findings": [asdict(found) for found in [*unused_files(manifest), *findings(manifest)]],
    }
    click.echo(json.dumps(tree, indent=2))


def _print_tables(folder: Path, manifest: Manifest, report: DataReport) -> None:
    from rich.console import Console
    from rich.table import Table

    from xlm_plugins.data.dataset.inspect import BIN_STARTS

    console = Console(highlight=False)
    tokenizer = manifest.tokenizer
    console.print(
        f"[bold]{folder}[/bold]: {', '.join(manifest.languages)}; {len(manifest.shards)} shards; "
        f"tokenizer {tokenizer.name}, {tokenizer.size:,} ids, {tokenizer.fingerprint}"
    )
    table = Table("stream", title="streams")
    for heading in ("sentences", "tokens", "MB", "unknown", "duplicates", "lengths"):
        table.add_column(heading, justify="right", no_wrap=True)
    for stream in report.streams:
        table.add_row(
            stream.name,
            f"{stream.n_sentences:,}",
            f"{stream.n_tokens:,}",
            f"{stream.n_bytes / 1e6:,.1f}",
            _percent(stream.unknown_rate),
            _percent(stream.duplicate_rate),
            _bars(stream.histogram),
        )
    starts = ", ".join(map(str, BIN_STARTS))
    table.caption = f"lengths: sentences of at least {starts} tokens"
    console.print(table)
    if report.leakage:
        console.print(_leakage_table(report))


def _leakage_table(report: DataReport) -> Table:
    from rich.table import Table

    table = Table("stream", "side", title="held-out sentences found in the training text")
    for heading in ("in the same stream", "in monolingual text", "in parallel text"):
        table.add_column(heading, justify="right")
    for leak in report.leakage:
        shares = (leak.same, leak.monolingual, leak.parallel)
        table.add_row(leak.name, leak.language, *map(_percent, shares))
    return table


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"


def _bars(histogram: list[int]) -> str:
    most = max(histogram)
    # A bin with few sentences still shows as the lowest bar.
    heights = (0 if not n else max(1, round(8 * n / most)) for n in histogram)
    return "".join(_BARS[height] for height in heights)
