"""Model folder or Hub id -> local folder, downloaded if needed. Needs no torch."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
from huggingface_hub import errors

from koa_hf.checksums import is_damaged, sha256
from koa_hf.errors import KoaError
from koa_hf.retry import retried

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
RECIPE_BEFORE_FILE = "recipe_before.yaml"
"""The recipe of the run that this run continued."""

BUNDLED_MODEL = "models/koa-xception"
"""Path of the bundled model, relative to the repository."""

MODEL_NAME_FILE = "KOA_MODEL"
"""A file beside app.py that names the model to use, in a copy of the demo made by `koa push space`."""

RETRY_SECONDS = (1, 3)  # short: a user waits
_HUB_FILES = ("*.json", "*.safetensors", "*.yaml", "README.md")


@dataclass(frozen=True)
class ModelFolder:
    """A model on this machine.

    Attributes:
        folder: local folder; of a model on the Hub, its snapshot in the cache.
        model_id: folder or Hub id, as requested.
        revision: Hub commit, or the first 12 hexadecimal digits of the weights' SHA-256.
        note: the model author's notice to users (`koa_note` in config.json); may be empty.
    """

    folder: Path
    model_id: str
    revision: str
    note: str


def find_model(model: str | os.PathLike | None = None, revision: str | None = None) -> ModelFolder:
    """Find a model, and download it if it is on the Hub.

    Args:
        model: folder, or Hub id such as `user/koa-xception` or, with a revision, `user/koa-xception@v1.0`. A folder of
            that name takes precedence. By default `default_model()`.
        revision: branch, tag or commit on the Hub.

    Raises:
        KoaError: no such model, another architecture, damaged, or the Hub is unreachable or denies access.
    """
    model = default_model() if model is None else model
    is_local = Path(model).is_dir()
    if is_local and revision is not None:
        raise KoaError(f"{model} is a local folder, and revisions exist on the Hub only; leave revision out.")
    if not is_local and revision is None:
        model, _, revision = str(model).partition("@")
    folder = Path(model) if is_local else _download(str(model), revision or None)
    config = read_config(folder)
    note = config.get("koa_note", "")
    return ModelFolder(
        folder,
        model_id=str(model),
        # The Hub's cache names a snapshot's folder by its commit.
        revision=sha256(folder / WEIGHTS_FILE)[:12] if is_local else folder.name,
        note=note if isinstance(note, str) else "",
    )


def read_config(folder: Path) -> dict:
    """Read a model folder's config.json.

    Raises:
        KoaError: not a model folder, or config.json is damaged.
    """
    for file in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / file).is_file():
            raise KoaError(f"{folder} is not a model folder: it has no {file}.")
    try:
        config = json.loads((folder / CONFIG_FILE).read_text())
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise KoaError(f"{folder / CONFIG_FILE} is damaged or not a timm config; download the model again.")
    return config


def default_model() -> str:
    """The default model: the environment variable KOA_MODEL, else a Space's file KOA_MODEL, else the bundled model.

    Raises:
        KoaError: there is none, as in an installation without the repository.
    """
    if named := os.environ.get("KOA_MODEL"):
        return named
    repository = Path(__file__).resolve().parents[2]
    if (repository / MODEL_NAME_FILE).is_file():
        return (repository / MODEL_NAME_FILE).read_text().strip()
    bundled = repository / BUNDLED_MODEL
    if not (bundled / CONFIG_FILE).is_file():
        raise KoaError("there is no bundled model here; give a model folder or a Hub id.")
    # Relative if possible, because users see it.
    return BUNDLED_MODEL if Path(BUNDLED_MODEL).resolve() == bundled else str(bundled)


def _download(model_id: str, revision: str | None) -> Path:
    try:
        huggingface_hub.utils.validate_repo_id(model_id)
    except errors.HFValidationError as error:
        raise KoaError(f"{model_id} is neither a folder that exists nor a Hub id like user/model.") from error

    def fetch(**options) -> Path:
        files = list(_HUB_FILES)
        options |= {"revision": revision, "allow_patterns": files}
        return Path(retried(lambda: huggingface_hub.snapshot_download(model_id, **options), RETRY_SECONDS))

    try:
        folder = fetch()
        if any(map(is_damaged, folder.iterdir())):  # the cache compares sizes only
            folder = fetch(force_download=True)
    except errors.GatedRepoError as error:
        raise KoaError(
            f"{model_id} is gated on the Hub: ask for access on its page, then run `hf auth login`."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise KoaError(
            f"{model_id} has no revision {revision!r} on the Hub; check the branch, tag or commit."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise KoaError(
            f"{model_id} is neither a local folder nor a model on the Hub that you can access; check the name, "
            "or run `hf auth login` if it is private."
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise KoaError(
            f"{model_id} is not a local folder, and the Hub can't be reached or fails to deliver it; "
            "check the name, connect to the internet, or give a local folder."
        ) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise KoaError(f"the Hub refuses access to {model_id} (HTTP {status}); run `hf auth login`.") from error
        raise KoaError(f"the Hub failed to deliver {model_id} (HTTP {status}); try again later.") from error
    except Exception as error:  # full disk, proxy, lost connection: the HTTP client has errors of its own
        raise KoaError(f"{model_id} can't be downloaded ({error}); try again, or give a local folder.") from error
    for file in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / file).is_file():
            raise KoaError(f"{model_id} on the Hub is not a model of this project: it has no {file}.")
        if is_damaged(folder / file):
            raise KoaError(
                f"{file} of {model_id} differs from the file on the Hub even after a second download; try again later."
            )
    return folder
