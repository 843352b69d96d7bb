"""Markdown tables, and the blocks of docs/ that scripts write."""

import argparse
from collections.abc import Callable, Sequence

from benchmarks.reporting import ROOT
from koa_hf.errors import KoaError, exit_2_on_bad_input
from koa_hf.files import write_text

DOCS = ROOT / "docs"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool = False) -> str:
    """Markdown table; with `numbers`, all columns but the first are right-aligned."""
    rule = ["---", *(["---:" if numbers else "---"] * (len(header) - 1))]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, rule, *rows])


def with_interval(value: float, interval: Sequence[float], sign: str = "") -> str:
    """A value and its interval, three decimals; `sign` "+" writes the sign of positive numbers."""
    return f"{value:{sign}.3f} ({interval[0]:{sign}.3f} to {interval[1]:{sign}.3f})"


def replace_block(page: str, name: str, text: str) -> None:
    """Replace the text between `<!-- NAME: begin -->` and `<!-- NAME: end -->` in a page of docs/.

    Raises:
        KoaError: the page has no such markers.
    """
    path, begin, end = DOCS / page, f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    old = path.read_text()
    if begin not in old or end not in old:
        raise KoaError(f"docs/{page} has no block {name!r}; add the lines {begin} and {end}.")
    before, _, rest = old.partition(begin)
    _, _, after = rest.partition(end)
    write_text(path, f"{before}{begin}\n\n{text}\n\n{end}{after}")


def run_script(update: Callable[[], None], description: str) -> int:
    """Call `update` as a command without options other than --help; returns the exit code."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    return exit_2_on_bad_input(update)()
