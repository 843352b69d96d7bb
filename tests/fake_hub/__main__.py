"""Run a Hub by hand.

python -m tests.fake_hub --port 8100 --folder my-hub
"""

import argparse
import contextlib
import signal
import sys
import tempfile
import threading
from pathlib import Path

from tests.fake_hub.accounts import TOKENS
from tests.fake_hub.server import Hub


def main() -> None:
    parser = argparse.ArgumentParser(description="A small Hugging Face Hub on loopback, for tests.")
    parser.add_argument("--port", type=int, default=0, help="0 for a free one (default)")
    parser.add_argument("--folder", type=Path, help="where repositories are kept; default: a folder that is deleted")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = arguments.folder or stack.enter_context(tempfile.TemporaryDirectory(prefix="hub-"))
        hub = stack.enter_context(Hub(folder, arguments.port))
        print(f"export HF_ENDPOINT={hub.url} HF_HUB_DISABLE_XET=1 HF_TOKEN={hub.token('write')}")
        for kind, (token, caller) in TOKENS.items():
            print(f"# token {kind}: {token} ({caller.account}, may {caller.role})")
        print("# Ctrl+C ends it", flush=True)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
