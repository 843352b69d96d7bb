"""The environment that the tests run in, and their order; the fixtures are in tests/fixtures.py."""

import atexit
import gc
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests import processes

pytest.register_assert_rewrite("tests.helpers")

if "KOA_TESTS_SHARED" not in os.environ:  # by the first process; its workers inherit it
    os.environ["KOA_TESTS_SHARED"] = tempfile.mkdtemp(prefix="koa-tests-")
    atexit.register(shutil.rmtree, os.environ["KOA_TESTS_SHARED"], ignore_errors=True)
# The Hugging Face libraries read these when they are imported, so they are set before any such import.
_CACHE = tempfile.mkdtemp(prefix="koa-tests-")
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)
os.environ["HF_HOME"] = _CACHE
os.environ["HF_DATASETS_CACHE"] = str(Path(_CACHE, "datasets"))
os.environ["KOA_CACHE"] = str(Path(os.environ["KOA_TESTS_SHARED"], "converted"))
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
# Several processes compute at a time; threads that spin while they wait would take the cores from them.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):  # each has its share of the cores
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // int(workers))))


def pytest_configure(config: pytest.Config) -> None:
    """Load the fixtures where tests run; the process that only hands tests to others saves ten seconds of imports."""
    only_shows = config.option.collectonly or config.option.showfixtures
    if hasattr(config, "workerinput") or only_shows or not config.getoption("numprocesses", None):
        gc.disable()  # until all tests are collected: it takes a fifth of the imports' time
        for plugin in ("tests.fixtures", "tests.fake_hub.fixtures"):
            config.pluginmanager.import_plugin(plugin)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: with two workers, none is left to one of them alone at the end."""
    items.sort(key=lambda item: item.path.stem not in ("test_training", "test_hub", "test_demo_browser"))


def pytest_collection_finish(session: pytest.Session) -> None:
    gc.freeze()  # nobody needs to look through a million imported objects again
    gc.enable()
    atexit.register(gc.unfreeze)  # frozen objects are not freed at the end, which some libraries report as leaks
    if len(session.items) > 100 and not session.config.option.collectonly:
        processes.start_server()  # some test will need it; its imports go on beside the first ones


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args):
    """The system's Chromium, or the one that KOA_CHROMIUM names; pytest-playwright's own need not be installed."""
    candidates = (os.environ.get("KOA_CHROMIUM"), *map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    chromium = next(filter(None, candidates), None)
    if chromium is None:
        pytest.skip("no Chromium here; install it, or name one with the environment variable KOA_CHROMIUM")
    # Chromium's sandbox needs rights that containers lack; it opens nothing but our own page.
    return browser_type_launch_args | {"executable_path": chromium, "args": ["--no-sandbox"]}
