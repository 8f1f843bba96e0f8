"""Build the sdist and the wheel of every distribution: `make dist`.

What is built is a copy of the files that git tracks, completed with what belongs into every
distribution and stands once in the repository: the licence, the links and classifiers of the core's
``pyproject.toml``, and absolute links in the readme, since a package index shows it by itself.

The same commit gives the same bytes on any day: files are dated SOURCE_DATE_EPOCH, by default the
time of the last commit, and have neither owner nor umask.
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tomli_w

ROOT = Path(__file__).resolve().parents[1]
SHARED = ("urls", "classifiers")
"""What every distribution takes from the core's ``[project]``."""


def projects(tree: Path) -> list[Path]:
    """The folders of all distributions, the core first."""
    return [tree, *sorted(path.parent for path in tree.glob("plugins/*/*/pyproject.toml"))]


def complete(tree: Path) -> None:
    """Give every distribution in a copy of the repository what an index shows of it."""
    core = tomllib.loads((tree / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for folder in projects(tree):
        readme = folder / "README.md"
        text = readme.read_text(encoding="utf-8")
        readme.write_text(with_absolute_links(text, folder, tree, core["urls"]["Source"]), "utf-8")
        if folder != tree:
            shutil.copy(tree / "LICENSE", folder)
            path = folder / "pyproject.toml"
            path.write_text(_with_shared(path.read_text(encoding="utf-8"), core), "utf-8")
    for path in tree.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def with_absolute_links(text: str, folder: Path, tree: Path, source: str) -> str:
    """A readme whose links to files of the repository name them at the code host.

    Links within the page, to other hosts and in code stay as they are.

    :param source: the address of the repository.
    """

    def absolute(match: re.Match[str]) -> str:
        target = match["target"]  # nothing: the match is code
        if not target or re.match(r"\w+:|#", target):
            return match[0]
        path, mark, anchor = target.partition("#")
        file = Path(os.path.relpath(folder / path, tree)).as_posix()
        kind = "tree" if (tree / file).is_dir() else "blob"
        return f"]({source}/{kind}/main/{file}{mark}{anchor})"

    code = r"^```.*?^```$|`[^`\n]*`"
    return re.sub(rf"{code}|\]\((?P<target>[^)\s]+)\)", absolute, text, flags=re.M | re.S)


def _with_shared(text: str, core: dict[str, Any]) -> str:
    document = tomllib.loads(text)
    document["project"] |= {key: core[key] for key in SHARED}
    return tomli_w.dumps(document)


def build_all(tree: Path, out: Path, epoch: int) -> None:
    """Build every distribution of a completed copy, as many at a time as there are cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda project: build(project, out, epoch), projects(tree)))


def build(project: Path, out: Path, epoch: int) -> None:
    """Build one distribution: its sdist, and its wheel from nothing but that sdist.

    :param epoch: what its files are dated, in seconds since 1970.
    """
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch)}
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(project)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, umask=0o022)
    if done.returncode:
        sys.exit(f"error: {project.name} could not be built\n{done.stdout}{done.stderr}")
    name = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"]["name"]
    for sdist in out.glob(f"{name.replace('-', '_')}-[0-9]*.tar.gz"):
        sdist.write_bytes(_undated(sdist, epoch))


def _undated(sdist: Path, epoch: int) -> bytes:
    """The same archive without the day, the owner and the machine it was built on."""
    packed = io.BytesIO()
    with (
        tarfile.open(sdist) as old,
        gzip.GzipFile("", "wb", fileobj=packed, mtime=epoch) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            member.mtime, member.uid, member.gid, member.uname, member.gname = epoch, 0, 0, "", ""
            member.mode = 0o755 if member.isdir() else 0o644
            member.pax_headers = {}
            new.addfile(member, old.extractfile(member) if member.isfile() else None)
    return packed.getvalue()


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout


def _copy(files: Iterable[str], tree: Path) -> None:
    """Copy files, and folders behind links: the template is a link to the example plugin."""
    for name in files:
        source, target = ROOT / name, tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg*"))
        elif source.exists():
            shutil.copyfile(source, target)


def main() -> None:
    """Build every distribution into a folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder (default: dist)")
    out = parser.parse_args().out.resolve()
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or _git("log", "-1", "--format=%ct"))
    if changed := _git("status", "--porcelain"):
        print(f"warning: built with changes that are not committed:\n{changed}", file=sys.stderr)
    shutil.rmtree(out, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        _copy(_git("ls-files", "-z").split("\0")[:-1], tree)
        complete(tree)
        build_all(tree, out, epoch)
    print(f"{len(list(out.glob('*.whl')))} wheels and as many sdists are in {out}")


if __name__ == "__main__":
    main()
