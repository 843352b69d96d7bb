"""Progress of long work: a bar on a terminal, a line now and then in a log.

for image in ProgressBar(images, "reading"): ...

with progress_bar("reading", total=len(images)) as advance:
    ...
    advance()
"""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO

from tqdm import tqdm

LOG_INTERVAL = 30  # seconds between two lines of a log


class ProgressBar(tqdm):
    """tqdm on stderr, cleared when done. A stream that is no terminal gets a plain line every 30 seconds instead.

    Args:
        iterable: to count while iterating; None to call `update` by hand.
        desc: what is being done, such as "reading".
        total: number of steps; by default the length of `iterable`.
        unit: one step, for the rate.
        file: stream to write to; by default stderr.
        options: tqdm's own, such as `initial` and `disable`.
    """

    def __init__(
        self,
        iterable: Iterable | None = None,
        desc: str | None = None,
        total: int | None = None,
        unit: str = "image",
        file: TextIO | None = None,
        **options: Any,
    ):
        file = file or sys.stderr
        self.plain = not file.isatty()
        if self.plain:
            # The rate is the average so far; miniters=1 keeps tqdm's monitor from writing lines in between.
            options |= {"mininterval": LOG_INTERVAL, "delay": LOG_INTERVAL, "miniters": 1, "smoothing": 0}
        super().__init__(iterable, desc, total, unit=unit, file=file, leave=False, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Draw the bar, or write a line; called by `update` and, once something was shown, by `close`."""
        if not self.plain:
            return super().display(msg, pos)
        if msg == "" and self.n == self.last_print_n:
            return False  # closed after its last line
        seconds = self.format_dict["elapsed"]
        done = f"{self.n}/{self.total}" if self.total else str(self.n)
        parts = [f"{self.desc}: {done}" if self.desc else done]
        if rate := (self.n - self.initial) / max(seconds, 1e-9):
            parts.append(f"{rate:.3g} {self.unit}/s")
            if self.total and self.n < self.total:
                parts.append(f"{self.format_interval((self.total - self.n) / rate)} left")
        if self.n == self.total:
            parts.append(f"done in {self.format_interval(seconds)}")
        self.fp.write(", ".join(parts) + "\n")
        self.fp.flush()
        return False  # tqdm has no bar to clear

    def clear(self, nolock: bool = False) -> None:
        """Take the bar away before something else is printed; a line stays."""
        if not self.plain:
            super().clear(nolock)


@contextlib.contextmanager
def progress_bar(desc: str, total: int, show: bool = True) -> Iterator[Callable[..., bool | None]]:
    """A `ProgressBar`; yields a function to call after each step, or with the number of steps done."""
    with ProgressBar(desc=desc, total=total, disable=not show) as bar:
        yield bar.update
