"""The switch for faults: what goes wrong, where, and how often."""

import fnmatch
import threading
from dataclasses import asdict, dataclass

EFFECTS = ("error", "cut", "cut_upload", "slow", "corrupt")


@dataclass
class Fault:
    """One thing that goes wrong.

    Args:
        effect: one of `EFFECTS`; the methods of `Faults` say what each does.
        where: the name of an endpoint (README.md lists them), or * for all.
        path: a shell pattern for the decoded path of the URL, such as `*/model.safetensors`.
        method: GET, HEAD, ...; None for all.
        times: how many requests it strikes; -1 for all.
        skip: how many matching requests it lets pass first.
        status: the status of an `error`.
        retry_after: seconds in the Retry-After header of an `error`.
        after: bytes after which the connection is cut; a float between 0 and 1 is a fraction of the body.
        reset: cut by a TCP reset instead of an orderly close.
        seconds: how long `slow` waits before the answer.
    """

    effect: str
    where: str = "*"
    path: str = "*"
    method: str | None = None
    times: int = 1
    skip: int = 0
    status: int = 500
    retry_after: int | None = None
    after: int | float = 0.5
    reset: bool = False
    seconds: float = 0.0

    def __post_init__(self):
        if self.effect not in EFFECTS:
            raise ValueError(f"effect is {self.effect!r}, but must be one of {', '.join(EFFECTS)}")

    def matches(self, where: str, method: str, path: str) -> bool:
        """True if it can strike this request. The answer to a HEAD has no body to cut or corrupt."""
        return (
            self.times != 0
            and not (method == "HEAD" and self.effect in ("cut", "corrupt"))
            and self.where in ("*", where)
            and self.method in (None, method)
            and fnmatch.fnmatchcase(path, self.path)
        )


class Faults:
    """The faults that are set, and those that struck. May be used from any thread while the Hub runs."""

    def __init__(self):
        self._lock = threading.Lock()
        self._set: list[Fault] = []
        self.struck: list[dict] = []
        """Faults that struck so far, each a dict with the request's method and path."""

    def error(self, where: str = "*", status: int = 500, **options) -> Fault:
        """Answer with an HTTP error and do nothing. `retry_after=SECONDS` goes with status 429."""
        return self.add(Fault("error", where, status=status, **options))

    def cut(self, where: str = "download", after: int | float = 0.5, **options) -> Fault:
        """Carry the request out, but cut the connection after so much of the answer's body; 0: nothing is answered."""
        return self.add(Fault("cut", where, after=after, **options))

    def cut_upload(self, where: str = "lfs-put", after: int | float = 0.5, **options) -> Fault:
        """Cut the connection after so much of the request's body and carry nothing out."""
        return self.add(Fault("cut_upload", where, after=after, **options))

    def slow(self, where: str = "*", seconds: float = 1.0, **options) -> Fault:
        """Wait before the answer."""
        return self.add(Fault("slow", where, seconds=seconds, **options))

    def corrupt(self, where: str = "download", **options) -> Fault:
        """Change one byte on the way: of the body that is sent, or for `lfs-put` of the body that arrives."""
        return self.add(Fault("corrupt", where, **options))

    def add(self, fault: Fault) -> Fault:
        """Set a fault; it works beside those already set."""
        with self._lock:
            self._set.append(fault)
        return fault

    def clear(self) -> None:
        """Take all faults back and forget what struck."""
        with self._lock:
            self._set.clear()
            self.struck.clear()

    def take(self, where: str, method: str, path: str) -> list[Fault]:
        """The faults that strike this request, counted as used. At most one of each effect."""
        with self._lock:
            taken: dict[str, Fault] = {}
            for fault in self._set:
                if fault.effect in taken or not fault.matches(where, method, path):
                    continue
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                if fault.times > 0:
                    fault.times -= 1
                taken[fault.effect] = fault
                self.struck.append({**asdict(fault), "where": where, "method": method, "path": path})
            return list(taken.values())
