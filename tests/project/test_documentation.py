"""The documentation site: every page, option and public name is on it, and no link is dead."""

from __future__ import annotations

import re
import subprocess
import venv
from pathlib import Path

import documentation
import pytest
import repository

import xlm_plugins
from xlm_plugins.core.options import fields_of
from xlm_plugins.core.plugins import Plugins
from xlm_plugins.core.registry import KINDS

ROOT = Path(__file__).resolve().parents[2]
SOURCE = "https://host/repository"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    documentation.write_site(folder, SOURCE)
    return folder


def test_links_lead_to_pages_or_to_the_code_host() -> None:
    text = "[a](../plugins/layers/pkm#x) [b](clusters.md) [c](../constraints.txt) `[d](e)` [f](#g)"
    pages = {"plugins/layers/pkm/README.md", "docs/clusters.md", "docs/x.md"}
    assert repository.with_absolute_links(text, ROOT / "docs", ROOT, SOURCE, pages) == (
        "[a](../plugins/layers/pkm/README.md#x) [b](clusters.md) "
        f"[c]({SOURCE}/blob/main/constraints.txt) `[d](e)` [f](#g)"
    )


def test_every_document_is_a_page_of_the_menu(written: Path) -> None:
    menu = (written / "zensical.toml").read_text(encoding="utf-8")
    pages = [p.relative_to(written / "pages").as_posix() for p in written.glob("pages/**/*.md")]
    assert {f"docs/{path.name}" for path in ROOT.glob("docs/*.md")} < set(pages)
    assert len([page for page in pages if page.startswith("plugins/")]) == len(
        list(ROOT.glob("plugins/*/*/pyproject.toml"))
    )
    assert [page for page in pages if f'"{page}"' not in menu] == []


def test_the_landing_page_has_the_commands_their_output_and_a_picture(written: Path) -> None:
    text = (written / "pages" / "README.md").read_text(encoding="utf-8")
    for part in ("make demo", "make test", "Perplexity and accuracy", "](docs/picture.png)"):
        assert part in text
    assert (written / "pages" / "docs" / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_every_picture_is_on_the_site(written: Path) -> None:
    linked = [
        (page.parent / target).is_file()
        for page in written.glob("pages/**/*.md")
        for target in re.findall(r"!\[[^\]]*\]\(([^)]*)\)", page.read_text(encoding="utf-8"))
    ]
    assert len(linked) > 1
    assert all(linked)


def test_every_option_is_in_a_table(written: Path) -> None:
    text = (written / "pages" / "options.md").read_text(encoding="utf-8")
    registry = Plugins.discover().registry
    for component in (c for kind in KINDS for c in registry.of(kind)):
        for field in fields_of(component.options):
            assert f"| `--{component.name}.{field.key}` |" in text


def test_every_public_name_is_in_the_reference(written: Path) -> None:
    text = (written / "pages" / "reference.md").read_text(encoding="utf-8")
    for name in xlm_plugins.__all__:
        if isinstance(getattr(xlm_plugins, name), type):
            assert f".{name}\n" in text


@pytest.mark.slow
def test_the_site_builds_strictly_and_a_dead_link_fails(written: Path, tmp_path: Path) -> None:
    venv.create(tmp_path, with_pip=True)
    pip = [tmp_path / "bin" / "python", "-m", "pip", "install", "--quiet", "--requirement"]
    subprocess.run([*pip, ROOT / "docs" / "requirements.txt"], check=True)
    build = [tmp_path / "bin" / "zensical", "build", "--strict"]
    subprocess.run(build, cwd=written, check=True)
    reference = (written / "site" / "reference" / "index.html").read_text("utf-8")
    assert re.search(r"<h2[^>]*>\s*<span[^>]*>LossOutput</span>", reference)
    page = written / "pages" / "CHANGELOG.md"
    page.write_text(page.read_text("utf-8") + "\n[x](gone.md)\n", "utf-8")
    assert subprocess.run(build, cwd=written, capture_output=True).returncode != 0
