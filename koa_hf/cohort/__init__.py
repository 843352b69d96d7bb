"""Cohorts: tens of thousands of films, listed, graded on as many machines as there are, and summed up.

- `build`: any tree of films -> a data set with a row a film
"""

__all__ = ["build"]
