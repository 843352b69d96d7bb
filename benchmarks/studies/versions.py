"""The suite with the oldest libraries that requirements.txt allows, and with the newest: results/versions.json.

    python benchmarks/studies/versions.py                                      # both sets
    python benchmarks/studies/versions.py --only oldest --environments envs    # keep the environment for the next time
    python benchmarks/studies/versions.py --only newest --python python3.13

Each set is installed into a fresh virtual environment: 7 GB each. The table in docs/code.md is rewritten. Tests
that need the real data and weights run where KOA_DATA and KOA_WEIGHTS name them. The exit code is 1 if a test failed.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from xml.etree import ElementTree

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.reporting import RESULTS, ROOT
from benchmarks.tables import pages
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.files import write_text
from train.loop.run_record import git_commit

RESULT = RESULTS / "versions.json"
REQUIREMENTS = ROOT / "requirements.txt"
SETS = ("oldest", "newest")
SHOWN = (
    "torch",
    "transformers",
    "datasets",
    "timm",
    "accelerate",
    "evaluate",
    "gradio",
    "huggingface-hub",
    "openvino",
    "numpy",
    "pydantic",
)
SUITE = ("-m", "pytest", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")  # as the Makefile has it
SUITE_RAN = (0, 1)  # pytest's exit codes after a whole run, without and with failures


def requirements(text: str) -> list[Requirement]:
    """Requirements in the text of a requirements file that apply to this platform."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    found = [Requirement(line) for line in lines if line and not line.startswith("-")]
    return [requirement for requirement in found if not requirement.marker or requirement.marker.evaluate()]


def of_the_project() -> list[Requirement]:
    return requirements(REQUIREMENTS.read_text())


def lower_bounds(needed: Iterable[Requirement]) -> str:
    """Constraints file that pins each requirement to its lower bound.

    Raises:
        KoaError: a requirement has none.
    """
    lines = []
    for requirement in needed:
        bounds = [bound.version for bound in requirement.specifier if bound.operator == ">="]
        if not bounds:
            raise KoaError(f"{requirement} has no lower bound; write one as {requirement.name}>=1.0.")
        lines.append(f"{requirement.name}=={bounds[0]}\n")
    return "".join(lines)


def install(which: str, folder: Path, interpreter: str) -> Path:
    """Install one of the two sets, and the project itself, into a virtual environment; returns its Python.

    Raises:
        KoaError: pip cannot install the set.
    """
    python = folder / "bin/python"
    if not (folder / "bin/pip").exists():
        subprocess.run([interpreter, "-m", "venv", folder], check=True)
    constraints = folder / "constraints.txt"
    constraints.write_text(lower_bounds(of_the_project()) if which == "oldest" else "")
    command = [python, "-m", "pip", "install", "--disable-pip-version-check", "-c", constraints]
    command += ["--upgrade", "--upgrade-strategy", "eager"]  # also in an environment that was kept
    if subprocess.run([*command, "-e", ROOT, "-r", ROOT / "requirements-dev.txt"]).returncode:
        raise KoaError(f"pip cannot install the {which} set (see its messages above).")
    return python


def suite(python: Path) -> dict:
    """Run the suite, without slow tests, as `make test` does.

    Raises:
        KoaError: it was stopped or could not start.
    """
    with tempfile.TemporaryDirectory() as temporary:
        report = Path(temporary, "report.xml")
        code = subprocess.run([python, *SUITE, f"--junitxml={report}"], cwd=ROOT).returncode
        if code not in SUITE_RAN:
            raise KoaError(f"pytest stopped early with exit code {code}; nothing was written.")
        return outcome(ElementTree.parse(report).getroot())


def outcome(report: ElementTree.Element) -> dict:
    """Counts, minutes and failed tests from pytest's JUnit report."""
    cases = list(report.iter("testcase"))
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = sum(case.find("skipped") is not None for case in cases)
    return {
        "passed": len(cases) - len(failed) - skipped,
        "skipped": skipped,
        "failed": [f"{case.get('classname').replace('.', '/')}.py::{case.get('name')}" for case in failed],
        "minutes": round(sum(float(each.get("time")) for each in report.iter("testsuite")) / 60, 1),
    }


def measure(which: str, folder: Path, interpreter: str) -> dict:
    """Install one set and run the suite with it."""
    python = install(which, folder, interpreter)
    listed = subprocess.run([python, "-m", "pip", "list", "--format=json"], capture_output=True, text=True, check=True)
    found = {canonicalize_name(package["name"]): package["version"] for package in json.loads(listed.stdout)}
    version = subprocess.run([python, "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    names = [requirement.name for requirement in of_the_project()]
    return {
        "date": date.today().isoformat(),
        "git_commit": git_commit(),
        "python": version,
        "packages": {name: found[canonicalize_name(name)] for name in names},
        "suite": suite(python),
    }


def render(result: dict) -> str:
    """The table of docs/code.md: a column per set."""
    sets = {which: result[which] for which in SETS if which in result}
    failures = [f"{test} (with the {which})" for which, one in sets.items() for test in one["suite"]["failed"]]
    rows = [
        ["tests", *(_counts(one["suite"]) for one in sets.values())],
        ["date", *(one["date"] for one in sets.values())],
        ["Python", *(one["python"] for one in sets.values())],
        *([name, *(one["packages"][name] for one in sets.values())] for name in SHOWN),
    ]
    failed = f"\n\nFailed: {'; '.join(failures)}." if failures else ""
    return pages.table(["", *sets], rows) + failed


def _counts(tests: dict) -> str:
    return f"{tests['passed']} passed, {tests['skipped']} skipped, {len(tests['failed'])} failed"


@exit_2_on_bad_input
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SETS, default=SETS, metavar="SET", help=", ".join(SETS))
    parser.add_argument("--environments", type=Path, help="folder of the environments, kept (default: temporary)")
    parser.add_argument("--python", default=sys.executable, help="interpreter of the environments (default: this one)")
    args = parser.parse_args()
    result = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    with contextlib.ExitStack() as stack:
        parent = args.environments or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for which in args.only:
            result[which] = measure(which, parent.resolve() / which, args.python)
            write_text(RESULT, json.dumps(result, indent=2) + "\n")
            pages.replace_block("code.md", "versions", render(result))
    return 1 if any(result[which]["suite"]["failed"] for which in args.only) else 0


if __name__ == "__main__":
    sys.exit(main())
