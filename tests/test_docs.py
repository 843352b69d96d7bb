"""README and docs/: size, links, examples, the files that commands name, and a map that names every module."""

import re
import shutil
from pathlib import Path

import pytest

from tests.helpers import zipped
from tests.processes import run

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


SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "api.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=("gradio_client", "http", "mcp"))
def test_the_examples_of_the_api_run_as_written(snippet, demo_url, knee_png, film_png, tmp_path):
    for path in (knee_png, film_png):
        shutil.copy(path, tmp_path)
    (tmp_path / "more.zip").write_bytes(zipped({"knee.png": knee_png.read_bytes()}))
    done = run("-c", snippet.replace("http://127.0.0.1:7860", demo_url.rstrip("/")), cwd=tmp_path)
    assert re.search(r"^(right )?[0-4]\b", done.stdout, re.MULTILINE), done.stdout


def test_the_map_of_the_code_names_every_module():
    words = set(re.findall(r"\w+", (ROOT / "docs" / "code.md").read_text()))
    modules = {path.stem for room in ("koa_hf", "train", "benchmarks") for path in (ROOT / room).rglob("*.py")}
    assert modules - words == {"__init__", "__main__"}
