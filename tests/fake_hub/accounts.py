"""Accounts, their tokens and their rights."""

from dataclasses import dataclass

from tests.fake_hub.store import Repository


@dataclass(frozen=True)
class Caller:
    """The account behind a request's token and what the token may do."""

    account: str
    role: str
    """read or write"""

    def may_write(self, namespace: str) -> bool:
        """True if this token may change repositories of `namespace`."""
        return self.account == namespace and self.role == "write"


ACCOUNT = "user"
STRANGER = "stranger"

TOKENS = {
    "write": ("hf_write", Caller(ACCOUNT, "write")),
    "read": ("hf_read", Caller(ACCOUNT, "read")),
    "stranger": ("hf_stranger", Caller(STRANGER, "write")),
}
"""Kinds of token: the token, and whose it is."""

CALLERS = dict(TOKENS.values())
"""From the token in an Authorization header to its caller."""


def may_read(repository: Repository, caller: Caller | None) -> bool:
    """True if a caller may see a repository: it is public or their own."""
    return not repository.private or (caller is not None and caller.account == repository.owner)
