"""Table of docs/command-line.md: the fields of a result.

python benchmarks/tables/field_tables.py
"""

import sys

from benchmarks.tables.pages import replace_block, run_script, table
from koa_hf.grading.result import Grading

PAGE = "command-line.md"


def update() -> None:
    """Rewrite the block of the page."""
    rows = [[f"`{name}`", description] for name, description in Grading.descriptions().items()]
    replace_block(PAGE, "result fields", table(["field", "description"], rows))


if __name__ == "__main__":
    sys.exit(run_script(update, __doc__))
