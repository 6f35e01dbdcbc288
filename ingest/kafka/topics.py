"""Which topics there are, and whether they are still the same ones."""

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


class Topics:
    """Asks Kafka; nothing is remembered."""

    def __init__(self, admin: AdminClient, brokers: str) -> None:
        self._admin, self._brokers = admin, brokers

    def generations(self, topics: Collection[str]) -> Mapping[str, Generation]:
        """The generation of each topic; one that does not exist is left out.

        Raises:
            StoreUnavailableError: Kafka does not answer.
        """
        if not topics:
            return {}
        self._admin.poll(0)  # its log lines wait to be fetched
        # Both questions are on their way at once.
        cluster = self._admin.describe_cluster(request_timeout=TIMEOUT_S)
        described = self._admin.describe_topics(TopicCollection(list(topics)), request_timeout=TIMEOUT_S)
        found: dict[str, Generation] = {}
        try:
            cluster_id = str(cluster.result(2 * TIMEOUT_S).cluster_id)
            for topic, description in described.items():
                if topic_id := self._topic_id(description):
                    found[topic] = Generation(cluster_id, topic_id)
        except (KafkaException, TimeoutError) as error:
            raise self.unavailable(error) from error
        return found

    def unavailable(self, error: BaseException) -> StoreUnavailableError:
        reason = error.args[0].str() if isinstance(error, KafkaException) else "no reply"
        return StoreUnavailableError("Kafka", self._brokers, reason)

    def _topic_id(self, description: Any) -> str:
        try:
            topic_id = str(description.result(2 * TIMEOUT_S).topic_id)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                return ""
            raise
        # As Kafka itself writes an id; the client's alphabet has "/" in it, and the id becomes a directory.
        return topic_id.replace("+", "-").replace("/", "_")
