"""Where reading starts: generations of topics, and the tail of what is landed against what Kafka still has."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from featurestore.errors import StoreUnavailableError

TIMEOUT_S = 5.0  # of every question to Kafka


@dataclass(frozen=True, slots=True)
class Generation:
    """A topic as it was created once: deleted and created again, it is another one."""

    cluster_id: str
    topic_id: str


@dataclass(frozen=True, slots=True)
class Start:
    """Read from `offset`; the offsets [gap_from, offset) have no record any more and land as a gap, if there are any."""

    offset: int
    gap_from: int


@dataclass(frozen=True, slots=True)
class Behind:
    """Kafka ends before the landed tail: it lost records, or is not the Kafka that was read before."""

    tail: int
    high: int


def plan_start(tail: int | None, low: int, high: int, *, from_end: bool) -> Start | Behind:
    """Where to go on after `tail` (None: nothing landed) in a partition that holds the offsets [low, high).

    A chain starts at offset 0 whatever Kafka still has, so that competing writers always meet at the same name.
    """
    if tail is None:
        return Start(high if from_end else low, gap_from=0)
    if high < tail:
        return Behind(tail, high)
    return Start(max(tail, low), gap_from=tail)


class Topics:
    """Asks Kafka which topics there are."""

    def __init__(self, admin: AdminClient, brokers: str) -> None:
        self._admin, self._brokers = admin, brokers

    def generations(self, topics: Collection[str]) -> Mapping[str, Generation]:
        """The generation of each topic, asked now; a topic that does not exist is left out.

        Raises:
            StoreUnavailableError: Kafka does not answer.
        """
        if not topics:
            return {}
        # Both are on their way at once.
        cluster = self._admin.describe_cluster(request_timeout=TIMEOUT_S)
        described = self._admin.describe_topics(TopicCollection(list(topics)), request_timeout=TIMEOUT_S)
        found: dict[str, Generation] = {}
        try:
            cluster_id = str(cluster.result(TIMEOUT_S).cluster_id)
            for topic, description in described.items():
                if topic_id := self._topic_id(description):
                    found[topic] = Generation(cluster_id, topic_id)
        except (KafkaException, TimeoutError) as error:
            raise StoreUnavailableError("Kafka", self._brokers, _text(error)) from error
        return found

    def _topic_id(self, description: Any) -> str:
        try:
            topic_id = str(description.result(TIMEOUT_S).topic_id)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                return ""
            raise
        # As Kafka itself writes an id; in the client's alphabet it would not be a file name.
        return topic_id.replace("+", "-").replace("/", "_")


def _text(error: BaseException) -> str:
    return error.args[0].str() if isinstance(error, KafkaException) else "no reply"
