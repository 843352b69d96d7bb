"""Grade a cohort, in one process or in each of many.

Films are read and their knees found in worker processes, ahead of the grader, which grades them in batches. A shard of
films becomes a Parquet file of results, and its batches end with it: so the result does not depend on the number of
processes, nor on where a run was killed. A film that takes too long, or that kills its worker, is a row with an error.
"""

import contextlib
import dataclasses
import itertools
import multiprocessing
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from pebble import ProcessExpired, ProcessPool

from koa_hf.cohort import BATCH_SIZE, SECONDS, decode
from koa_hf.cohort.films import Film, Films
from koa_hf.cohort.results import Results, row_of
from koa_hf.cores import available_cores
from koa_hf.errors import KoaError
from koa_hf.grading.examination import FoundKnees, grade_found
from koa_hf.grading.result import KneeGrader, NotGraded
from koa_hf.progress import ProgressBar

AHEAD = 4
"""Films that are being read, or wait for the grader, for each worker."""


@dataclass
class Counts:
    """Numbers of films, rows of knees, and films with an error that one process graded."""

    films: int = 0
    knees: int = 0
    errors: int = 0


def grade_cohort(
    grader: KneeGrader,
    films: Films,
    out: str | Path,
    *,
    about: dict[str, object] | None = None,
    whole: bool = False,
    process: int = 0,
    processes: int = 1,
    workers: int | None = None,
    batch_size: int = BATCH_SIZE,
    seconds: float = SECONDS,
    progress: bool = False,
) -> tuple[Results, Counts]:
    """Grade this process's share of a cohort: the shards `process`, `process + processes`, ... that are not graded yet.

    Args:
        films: the cohort.
        out: folder of the results; results of the same run that are there are kept.
        about: what else has to be the same for all results in one folder, such as the engine.
        whole: grade each image as one knee, without finding knees in it.
        process, processes: number of this process, from 0, and of all.
        workers: processes that read films; by default this machine's cores, shared among its processes.
        batch_size: knees of one forward pass. Not part of the record: it changes the last digits at most.
        seconds: longest time for one film.
        progress: show progress on stderr.

    Returns:
        The results, of which shards of other processes may be missing, and what this process did.

    Raises:
        KoaError: `out` holds other results or can't be written, or the data set can't be read.
    """
    results = Results(Path(out), films.shards, films.features)
    model = {"model": grader.model_id, "model_revision": grader.revision, "whole": whole}
    results.start(films.identity | model | (about or {}))
    todo = [number for number in results.missing() if number % processes == process]
    counts = Counts()
    # About right: shards are of similar length.
    total = round(films.films * len(todo) / films.shards) if films.films is not None else None
    desc = "grading" if processes == 1 else f"grading, process {process + 1} of {processes}"
    workers = workers or share_of_cores()
    with (
        ProgressBar(desc=desc, total=total, unit="film", disable=not progress or not todo) as bar,
        reading(workers) as pool,
    ):
        ahead = _ahead(pool, films, todo, whole, seconds, AHEAD * workers)
        for number, shard in itertools.groupby(ahead, key=lambda one: one[0]):
            rows: list[dict] = []
            for batch in _batches((film for _, film in shard if film), seconds, batch_size):
                rows += _graded(grader, batch, counts)
                bar.update(len(batch))
            results.write(number, rows)
    if not results.missing():
        results.finish()
    return results, counts


def share_of_cores() -> int:
    """This process's share of the machine's cores, at least 1."""
    return max(1, available_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


@contextlib.contextmanager
def reading(workers: int) -> Iterator[ProcessPool]:
    """Worker processes that read films, until the block ends."""
    # Spawned: a fork would copy the grader's threads.
    pool = ProcessPool(workers, initializer=decode.start_worker, context=multiprocessing.get_context("spawn"))
    try:
        yield pool
    finally:
        pool.stop()
        pool.join()


def _ahead(
    pool: ProcessPool, films: Films, shards: list[int], whole: bool, seconds: float, length: int
) -> Iterator[tuple[int, tuple[Film, Future] | None]]:
    """The films of some shards with their knees to come, read ahead by `length`; None at the end of each shard."""
    waiting: deque[tuple[int, tuple[Film, Future] | None]] = deque()
    for number in shards:
        for film in films.shard(number):
            knees = pool.schedule(decode.find_on, args=(film.image, film.name, film.side, whole), timeout=seconds)
            waiting.append((number, (dataclasses.replace(film, image={}), knees)))
            if len(waiting) > length:
                yield waiting.popleft()
        waiting.append((number, None))  # a shard without films is a file without rows
    yield from waiting


def _batches(
    films: Iterator[tuple[Film, Future]], seconds: float, batch_size: int
) -> Iterator[list[tuple[Film, FoundKnees | NotGraded]]]:
    """Films in order, gathered until they have `batch_size` knees."""
    batch: list[tuple[Film, FoundKnees | NotGraded]] = []
    knees = 0
    for film, future in films:
        found = _outcome(film, future, seconds)
        batch.append((film, found))
        knees += len(found.crops) if isinstance(found, FoundKnees) else 0
        if knees >= batch_size:
            yield batch
            batch, knees = [], 0
    if batch:
        yield batch


def _outcome(film: Film, future: Future, seconds: float) -> FoundKnees | NotGraded:
    try:
        return future.result()
    except KoaError as error:
        return NotGraded(file=film.name, error=str(error))
    except TimeoutError:
        error = f"{film.name} took more than {seconds:g} seconds to read; export it again, or allow more time."
        return NotGraded(file=film.name, error=error)
    except ProcessExpired:
        return NotGraded(file=film.name, error=f"{film.name} crashed the process that read it; export it again.")
    except BrokenProcessPool as error:
        raise KoaError(
            "the processes that read films died, perhaps for want of memory; start the same command again, with fewer "
            "--workers."
        ) from error


def _graded(grader: KneeGrader, batch: list[tuple[Film, FoundKnees | NotGraded]], counts: Counts) -> list[dict]:
    knees = iter(grade_found(grader, [found for _, found in batch if isinstance(found, FoundKnees)]))
    rows = []
    for film, found in batch:
        outcomes = [found] if isinstance(found, NotGraded) else [knee.grading for knee in next(knees)]
        rows += [row_of(outcome, film.columns) for outcome in outcomes]
        counts.films += 1
        counts.errors += isinstance(found, NotGraded)
        counts.knees += 0 if isinstance(found, NotGraded) else len(outcomes)
    return rows
