"""The first plugin of docs/plugins.md: its files as they stand there, installed and used."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("\n## In ten lines\n")[2].partition("\n## ")[0]
FILES = dict(re.findall(r"^\*\*`(xlm-[\w./-]+)`\*\*\n\n```\w+\n(.*?)^```$", SECTION, re.M | re.S))
COMMANDS = re.findall(r"^    (.*)$", SECTION.rpartition("```\n")[2], re.M)
TINY = ("--dim=16", "--n-layers=2", "--n-heads=2", "--batch-tokens=256", "--threads=1")
PROGRAM = """
import sys
from xlm_plugins.cli.main import main
from xlm_plugins.testing import check_layer
check_layer("relu2")
sys.exit(main())
"""


def test_the_first_plugin_is_installed_and_trained_with(tmp_path: Path, tiny_data: Path) -> None:
    assert len(FILES) == 3
    for name, content in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    install, train = map(shlex.split, COMMANDS)
    install.remove("--editable")  # beside the environment, not in it
    site = tmp_path / "site"
    offline = ("--no-deps", "--no-build-isolation", "--no-index", "--target", str(site))
    pip = [sys.executable, "-m", *install, "--quiet", "--disable-pip-version-check", *offline]
    subprocess.run(pip, cwd=tmp_path, check=True, timeout=120)
    paths = os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH"))))
    fewer = ("--steps=2", "--out=run", f"--data={tiny_data}", *TINY)
    command = [sys.executable, "-c", PROGRAM, *train[1:], *fewer]
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    used = json.loads(next((tmp_path / "run").rglob("plugins.json")).read_text(encoding="utf-8"))
    assert used["layer/relu2"] == "xlm-relu2 0.1"


def test_the_first_plugin_is_ten_lines_long() -> None:
    python = "".join(content for name, content in FILES.items() if name.endswith(".py"))
    lines = [line for line in python.splitlines() if line and "import" not in line]
    assert len(lines) <= 10
