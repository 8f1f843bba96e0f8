"""Give every distribution a new version: `python tools/set_version.py 0.2.0`.

The core and the built-in plugins are released together and have one version; while it begins with
0, each requires the others of the same minor version.  `tests/project/test_distributions.py` checks
that they agree.
"""

from __future__ import annotations

import re
import sys

from repository import ROOT


def with_version(text: str, version: str) -> str:
    """A project file, or the module with ``__version__``, with a new version and its ranges."""
    minor = int(version.split(".")[1])
    text = re.sub(r'^((?:__)?version(?:__)? = )"[^"]+"', rf'\g<1>"{version}"', text, flags=re.M)
    return re.sub(r"\b(xlm-\w+)>=0\.\d+,<0\.\d+", rf"\g<1>>=0.{minor},<0.{minor + 1}", text)


def main(version: str) -> None:
    """Rewrite the core's and every plugin's version, and what they require of each other."""
    files = [ROOT / "pyproject.toml", ROOT / "xlm_plugins" / "__init__.py"]
    for path in (*files, *ROOT.glob("plugins/*/*/pyproject.toml")):
        path.write_text(with_version(path.read_text(encoding="utf-8"), version), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2 or not re.fullmatch(r"0\.\d+\.\d+(?:(?:a|b|rc)\d+)?", sys.argv[1]):
        sys.exit("usage: python tools/set_version.py 0.MINOR.PATCH[rcN]")
    main(sys.argv[1])
