"""Which files hold plain lines, by their names, and what is said about those that do not."""

from __future__ import annotations

from pathlib import PurePath

from xlm_plugins.core.text_files import COMPRESSED

PLAIN = ".txt"
"""The ending of plain lines; that of a compressed file may follow."""

CONTAINERS = {
    **dict.fromkeys((".tsv", ".tab", ".csv", ".xls", ".xlsx", ".ods", ".parquet"), "a table"),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "JSON"),
    **dict.fromkeys((".arrow", ".feather", ".db", ".sqlite", ".h5"), "a data base"),
    **dict.fromkeys((".tmx", ".xlf", ".xliff", ".sgm", ".xml"), "XML"),
    **dict.fromkeys((".srt", ".vtt", ".po", ".yaml", ".yml"), "a format of its own"),
    **dict.fromkeys((".md", ".rst", ".html", ".htm", ".tex", ".rtf"), "marked-up text"),
    **dict.fromkeys((".pdf", ".doc", ".docx", ".odt", ".epub"), "a document"),
    **dict.fromkeys((".zip", ".tar", ".tgz", ".7z", ".rar"), "an archive"),
}
"""What files hold that are certainly not one sentence per line."""

CONVERT = "not read yet: convert it to one sentence per line (.txt)"


def ending(path: PurePath) -> str:
    """The last ending in lower case, without that of a compressed file: ``.tsv`` of ``a.tsv.gz``.

    Empty if there is none.
    """
    if path.suffix in COMPRESSED:
        path = path.with_suffix("")
    return path.suffix.lower()
