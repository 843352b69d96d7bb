"""Cohorts: tens of thousands of films, listed, graded on as many machines as there are, and summed up.

- `build`: any tree of films -> a data set with a row a film
- `films`: the films of a data set, in a folder or on the Hub
- `decode`: one film read and its knees found, in a worker process
- `grade`: the films graded, in one process or in each of many
- `results`: the Parquet files that this makes, and their record
- `report`: what they say, as a page and as JSON
"""

__all__ = ["build", "decode", "films", "grade", "report", "results"]
