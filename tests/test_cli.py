"""The command `koa` as a whole; each command has tests beside what it runs."""

import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint

import pytest

from koa_hf.cli import COMMANDS, main
from tests.demo import REPOSITORY

COMMAND_LINES = [[name] for name in COMMANDS] + [
    *(["cohort", verb] for verb in ("build", "grade", "report")),
    *(["dataset", verb] for verb in ("build", "verify")),
    *(["push", kind] for kind in ("dataset", "cohort", "model", "space")),
]


def modules_of(*commands: str) -> tuple[subprocess.CompletedProcess, set[str]]:
    """Run `koa` with each in turn in one process, which they all have to end with the same exit code.

    Returns:
        What the process did, and the top-level modules that it imported.
    """
    code = """
import sys
from koa_hf.cli import main
def run(command):
    try:
        return main(command.split())
    except SystemExit as end:
        return end.code
(code,) = {run(command) for command in sys.argv[1:]}
print(*{name.partition(".")[0] for name in sys.modules}, file=sys.stderr)
sys.exit(code)
"""
    done = subprocess.run([sys.executable, "-c", code, *commands], cwd=REPOSITORY, capture_output=True, text=True)
    *_, modules = done.stderr.splitlines()
    return done, set(modules.split())


@pytest.mark.parametrize("command", COMMAND_LINES, ids=" ".join)
def test_help_gives_an_example(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([*command, "--help"])
    assert end.value.code == 0
    assert f"  koa {' '.join(command)} " in capsys.readouterr().out


def test_help_lists_the_commands_and_imports_nothing_slow():
    done, modules = modules_of("--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in COMMANDS)
    assert not modules & {"numpy", "torch", "datasets", "huggingface_hub", "rich", "matplotlib"}


def test_a_missing_file_is_reported_before_anything_slow_is_imported():
    cases = {
        "grade nowhere.png": "error: nowhere.png does not exist",
        "grade README.md --csv no/folder/grades.csv": "no/folder is not a folder that exists",
        "report nowhere.png --pdf report.pdf": "error: nowhere.png does not exist",
        "report README.md --pdf no/folder/report.pdf": "no/folder is not a folder that exists",
        "dataset verify . --json no/folder/verification.json": "no/folder is not a folder that exists",
        "cohort build nowhere out": "error: nowhere does not exist",
        "cohort report nowhere": "error: nowhere does not exist",
        "card no/run": "error: no/run does not exist",
        "checksums no/run": "no/run has no checksums.json",
    }
    done, modules = modules_of(*cases)
    assert done.returncode == 2
    for said, says in zip(done.stderr.splitlines(), cases.values(), strict=False):
        assert said.startswith("error: ")
        assert says in said
    assert "torch" not in modules


def test_ctrl_c_ends_with_code_130(monkeypatch, capsys):
    def interrupted(parser):
        raise KeyboardInterrupt

    monkeypatch.setattr("koa_hf.cli.push.define_card", interrupted)
    assert main(["card", "runs/paper"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("command", [[], ["no-such-command"], ["push", "everything"]], ids=" ".join)
def test_an_unknown_command_is_refused_with_code_2(command, capsys):
    with pytest.raises(SystemExit) as end:
        main(command)
    assert end.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_the_installed_command_and_python_m_are_the_same():
    scripts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]
    assert EntryPoint("koa", scripts["koa"], "console_scripts").load() is main
    command = [sys.executable, "-m", "koa_hf", "--version"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("koa-hf ")
