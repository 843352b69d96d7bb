"""README and docs/: size, links, the files that commands name, and a map of the code that names every module."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "results").glob("*/README.md")])


def test_the_readme_stays_short():
    assert len((ROOT / "README.md").read_bytes()) <= 10_000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_and_scripts_of_a_page_exist(page):
    text = page.read_text()
    links = [link for link in re.findall(r"\]\(([^)#\s]+)\)", text) if "://" not in link]
    missing = [link for link in links if not (page.parent / link).exists()]
    scripts = set(re.findall(r"\b(?:app|(?:train|benchmarks)/[\w/]+)\.py\b", text))
    missing += [script for script in scripts if not (ROOT / script).is_file()]
    assert missing == []


def test_the_map_of_the_code_names_every_module():
    words = set(re.findall(r"\w+", (ROOT / "docs" / "code.md").read_text()))
    modules = {path.stem for room in ("koa_hf", "train", "benchmarks") for path in (ROOT / room).rglob("*.py")}
    assert modules - words == {"__init__", "__main__"}
