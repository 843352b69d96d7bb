"""The Hub as something to start and stop, and the environment that sends clients to it."""

import asyncio
import contextlib
import inspect
import socket
import struct
import subprocess
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from tests import processes
from tests.fake_hub.accounts import ACCOUNT, STRANGER, TOKENS
from tests.fake_hub.app import HubApp
from tests.fake_hub.faults import Faults
from tests.fake_hub.store import Store


class Hub:
    """A Hub on loopback, empty or with what `folder` holds. Runs in a thread of this process from `start` to `stop`.

    Args:
        folder: where repositories are kept.
        port: of the Hub itself; 0 for a free one. The storage host takes another free one.
    """

    account = ACCOUNT
    """The account of the tokens "write" and "read"."""
    stranger = STRANGER
    """The account of the token "stranger"."""

    def __init__(self, folder: Path, port: int = 0):
        self.store = Store(folder)
        self.faults = Faults()
        self._connections: dict[tuple, asyncio.Transport] = {}
        self._app = HubApp(self.store, self.faults, self._disconnect)
        self._port = port
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self.url = ""

    @property
    def requests(self) -> list[dict]:
        """Every request so far, oldest first: endpoint, method, path, status, account, range, user_agent."""
        return self._app.requests

    def upload_in_parts(self, size: int | None) -> None:
        """LFS files larger than `size` bytes are to be uploaded in parts of that size; None for one PUT a file."""
        self._app.part_size = size

    def start(self) -> "Hub":
        """Listen, and return when requests are answered."""
        sockets = [_listen(self._port), _listen(0)]
        self._port, storage_port = (listening.getsockname()[1] for listening in sockets)
        self.url = f"http://127.0.0.1:{self._port}"
        self._app.storage_port = storage_port
        self._app.storage_url = f"http://127.0.0.1:{storage_port}"
        connections = self._connections

        class Protocol(H11Protocol):
            """uvicorn's, but the transports can be found, so that faults can cut them."""

            def connection_made(self, transport):
                self.peer = tuple(transport.get_extra_info("peername"))
                connections[self.peer] = transport
                super().connection_made(transport)

            def connection_lost(self, exc):
                connections.pop(self.peer, None)
                super().connection_lost(exc)

        config = uvicorn.Config(
            self._app,
            http=Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        started = threading.Event()

        async def serve():
            serving = asyncio.create_task(self._server.serve(sockets=sockets))
            while not self._server.started and not serving.done():
                await asyncio.sleep(0.005)
            started.set()
            await serving

        self._thread = threading.Thread(target=lambda: asyncio.run(serve()), name="hub", daemon=True)
        self._thread.start()
        started.wait(timeout=30)
        if not self._server.started:
            raise RuntimeError("The test Hub didn't start")
        return self

    def stop(self) -> None:
        """Answer no more requests."""
        if self._server is not None:
            self._server.should_exit = True
            self._thread.join(timeout=10)

    def __enter__(self) -> "Hub":
        return self.start()

    def __exit__(self, *_) -> None:
        self.stop()

    def token(self, kind: str = "write") -> str:
        """An access token: "write" or "read" of `account`, or "stranger", which may write elsewhere.

        Raises:
            ValueError: another kind.
        """
        if kind not in TOKENS:
            raise ValueError(f"token kind is {kind!r}, but must be one of {', '.join(TOKENS)}")
        return TOKENS[kind][0]

    def environment(self, home: Path, token: str | None = "write", **variables: str) -> dict[str, str]:
        """The environment of a client process that knows only this Hub.

        Args:
            home: its HF_HOME; use another folder for a client without a cache.
            token: "write", "read", "stranger", None for a client that isn't logged in, or a token as such.
            variables: further variables, such as HF_HUB_OFFLINE="1".
        """
        variables = {"GRADIO_ANALYTICS_ENABLED": "False", "NO_PROXY": "127.0.0.1,localhost"} | variables
        if token is not None:
            variables["HF_TOKEN"] = TOKENS[token][0] if token in TOKENS else token
        return processes.client_environment(home, HF_ENDPOINT=self.url, **variables)

    def run(
        self,
        client: str | Callable[[], None],
        home: Path,
        token: str | None = "write",
        *,
        check: bool = True,
        timeout: float = 900,
        **variables: str,
    ) -> subprocess.CompletedProcess:
        """Run a client in a process of its own, away from this project's folder, and return its output.

        Args:
            client: Python code, or a function without arguments that imports what it needs (its source is sent).
            home: its HF_HOME and working folder.
            token, variables: as for `environment`.
            check: fail where the client fails.
            timeout: seconds.

        Raises:
            AssertionError: the client failed; says what it wrote.
        """
        if callable(client):
            client = f"{textwrap.dedent(inspect.getsource(client))}\n{client.__name__}()"
        Path(home).mkdir(parents=True, exist_ok=True)
        environment = self.environment(home, token, **variables)
        return processes.run("-c", client, env=environment, cwd=home, check=check, timeout=timeout)

    def _disconnect(self, peer: tuple, reset: bool) -> None:
        """Close a client's connection: orderly after what is still to be sent, or at once by a TCP reset."""
        if (transport := self._connections.get(peer)) is None:
            return
        if reset:
            with contextlib.suppress(OSError):
                linger = struct.pack("ii", 1, 0)
                transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            transport.abort()
        else:
            transport.close()


def _listen(port: int) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    return listening
