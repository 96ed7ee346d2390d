"""A pass of Spark over a table: a task a partition, with progress, each of which reports one thing."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
from pyspark import SparkContext
from pyspark.sql import DataFrame

from lazypipe.errors import DataError
from lazypipe.progress import Progress, StageDone, StageStarted, TaskDone
from lazypipe.tables.frames import ERRORS, unreadable
from lazypipe.tables.passes import REPORT

POLL_SECONDS = 0.1

Work = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]


def reports(frame: DataFrame, work: Work, title: str, uri: str, progress: Progress) -> list[Any]:
    """What the tasks report, in the order of their partitions; DataError for what a task could not read or write."""
    context = frame.sparkSession.sparkContext
    group = f"lazypipe-table-{time.monotonic_ns()}"
    begun = time.monotonic()

    def collect() -> list[Any]:
        context.setJobGroup(group, title, interruptOnCancel=True)
        return frame.mapInArrow(work, REPORT).collect()

    try:
        n_tasks = frame.rdd.getNumPartitions()
    except ERRORS as error:
        raise unreadable(uri, error) from error
    progress.emit(StageStarted(title, max(1, n_tasks)))
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(collect)
        told = 0
        try:
            while not future.done():
                time.sleep(POLL_SECONDS)
                done = min(n_done(context, group), n_tasks)
                if done > told:
                    told = done
                    progress.emit(TaskDone(done, n_tasks))
            rows = future.result()
        except ERRORS as error:
            raise unreadable(uri, error) from error
        except BaseException:
            context.cancelJobGroup(group)
            raise
    answers = [pickle.loads(row.report) for row in rows]
    for answer in answers:
        if isinstance(answer, DataError):
            raise answer
    progress.emit(StageDone(title, time.monotonic() - begun))
    return answers


def n_done(context: SparkContext, group: str) -> int:
    """Tasks of the job group that are done."""
    tracker = context.statusTracker()
    jobs = [tracker.getJobInfo(job_id) for job_id in tracker.getJobIdsForGroup(group)]
    stages = [tracker.getStageInfo(stage_id) for job in jobs if job for stage_id in job.stageIds]
    return sum(stage.numCompletedTasks for stage in stages if stage)
