"""A data set from the Hub, as `datasets` loads it, with what `datasets` leaves open: which commit it is, and whether
the files arrived undamaged.
"""

import re
from pathlib import Path

import datasets
from huggingface_hub import constants, resolve_revision
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RevisionResolutionError

from koa_hf.checksums import is_damaged
from koa_hf.errors import KoaError
from koa_hf.retry import retried

RETRY_SECONDS = (1, 3)


def load(dataset_id: str, configuration: str, revision: str | None) -> datasets.DatasetDict:
    """`datasets.load_dataset`, of one commit.

    Without a network the cache serves; then `datasets` gives the newest commit that it has, whatever revision was
    asked for, which is found out here. The cache compares only the size of what it downloads; what differs from the
    Hub's checksum is downloaded once more.

    Raises:
        KoaError: the cache has another revision than the one asked for, or the files arrive damaged again and again.
        Exception: whatever `datasets` raises.
    """
    commit = _commit_of_revision(dataset_id, revision)

    def fetch(**options) -> datasets.DatasetDict:
        options |= {"revision": commit or revision}
        return retried(lambda: datasets.load_dataset(dataset_id, configuration, **options), RETRY_SECONDS)

    try:
        loaded, failure = fetch(), None
    except datasets.exceptions.DatasetsError as error:  # of a damaged file, perhaps
        loaded, failure = None, error
    except FileNotFoundError as error:
        if "LocalEntryNotFoundError" not in str(error):
            raise
        raise KoaError(
            f"{dataset_id} is no folder here, and the Hub can't be reached, or fails, to download it; try again later."
        ) from error
    if _damaged(dataset_id, commit):
        loaded, failure = fetch(download_mode="force_redownload"), None
        if damaged := _damaged(dataset_id, commit):
            raise KoaError(
                f"{damaged[0].name} of {dataset_id} differs from what the Hub holds, in spite of a second download; "
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
    """The Hub's commit (40 hexadecimal digits) that a loaded data set is; None where it came from a folder."""
    # `datasets` keeps it only in the name of the folder that it caches the rows in.
    files = [file["filename"] for part in loaded.values() for file in part.cache_files]
    folder = Path(files[0]).parent.name if files else ""
    return folder if re.fullmatch("[0-9a-f]{40}", folder) else None


def _commit_of_revision(dataset_id: str, revision: str | None) -> str | None:
    try:
        return resolve_revision(dataset_id, repo_type="dataset", revision=revision).resolved
    except (RevisionResolutionError, HfHubHTTPError, HFValidationError, OSError):
        return None  # `datasets` will say what is wrong


def _damaged(dataset_id: str, commit: str | None) -> list[Path]:
    """Files in the cache of a commit that differ from what the Hub has."""
    if commit is None:
        return []
    repository = Path(constants.HF_HUB_CACHE, f"datasets--{dataset_id.replace('/', '--')}")
    return [file for file in sorted(repository.glob(f"snapshots/{commit}/**/*.parquet")) if is_damaged(file)]
