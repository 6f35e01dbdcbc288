"""Windows read online, held against a training set at the time that each of them answers for."""

from collections.abc import Iterator, Sequence
from datetime import datetime

import pyarrow as pa

import featurestore as fs
from featurestore.store import Store


def differing(store: Store, view: fs.FeatureView, ids: Sequence[object], times: Sequence[datetime]) -> Iterator[str]:
    """Read the windows of some entities at some times; yield what is not equal to the bit."""
    [key] = view.entity.key_columns
    windows = [view[name] for name in view.windows]
    read: list[tuple[object, datetime, str, object]] = []  # whose, the time that is answered for, feature, value
    for now in times:
        for one, row in zip(ids, store.online({key: ids}, windows, now=now), strict=True):
            read += [(one, max(now, v.event_timestamp or now), name, v.value) for name, v in row.items()]
    spine = list(dict.fromkeys((one, time) for one, time, _, _ in read))
    table = pa.table({key: [one for one, _ in spine], "event_timestamp": [time for _, time in spine]})
    truth = dict(zip(spine, store.training_set(table, windows).table.to_pylist(), strict=True))
    for one, time, name, value in read:
        if repr(value) != repr(right := truth[one, time][name]):
            yield f"{view.entity.name} {one} at {time}: {name} {value!r} is {right!r}"
