"""Errors caused by input, and how a command reports them."""

import functools
import sys
from collections.abc import Callable


class KoaError(Exception):
    """Unusable input. The message is one sentence for the user: the problem, then the remedy."""


def exit_2_on_bad_input(main: Callable[..., int | None]) -> Callable[..., int]:
    """Wrap a command's `main`: a `KoaError` becomes one sentence on stderr and exit code 2, Ctrl-C becomes 130."""

    @functools.wraps(main)
    def wrapper(*args, **kwargs) -> int:
        try:
            return main(*args, **kwargs) or 0
        except KoaError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130

    return wrapper
