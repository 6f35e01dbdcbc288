"""Replies in the wire form, against messages that the library makes."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from featurestore.definitions.dtypes import ScalarType
from featurestore.online.values import MISSING, OnlineValue, Status
from featurestore_serving.features import Answer
from featurestore_serving.pb import serving_pb2 as pb
from featurestore_serving.protobuf import features_reply, score_reply
from featurestore_serving.scores import ScoreAnswer

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MEMBERS: dict[ScalarType, str] = {float: "numbers", int: "integers", str: "texts", bool: "truths"}
SCALARS = {
    float: st.floats(allow_nan=False),
    int: st.integers(-(2**63), 2**63 - 1),
    str: st.text(max_size=300),
    bool: st.booleans(),
}
TIMES = st.datetimes(datetime(1960, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  # strategy's


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    dtypes = draw(st.lists(st.sampled_from(list(MEMBERS)), max_size=5))
    names = tuple(f"feature {n}" for n in range(len(dtypes)))
    times = draw(st.lists(TIMES, min_size=1, max_size=2))

    def cell(dtype: ScalarType) -> OnlineValue:
        time = draw(st.sampled_from(times))
        status = draw(st.sampled_from(Status))
        if status is Status.MISSING:
            return MISSING
        return OnlineValue(draw(SCALARS[dtype]) if status is Status.PRESENT else None, status, time)

    rows = draw(st.integers(0, 3))
    table = [{name: cell(dtype) for name, dtype in zip(names, dtypes, strict=True)} for _ in range(rows)]
    return Answer(names, tuple(dtypes), table * draw(st.sampled_from([1, 100])))


def columns(answer: Answer) -> Sequence[pb.FeatureColumn]:
    made: list[pb.FeatureColumn] = []
    for name, dtype in zip(answer.names, answer.dtypes, strict=True):
        cells = [row[name] for row in answer.rows]
        column = pb.FeatureColumn(
            statuses=[pb.Status.Value(f"STATUS_{one.status}") for one in cells],
            event_timestamps_us=[
                (one.event_timestamp - EPOCH) // timedelta(microseconds=1) if one.event_timestamp else 0
                for one in cells
            ],
        )
        values = getattr(column, MEMBERS[dtype])
        values.SetInParent()
        values.values.extend([dtype() if one.value is None else one.value for one in cells])
        made.append(column)
    return made


@given(answers())
def test_replies_are_the_messages_of_the_proto(answer: Answer) -> None:
    reply = pb.GetFeaturesResponse(features=answer.names, columns=columns(answer))
    assert pb.GetFeaturesResponse.FromString(features_reply(answer)) == reply
    reasons = ["" if n % 2 else "score is MISSING" for n in range(len(answer.rows))]
    scores = [None if reason else n / 2 for n, reason in enumerate(reasons)]
    found = pb.ScoreResponse.FromString(
        score_reply(ScoreAnswer("risk", "7", scores, [reason or None for reason in reasons], answer))
    )
    assert [None if math.isnan(one) else one for one in found.scores] == scores
    assert list(found.reasons) == reasons
    assert (found.model, found.version, list(found.features)) == ("risk", "7", list(answer.names))
    assert list(found.columns) == list(reply.columns)
