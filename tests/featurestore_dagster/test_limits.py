"""Peaks of concurrency: of spans, and from Dagster's records."""

import dagster as dg

from featurestore_dagster.limits import peak, peak_runs, peaks_by_value


def test_the_peak_is_the_most_spans_that_share_a_moment() -> None:
    assert peak([]) == 0
    assert peak([(0, 10), (10, 20), (20, 30)]) == 1
    assert peak([(0, 10), (5, 20), (9, 30), (10, 11)]) == 3
    assert peak([(0, float("inf")), (5, float("inf"))]) == 2


def test_runs_of_an_instance_are_counted() -> None:
    @dg.asset
    def one() -> None: ...

    with dg.instance_for_test() as instance:
        for lane in ("a", "b", "a"):
            assert dg.materialize([one], instance=instance, tags={"lane": lane}).success
        assert peak_runs(instance) == 1
        assert peaks_by_value(instance, "lane") == {"a": 1, "b": 1}
        assert peak_runs(instance, tag="other") == 0
