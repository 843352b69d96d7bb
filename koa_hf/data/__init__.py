"""The public release as a Hugging Face data set: built, checked and loaded.

- `release`: the release's files, in a folder or a zip
- `build`: release -> data set folder
- `shards`: Parquet shards, written and read
- `dataset_card`: the data set's README.md
- `verify`: a check of a release or a data set, image by image
- `load`: a data set folder or Hub id -> DatasetDict
"""

__all__ = ["build", "dataset_card", "load", "release", "shards", "verify"]
