"""Cohorts: tens of thousands of films, listed, graded on as many machines as there are, and summed up.

- `build`: any tree of films -> a data set with a row a film
- `films`: the films of a data set, in a folder or on the Hub
- `decode`: one film read and its knees found, in a worker process
- `grade`: the films graded, in one process or in each of many
- `results`: the Parquet files that this makes, and their record
- `report`: what they say, as a page and as JSON
"""

FILMS_PER_SHARD = 256
"""Films of one Parquet file. A shard is graded by one process, and graded again after a crash."""

BATCH_SIZE = 16
"""Knees graded in one forward pass."""

SECONDS = 120
"""Longest time for reading one film and finding its knees."""

REPEATS = 1000
"""Bootstrap samples of the report's intervals."""

__all__ = [
    "BATCH_SIZE",
    "FILMS_PER_SHARD",
    "REPEATS",
    "SECONDS",
    "build",
    "decode",
    "films",
    "grade",
    "report",
    "results",
]
