"""Answers that say no, with the headers by which huggingface_hub chooses its exception."""


class HubError(Exception):
    """An HTTP error; `code` becomes X-Error-Code and `message` X-Error-Message and the body's `error`.

    Args:
        status: HTTP status.
        message: one sentence for the person who reads the client's exception.
        code: RepoNotFound, RevisionNotFound, EntryNotFound, GatedRepo, or None where the Hub sends none.
        headers: further headers.
        body: the JSON body, where it is more than `{"error": message}`.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        headers: dict[str, str] | None = None,
        body: dict | None = None,
    ):
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = {"X-Error-Message": message, **(headers or {})}
        if code:
            self.headers["X-Error-Code"] = code
        self.body = {"error": message} if body is None else body


def repository_not_found(anonymous: bool) -> HubError:
    """Unknown, or private and somebody else's: the Hub doesn't tell which, and answers 401 to whoever sent no token."""
    if anonymous:
        body = {"error": "Invalid username or password."}
        return HubError(401, "Repository not found", "RepoNotFound", body=body)
    return HubError(404, "Repository not found", "RepoNotFound")


def revision_not_found(revision: str) -> HubError:
    """No branch, tag or commit of this name."""
    return HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def entry_not_found(path: str, commit: str | None = None, message: str = "Entry not found") -> HubError:
    """No file or folder of this name. With `commit`, clients remember that it doesn't exist there."""
    headers = {"X-Repo-Commit": commit} if commit else {}
    return HubError(404, message, "EntryNotFound", headers, {"error": f"{message}: {path}"})


def gated(repository_id: str, anonymous: bool) -> HubError:
    """The repository is there for everybody to see, but its files are only for those who were let in."""
    message = f"Access to {repository_id} is restricted. You must have access to it and be authenticated to access it."
    return HubError(401 if anonymous else 403, message, "GatedRepo")


def forbidden(message: str) -> HubError:
    """A known caller who may not do this."""
    return HubError(403, message)
