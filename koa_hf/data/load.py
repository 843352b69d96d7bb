"""Load a built data set: from a folder, or one commit of the Hub with its files checked against the Hub's checksums."""

import hashlib
import re
from pathlib import Path

import datasets
from huggingface_hub import constants, resolve_revision
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, RevisionResolutionError
from huggingface_hub.utils import httpx  # the client that the library uses: its errors are the ones to catch

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
        path_or_id: a folder that `build` wrote, or the id of a data set on the Hub.
        configuration: `default` (train, validation, test), or `auto_test` by name.
        revision: branch, tag or commit on the Hub; nothing for a folder. `commit_of` says what it was.

    Returns:
        The splits that are there, with the columns of `shards.FEATURES`.

    Raises:
        KoaError: nothing there, the release itself instead of what `build` makes of it, no network, an unknown
            configuration, or columns missing.
    """
    path = Path(path_or_id)
    if path.exists():
        check_built(path)
        # An absolute path can't be taken for a Hub id, nor for one of the loaders that `datasets` has by name.
        path_or_id = str(path.resolve())
    elif path.is_absolute() or str(path_or_id).startswith((".", "~")) or len(path.parts) > 2:
        raise KoaError(f"{path_or_id} doesn't exist; give a folder written by `python -m koa_hf.data.build build`.")
    name = str(path if path.exists() else path_or_id)
    try:
        if path.exists():
            loaded = datasets.load_dataset(path_or_id, configuration)
        else:
            loaded = _load_from_hub(str(path_or_id), configuration, revision)
    except (ConnectionError, OfflineModeIsEnabled, httpx.TransportError) as error:
        raise KoaError(
            f"{name} is no folder here, and the Hugging Face Hub can't be reached to look for it there, or the "
            "connection broke; check the path, or the network (and that HF_HUB_OFFLINE is not set)."
        ) from error
    except datasets.exceptions.DatasetNotFoundError as error:
        raise KoaError(
            f"{name} is neither a folder here nor a data set on the Hugging Face Hub that you may read"
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
    for split, part in loaded.items():
        check_columns(part.column_names, f"split {split!r} of {name}")
    return loaded


def dataset_fingerprint(dataset: datasets.Dataset) -> str:
    """SHA-256 (hex) over file name, label and image bytes of every row, in order.

    Unlike the fingerprint `datasets` keeps, it depends on nothing but the data: not on the path, the machine, or
    the version that wrote the Parquet. Nothing is decoded; the full training split takes about a second.
    """
    digest = hashlib.sha256()
    columns = ["file_name", "label", "image"]
    undecoded = dataset.select_columns(columns).cast_column("image", datasets.Image(decode=False))
    for batch in undecoded.iter(batch_size=256):
        for file_name, label, image in zip(*(batch[column] for column in columns), strict=True):
            data = image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes()
            # Lengths first, so that no two different lists of rows run together into the same bytes.
            digest.update(f"{len(file_name)} {file_name} {label} {len(data)} ".encode())
            digest.update(data)
    return digest.hexdigest()


def _load_from_hub(dataset_id: str, configuration: str, revision: str | None) -> datasets.DatasetDict:
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
