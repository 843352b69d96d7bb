"""The parts of the README that scripts write."""

from pathlib import Path

from koa_hf.errors import KoaError
from koa_hf.files import write_text

README = Path(__file__).resolve().parents[2] / "README.md"


def put(name: str, text: str) -> None:
    """Replace what stands between the README's markers `<!-- NAME: begin -->` and `<!-- NAME: end -->`.

    Raises:
        KoaError: the README has no such markers.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    readme = README.read_text()
    if begin not in readme or end not in readme:
        raise KoaError(f"README.md has no markers for {name!r}: {begin} and {end}.")
    before, _, rest = readme.partition(begin)
    _, _, after = rest.partition(end)
    write_text(README, f"{before}{begin}\n\n{text}\n\n{end}{after}")
