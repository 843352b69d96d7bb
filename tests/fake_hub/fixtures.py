"""Fixtures: a Hub for a test, and one for a whole session. Both answer at the one address that clients know."""

import pytest

from tests.fake_hub.server import Hub
from tests.processes import HUB_PORT


@pytest.fixture(scope="session")
def shared_hub(tmp_path_factory):
    """One Hub for all tests of a session, for what is published once and read often."""
    with Hub(tmp_path_factory.mktemp("shared-hub"), HUB_PORT) as running:
        yield running


@pytest.fixture
def hub(shared_hub, tmp_path_factory):
    """A Hub of the test's own, empty and without faults, in the place of the shared one."""
    shared_hub.stop()
    with Hub(tmp_path_factory.mktemp("hub"), HUB_PORT) as running:
        yield running
    shared_hub.start()
