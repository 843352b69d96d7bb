"""The command `koa` as a whole; each command has tests beside what it runs."""

import json
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


def run_in_one(*commands: str) -> tuple[list[tuple[int, str, str]], set[str]]:
    """Run these `koa` commands in one process: exit code, stdout and stderr of each, and the modules it imported."""
    code = """
import contextlib, io, json, sys
from koa_hf.cli import main
done = []
for command in sys.argv[1:]:
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            code = main(command.split())
        except SystemExit as end:
            code = end.code
    done.append([code, out.getvalue(), error.getvalue()])
print(json.dumps([done, sorted({name.partition(".")[0] for name in sys.modules})]))
"""
    process = subprocess.run(
        [sys.executable, "-c", code, *commands], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True
    )
    done, modules = json.loads(process.stdout)
    return [tuple(one) for one in done], set(modules)


@pytest.mark.parametrize("command", COMMAND_LINES, ids=" ".join)
def test_help_gives_an_example(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([*command, "--help"])
    assert end.value.code == 0
    assert f"  koa {' '.join(command)} " in capsys.readouterr().out


def test_help_lists_the_commands_and_imports_nothing_slow():
    [(code, out, _)], modules = run_in_one("--help")
    assert code == 0
    assert all(name in out for name in COMMANDS)
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
    done, modules = run_in_one(*cases)
    for (command, says), (code, _, error) in zip(cases.items(), done, strict=True):
        assert (code, error.startswith("error: ")) == (2, True), command
        assert says in error
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
