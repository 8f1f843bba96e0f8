"""Write the pages of the documentation site, which `make docs` then builds.

The repository's own documents are the pages, under the paths they have there.  Links to what is no
page lead to the code host.  The tables of options and the reference come from the code, so that
they cannot go stale.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import tomli_w
from repository import ROOT, core_project, with_absolute_links

import xlm_plugins
from xlm_plugins.config.settings import CORE_SECTIONS
from xlm_plugins.core.options import fields_of
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.core.registry import KINDS

DOCUMENTS = (
    "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/*.md", "recipes/*.md",
    "plugins/*/*/README.md",
)  # fmt: skip
PICTURE = "docs/picture.png"
AFTER = "(2026-11-22, two cores"
"""The picture stands before this paragraph of the README, after what `make demo` prints."""
STYLE = """\
.md-typeset table:not([class]) :is(td, th) { min-width: 0; padding: 0.6em 0.8em }
.md-typeset td:first-child code { white-space: nowrap }  /* an option is one word */
"""
"""What the theme leaves to be desired: tables that fit a telephone."""


def write_site(out: Path, source: str) -> None:
    """Write all pages and the site's settings.

    :param out: the folder; replaced.
    :param source: the address of the repository.
    """
    shutil.rmtree(out, ignore_errors=True)
    paths = [path for pattern in DOCUMENTS for path in sorted(ROOT.glob(pattern))]
    pages = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}
    pictures = [path.relative_to(ROOT).as_posix() for path in ROOT.glob("plugins/*/*/*.png")]
    shown = {*pages, *pictures}
    for name, text in pages.items():
        linked = with_absolute_links(text, (ROOT / name).parent, ROOT, source, shown)
        _write(out / "pages" / name, linked)
    for name in pictures:
        shutil.copy(ROOT / name, out / "pages" / name)
    landing = out / "pages" / "README.md"
    picture = f"![A product-key memory in a trained model]({PICTURE})\n\n{AFTER}"
    _write(landing, landing.read_text(encoding="utf-8").replace(AFTER, picture, 1))
    (out / "pages" / PICTURE).write_bytes(_picture())
    _write(out / "pages" / "options.md", "# Options\n\n" + "\n".join(options_tables()))
    _write(out / "pages" / "reference.md", "# Reference\n\n" + "\n\n".join(references()) + "\n")
    _write(out / "pages" / "site.css", STYLE)
    _write(out / "zensical.toml", tomli_w.dumps(_settings(sorted(pages), source)))


def options_tables() -> Iterator[str]:
    """The options of every section of the core and of every plugin, as tables."""
    for section, options in CORE_SECTIONS.items():
        yield from _table(f"`[{section}]`", options, "--")
    registry = Plugins.discover().registry
    for component in (c for kind in KINDS for c in registry.of(kind)):
        title = f"{component.kind} `{component.name}`"
        yield from _table(title, component.options, f"--{component.name}.")


def _table(title: str, options: type, prefix: str) -> Iterator[str]:
    fields = fields_of(options)
    if fields:
        yield f"## {title}\n\n| option | default | meaning |\n|---|---|---|"
        for field in fields:
            shown = (
                {True: "on", False: "off"}[field.default] if field.kind is bool else field.default
            )
            default = "" if shown in (None, ()) else f"`{shown}`"
            meaning = re.sub(r"([|<*_\[])", r"\\\1", field.info.help)
            yield f"| `{prefix}{field.key}` | {default} | {meaning} |"
        yield ""


def references() -> Iterator[str]:
    """A directive for every public name, which takes its text from the docstring."""
    for name in sorted(xlm_plugins.__all__):
        found = getattr(xlm_plugins, name)
        if callable(found) and found.__module__.startswith("xlm_plugins"):
            yield f"::: {found.__module__}.{found.__qualname__}"


def _picture() -> bytes:
    """The first picture of the notebook about the memory layer."""
    notebook = json.loads((ROOT / "docs" / "pkm.ipynb").read_text(encoding="utf-8"))
    outputs = (output for cell in notebook["cells"] for output in cell.get("outputs", ()))
    images = (output.get("data", {}).get("image/png") for output in outputs)
    return base64.b64decode(next(image for image in images if image))


def _menu(pages: list[str]) -> list[dict[str, object]]:
    inside = ["CONTRIBUTING.md", "docs/architecture.md", "docs/releasing.md"]
    guides = [page for page in pages if page.startswith("docs/") and page not in inside]
    plugins = [{Path(page).parts[-2]: page} for page in pages if page.startswith("plugins/")]
    return [
        {"xlm-plugins": "README.md"},
        {"Guides": guides},
        {"Plugins": plugins},
        {"Recipes": "recipes/README.md"},
        {"Options": "options.md"},
        {"Reference": "reference.md"},
        {"Contributing": inside},
        {"Changelog": "CHANGELOG.md"},
    ]


def _settings(pages: list[str], source: str) -> dict[str, object]:
    handler = {
        "paths": [str(ROOT)],
        "options": {
            "docstring_style": "sphinx",
            "heading_level": 2,
            "separate_signature": True,
            "show_root_full_path": False,
            "show_root_heading": True,
            "show_signature_annotations": True,
            "show_source": False,
        },
    }
    extensions = ("admonition", "attr_list", "md_in_html", "tables", "toc", "pymdownx.superfences")
    return {
        "project": {
            "site_name": "xlm-plugins",
            "site_description": "Cross-lingual language models from plugins",
            "docs_dir": "pages",
            "site_dir": "site",
            "repo_url": source,
            "repo_name": "xlm-plugins",
            "extra_css": ["site.css"],
            "nav": _menu(pages),
            "theme": {"font": False, "features": ["navigation.top", "content.code.copy"]},
            "plugins": {"search": {}, "mkdocstrings": {"handlers": {"python": handler}}},
            "markdown_extensions": {name: {} for name in extensions},
        }
    }


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_site(Path(sys.argv[1]).resolve(), core_project(ROOT)["urls"]["Source"])
