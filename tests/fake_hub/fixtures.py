"""Fixtures: a Hub for a test, and one for a whole session."""

import pytest

from tests.fake_hub.server import Hub


@pytest.fixture
def hub(tmp_path_factory):
    """A Hub of the test's own, empty and without faults."""
    with Hub(tmp_path_factory.mktemp("hub")) as running:
        yield running


@pytest.fixture(scope="session")
def shared_hub(tmp_path_factory):
    """One Hub for all tests of a session, for what is published once and read often."""
    with Hub(tmp_path_factory.mktemp("shared-hub")) as running:
        yield running
