"""How many runs were at work at once, from Dagster's own records."""

from collections.abc import Iterable

import dagster as dg

Span = tuple[float, float]  # from, to; seconds since 1970


def peak(spans: Iterable[Span]) -> int:
    """The largest number of spans that share a moment; one that ends when another starts shares none."""
    edges = sorted([edge for start, end in spans for edge in ((start, 1), (end, -1))])
    most = running = 0
    for _, step in edges:
        running += step
        most = max(most, running)
    return most


def run_spans(instance: dg.DagsterInstance, *, tag: str = "", value: str = "") -> list[Span]:
    """When runs held a place: from their launch to their end; of all runs, or of those with a tag (and value)."""
    spans: list[Span] = []
    for record in instance.get_run_records():
        run = record.dagster_run
        if tag and (tag not in run.tags or (value and run.tags[tag] != value)):
            continue
        stats = instance.get_run_stats(run.run_id)
        start = stats.launch_time or stats.start_time
        if start is not None:
            spans.append((start, stats.end_time or float("inf")))
    return spans


def step_spans(instance: dg.DagsterInstance, prefix: str) -> list[Span]:
    """When steps whose name starts so were at work: what a pool limits. A killed run's step ends with the run."""
    spans: list[Span] = []
    for run in instance.get_runs():
        run_end = instance.get_run_stats(run.run_id).end_time or float("inf")
        steps = instance.get_run_step_stats(run.run_id)
        spans += [
            (step.start_time, step.end_time or run_end)
            for step in steps
            if step.step_key.startswith(prefix) and step.start_time is not None
        ]
    return spans


def peak_runs(instance: dg.DagsterInstance, *, tag: str = "", value: str = "") -> int:
    """The most runs that were live at once."""
    return peak(run_spans(instance, tag=tag, value=value))


def peaks_by_value(instance: dg.DagsterInstance, tag: str) -> dict[str, int]:
    """The same for each value of a tag, e.g. of each lane."""
    values = {run.tags[tag] for run in instance.get_runs() if tag in run.tags}
    return {value: peak_runs(instance, tag=tag, value=value) for value in sorted(values)}
