"""The suite with the oldest libraries that requirements.txt allows and with the newest: results/versions.json.

    python benchmarks/studies/versions.py                                      # both, one after the other
    python benchmarks/studies/versions.py --only oldest --environments envs    # keeps what it installs, for the next time

Each set is installed from nothing: 7 GB, and half an hour with the suite on two cores. The README's part on versions is
written anew. Tests that need the real data and weights run where KOA_DATA and KOA_WEIGHTS name them. The exit code is 1
where a test failed.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from xml.etree import ElementTree

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.tables import readme
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.files import write_text
from train.loop.record import git_commit

ROOT = Path(__file__).resolve().parents[2]

RESULT = ROOT / "results/versions.json"
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
SUITE_RAN = (0, 1)  # what pytest exits with where every test was run, without and with failures


def requirements(text: str) -> list[Requirement]:
    """Those of a requirements file that this platform needs."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    found = [Requirement(line) for line in lines if line and not line.startswith("-")]
    return [requirement for requirement in found if not requirement.marker or requirement.marker.evaluate()]


def of_the_project() -> list[Requirement]:
    return requirements(REQUIREMENTS.read_text())


def lower_bounds(needed: Iterable[Requirement]) -> str:
    """A constraints file that holds each requirement at its lower bound.

    Raises:
        KoaError: one has none.
    """
    lines = []
    for requirement in needed:
        bounds = [bound.version for bound in requirement.specifier if bound.operator == ">="]
        if not bounds:
            raise KoaError(f"{requirement} has no lower bound; write one as {requirement.name}>=1.0.")
        lines.append(f"{requirement.name}=={bounds[0]}\n")
    return "".join(lines)


def install(which: str, folder: Path) -> Path:
    """An environment with one of the two sets in it.

    Returns:
        Its Python.

    Raises:
        KoaError: pip can't install the set.
    """
    python = folder / "bin/python"
    if not (folder / "bin/pip").exists():
        venv.create(folder, with_pip=True)
    constraints = folder / "constraints.txt"
    constraints.write_text(lower_bounds(of_the_project()) if which == "oldest" else "")
    command = [python, "-m", "pip", "install", "--disable-pip-version-check", "-c", constraints]
    command += ["--upgrade", "--upgrade-strategy", "eager"]  # as from nothing, also in what was kept
    if subprocess.run([*command, "-r", ROOT / "requirements-dev.txt"]).returncode:
        raise KoaError(f"pip can't install the {which} set (its own words are above).")
    return python


def suite(python: Path) -> dict:
    """Run it in an environment; what came of it.

    Raises:
        KoaError: it was stopped, or couldn't start.
    """
    with tempfile.TemporaryDirectory() as temporary:
        report = Path(temporary, "report.xml")
        code = subprocess.run([python, "-m", "pytest", f"--junitxml={report}"], cwd=ROOT).returncode
        if code not in SUITE_RAN:
            raise KoaError(f"pytest ended with exit code {code} before the suite was done; nothing was written.")
        return outcome(ElementTree.parse(report).getroot())


def outcome(report: ElementTree.Element) -> dict:
    """What pytest's JUnit report says: counts, minutes, and which tests failed."""
    cases = list(report.iter("testcase"))
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = sum(case.find("skipped") is not None for case in cases)
    return {
        "passed": len(cases) - len(failed) - skipped,
        "skipped": skipped,
        "failed": [f"{case.get('classname').replace('.', '/')}.py::{case.get('name')}" for case in failed],
        "minutes": round(sum(float(each.get("time")) for each in report.iter("testsuite")) / 60, 1),
    }


def measure(which: str, folder: Path) -> dict:
    """Install one set, run the suite with it; a record of both."""
    python = install(which, folder)
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
    """The README's part."""
    sentences, lines = [], [f"| | Python | {' | '.join(SHOWN)} |", f"| --- |{' --- |' * (1 + len(SHOWN))}"]
    for which in (name for name in SETS if name in result):
        one = result[which]
        tests = one["suite"]
        failed = f"{len(tests['failed'])} failed ({', '.join(tests['failed'])})" if tests["failed"] else "none failed"
        sentences.append(f"the {which}: {tests['passed']} passed, {tests['skipped']} skipped, {failed} ({one['date']})")
        versions = " | ".join(one["packages"][name] for name in SHOWN)
        lines.append(f"| {which} | {one['python']} | {versions} |")
    return f"The suite with {'; with '.join(sentences)}.\n\n" + "\n".join(lines)


@exit_2_on_bad_input
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SETS, default=SETS, metavar="SET", help=f"of {', '.join(SETS)}")
    parser.add_argument("--environments", type=Path, help="folder to install in and keep (default: a temporary one)")
    args = parser.parse_args()
    result = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    with contextlib.ExitStack() as stack:
        parent = args.environments or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for which in args.only:
            result[which] = measure(which, parent.resolve() / which)
            write_text(RESULT, json.dumps(result, indent=2) + "\n")
            readme.put("versions", render(result))
    return 1 if any(result[which]["suite"]["failed"] for which in args.only) else 0


if __name__ == "__main__":
    sys.exit(main())
