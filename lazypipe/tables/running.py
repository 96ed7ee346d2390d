"""A pass of Spark over a table: a task a partition, with progress, each of which reports one thing."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame

from lazypipe.engines.spark_java import java_told
from lazypipe.engines.spark_jobs import Ends, Look, run_job
from lazypipe.engines.spark_session import is_local
from lazypipe.engines.spark_still import Stillness
from lazypipe.engines.spark_watch import Watch
from lazypipe.errors import DataError
from lazypipe.progress import Progress, StageDone, StageStarted
from lazypipe.tables.frames import ERRORS, unreadable
from lazypipe.tables.passes import REPORT

Work = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]


def reports(frame: DataFrame, work: Work, title: str, uri: str, progress: Progress) -> list[Any]:
    """What the tasks report, in the order of their partitions.

    Raises DataError for what a task could not read or write, EngineError where Java died or no executor is left.
    """
    begun = time.monotonic()
    with java_told(frame.sparkSession.sparkContext, f'"{title}"'):
        try:
            rows = _collected(frame, work, title, progress)
        except ERRORS as error:
            raise unreadable(uri, error) from error
    answers = [pickle.loads(row.report) for row in rows]
    for answer in answers:
        if isinstance(answer, DataError):
            raise answer
    progress.emit(StageDone(title, time.monotonic() - begun))
    return answers


def _collected(frame: DataFrame, work: Work, title: str, progress: Progress) -> list[Any]:
    context = frame.sparkSession.sparkContext
    n_tasks = frame.rdd.getNumPartitions()
    looks: list[Look] = [Ends(progress, n_tasks)]
    if not is_local(context):
        looks.append(Watch(context, progress.emit))
    progress.emit(StageStarted(title, max(1, n_tasks)))
    with Stillness(context, progress, lambda i: f'"{title}", task {i + 1:,} of {n_tasks:,}') as still:
        return run_job(context, title, n_tasks, frame.mapInArrow(work, REPORT).collect, [*looks, still])
