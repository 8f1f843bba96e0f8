"""Build the sdist and the wheel of every distribution: `make dist`.

What is built is a copy of the files that git tracks, completed with what belongs into every
distribution and stands once in the repository: the licence, the classifiers of the core's
``pyproject.toml``, and what is linked by its address of the repository, in the metadata and in the
readme, since a package index shows it by itself.

The same commit gives the same bytes on any day: files are dated SOURCE_DATE_EPOCH, by default the
time of the last commit, and have neither owner nor umask.
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
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
from urllib.parse import urlsplit

import tomli_w
from repository import ROOT, core_project, with_absolute_links


def projects(tree: Path) -> list[Path]:
    """The folders of all distributions, the core first."""
    return [tree, *sorted(path.parent for path in tree.glob("plugins/*/*/pyproject.toml"))]


def links(source: str) -> dict[str, str]:
    """What an index links to beside every distribution.

    :param source: the address of the repository.
    """
    return {
        "Source": source,
        "Changelog": f"{source}/blob/main/CHANGELOG.md",
        "Issues": f"{source}/issues",
    }


def refuse(tag: str, core: dict[str, Any]) -> None:
    """Refuse to build a release that nobody should publish.

    :param core: the core's ``[project]``.
    :raises SystemExit: the tag is not the version, or the repository has no address yet.
    """
    version, source = core["version"], core["urls"]["Source"]
    if tag != f"v{version}":
        sys.exit(
            f"error: the tag {tag} is not v and the version, {version}\n"
            f"  hint: python tools/set_version.py {tag.removeprefix('v')}, or push v{version}"
        )
    if str(urlsplit(source).hostname).endswith(".invalid"):  # which no host may ever be named
        sys.exit(
            f"error: {source} is a placeholder, and every distribution would link to it\n"
            "  hint: put the address of the public repository into pyproject.toml, [project.urls]"
        )


def complete(tree: Path) -> None:
    """Give every distribution in a copy of the repository what an index shows of it."""
    core = core_project(tree)
    source = core["urls"]["Source"]
    shared = {"classifiers": core["classifiers"], "urls": links(source)}
    for folder in projects(tree):
        readme = folder / "README.md"
        text = readme.read_text(encoding="utf-8")
        readme.write_text(with_absolute_links(text, folder, tree, source), "utf-8")
        path = folder / "pyproject.toml"
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        document["project"] |= shared
        path.write_text(tomli_w.dumps(document), "utf-8")
        if folder != tree:
            shutil.copy(tree / "LICENSE", folder)
    for path in tree.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


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
    parser.add_argument("--release", metavar="TAG", help="refuse what must not be published")
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    if arguments.release:
        refuse(arguments.release, core_project(ROOT))
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
