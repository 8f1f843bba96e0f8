"""docs/clusters.md: its commands and files work."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from xlm_plugins.cli.main import main
from xlm_plugins.config.training import RunOptions
from xlm_plugins.core.errors import RESUMABLE_STATUS
from xlm_plugins.training.distributed import slurm

TEXT = (Path(__file__).parents[2] / "docs" / "clusters.md").read_text(encoding="utf-8")
COMMANDS = [
    line.strip()
    for line in TEXT.splitlines()
    if re.match(r"(    )?(deepspeed|torchrun|srun|xlm) .*xlm train |    xlm train ", line)
]


def of_file(name: str) -> str:
    """The content of a file that the page gives to copy."""
    found = re.search(rf"<!-- file: {re.escape(name)} -->\n```\w*\n(.*?)```", TEXT, re.DOTALL)
    assert found, name
    return found[1]


def test_there_is_a_command_for_every_launcher() -> None:
    starters = {shlex.split(command)[0] for command in COMMANDS}
    assert starters == {"xlm", "deepspeed", "torchrun", "srun"}
    assert len(COMMANDS) == 7


@pytest.mark.parametrize("command", COMMANDS)
def test_the_ranks_run_a_valid_command(command: str, refused, tmp_path: Path) -> None:
    """Everything is accepted except the data, which does not exist."""
    arguments = shlex.split(command[command.index("xlm train ") :])[1:]
    assert arguments[:5] == ["train", "--objective", "tlm", "--layer", "pkm"]
    refused(arguments, "DATA")


@pytest.mark.parametrize("command", [c for c in COMMANDS if not c.startswith(("xlm", "srun"))])
def test_the_launchers_know_their_options(command: str) -> None:
    arguments = shlex.split(command)
    options = arguments[1 : arguments.index("xlm")]
    options = ["0" if option == "N" else option for option in options]
    if arguments[0] == "deepspeed":
        from deepspeed.launcher.runner import parse_args

        known = parse_args([*options, "xlm", "train"])
        assert known.user_script == "xlm"
        assert known.no_python
    else:
        from torch.distributed.run import get_args_parser

        known = get_args_parser().parse_args([*options, "xlm", "train"])
        assert (known.training_script, known.no_python) == ("xlm", True)


def test_the_hostfile_is_one() -> None:
    from deepspeed.launcher.runner import _parse_hostfile

    assert _parse_hostfile(of_file("hostfile").splitlines()) == {"node1": 8, "node2": 8}


def test_the_batch_script_is_a_script(tmp_path: Path) -> None:
    script = tmp_path / "train.sbatch"
    script.write_text(of_file("train.sbatch"))
    subprocess.run(["bash", "-n", script], check=True)
    for option in ("--requeue", "--signal=USR1@300", "--open-mode=append"):
        assert f"#SBATCH {option}\n" in script.read_text()
    assert "--resume auto" in script.read_text()


def test_what_it_says_of_the_program_is_true() -> None:
    assert f"| {RESUMABLE_STATUS} | ended early" in TEXT
    assert f"({RunOptions().hang_minutes:g} by default)" in TEXT
    assert slurm.hosts("node[01-04,7]")[-1] == "node7"
    assert main(["train", "--nonsense"]) == 2
