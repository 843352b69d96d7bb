"""Load a built data set from a folder, or from one commit of the Hub with its files checked against their checksums."""

import contextlib
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import datasets
from huggingface_hub import constants, resolve_revision
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, RevisionResolutionError
from huggingface_hub.utils import httpx  # the HTTP client of huggingface_hub, for its errors

from koa_hf.checksums import is_damaged
from koa_hf.data.shards import check_built, check_columns, first_line
from koa_hf.errors import KoaError
from koa_hf.retry import retried

RETRY_SECONDS = (1, 3)


def load_dataset(
    path_or_id: str | Path, configuration: str = "default", revision: str | None = None
) -> datasets.DatasetDict:
    """Load a built data set.

    Args:
        path_or_id: a folder that `koa dataset build` wrote, or the id of a data set on the Hub.
        configuration: `default` (train, validation, test), or `auto_test`.
        revision: branch, tag or commit on the Hub; ignored for a folder. `commit_of` tells the commit.

    Returns:
        The splits that exist, with the columns `shards.FEATURES`.

    Raises:
        KoaError: nothing there, the release itself instead of the data set built from it, no network, an unknown
            configuration, or missing columns.
    """
    path = Path(path_or_id)
    if path.exists():
        check_built(path)
        # Absolute, so that `datasets` takes it neither for a Hub id nor for one of its own loaders, such as csv.
        path_or_id = str(path.resolve())
    elif path.is_absolute() or str(path_or_id).startswith((".", "~")) or len(path.parts) > 2:
        raise KoaError(f"{path_or_id} doesn't exist; give a folder written by `koa dataset build`.")
    name = str(path if path.exists() else path_or_id)
    with explained(name, configuration, revision):
        if path.exists():
            loaded = datasets.load_dataset(path_or_id, configuration)
        else:
            loaded = _load_from_hub(str(path_or_id), configuration, revision)
    for split, part in loaded.items():
        check_columns(part.column_names, f"split {split!r} of {name}")
    return loaded


@contextlib.contextmanager
def explained(name: str, configuration: str = "default", revision: str | None = None) -> Iterator[None]:
    """Turn what `datasets` raises while it loads `name`, a folder or an id on the Hub, into a KoaError."""
    try:
        yield
    except (ConnectionError, OfflineModeIsEnabled, httpx.TransportError) as error:
        raise KoaError(
            f"{name} is not a local folder, and the Hugging Face Hub can't be reached, or the connection broke; "
            "check the path, or the network (and that HF_HUB_OFFLINE is not set)."
        ) from error
    except datasets.exceptions.DatasetNotFoundError as error:
        raise KoaError(
            f"{name} is neither a local folder nor a data set on the Hugging Face Hub that you may read"
            f"{f' at revision {revision}' if revision else ''}; check the spelling, or log in with `hf auth login`."
        ) from error
    except (FileNotFoundError, HFValidationError, HfHubHTTPError) as error:
        raise KoaError(f"{name} can't be loaded: {first_line(error)}") from error
    except datasets.exceptions.DatasetsError as error:
        raise KoaError(
            f"{name} is damaged ({first_line(error.__cause__ or error)}); build or download it again."
        ) from error
    except ValueError as error:
        if "BuilderConfig" not in str(error):
            raise
        raise KoaError(f"{name} has no configuration {configuration!r}; its card lists those it has.") from error


def dataset_fingerprint(dataset: datasets.Dataset) -> str:
    """SHA-256 (hex) over file name, label and image bytes of every row, in order.

    Unlike the fingerprint of `datasets`, it depends on the data alone: not on the path, the machine, or the version
    that wrote the Parquet. No image is decoded; the full training split takes about a second.
    """
    digest = hashlib.sha256()
    columns = ["file_name", "label", "image"]
    undecoded = dataset.select_columns(columns).cast_column("image", datasets.Image(decode=False))
    for batch in undecoded.iter(batch_size=256):
        for file_name, label, image in zip(*(batch[column] for column in columns), strict=True):
            data = image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes()
            # Length-prefixed, so that two different lists of rows never give the same bytes.
            digest.update(f"{len(file_name)} {file_name} {label} {len(data)} ".encode())
            digest.update(data)
    return digest.hexdigest()


def _load_from_hub(dataset_id: str, configuration: str, revision: str | None) -> datasets.DatasetDict:
    """Load one commit with `datasets.load_dataset`.

    Without a network, `datasets` returns the newest commit in its cache whatever the revision, which is detected here.
    The cache compares only file sizes; a file that differs from the Hub's checksum is downloaded once more.

    Raises:
        KoaError: the cache lacks the revision asked for, or a file is damaged after a second download.
        Exception: anything `datasets` raises.
    """
    commit = commit_of_revision(dataset_id, revision)

    def fetch(**options) -> datasets.DatasetDict:
        options |= {"revision": commit or revision}
        return retried(lambda: datasets.load_dataset(dataset_id, configuration, **options), RETRY_SECONDS)

    try:
        loaded, failure = fetch(), None
    except datasets.exceptions.DatasetsError as error:  # possibly because of a damaged file
        loaded, failure = None, error
    except FileNotFoundError as error:
        if "LocalEntryNotFoundError" not in str(error):
            raise
        raise KoaError(
            f"{dataset_id} is not a local folder, and the Hub can't be reached or failed to deliver it; try later."
        ) from error
    if _damaged(dataset_id, commit):
        loaded, failure = fetch(download_mode="force_redownload"), None
        if damaged := _damaged(dataset_id, commit):
            raise KoaError(
                f"{damaged[0].name} of {dataset_id} differs from the Hub's checksum even after a second download; "
                "try again later."
            )
    if failure is not None:
        raise failure
    if revision is not None and commit_of(loaded) != commit:
        raise KoaError(
            f"{dataset_id} at revision {revision} is not in the cache, and the Hub can't be reached to get it; "
            "check the network (and that HF_HUB_OFFLINE is not set)."
        )
    return loaded


def commit_of(loaded: datasets.DatasetDict) -> str | None:
    """Hub commit (40 hexadecimal digits) of a loaded data set; None if it came from a folder."""
    # `datasets` keeps it only in the name of its cache folder.
    files = [file["filename"] for part in loaded.values() for file in part.cache_files]
    folder = Path(files[0]).parent.name if files else ""
    return folder if re.fullmatch("[0-9a-f]{40}", folder) else None


def commit_of_revision(dataset_id: str, revision: str | None) -> str | None:
    """Hub commit of a branch, tag or commit; None if it can't be found out."""
    try:
        return resolve_revision(dataset_id, repo_type="dataset", revision=revision).resolved
    except (RevisionResolutionError, HfHubHTTPError, HFValidationError, OSError):
        return None  # `datasets` will raise the error that explains it


def _damaged(dataset_id: str, commit: str | None) -> list[Path]:
    """Cached Parquet files of a commit that differ from their checksums."""
    if commit is None:
        return []
    repository = Path(constants.HF_HUB_CACHE, f"datasets--{dataset_id.replace('/', '--')}")
    return [file for file in sorted(repository.glob(f"snapshots/{commit}/**/*.parquet")) if is_damaged(file)]
