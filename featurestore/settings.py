"""Settings: frozen groups, read once at a process's entry point from FEATURESTORE_* variables.

A variable's name is its path: `settings.kafka.brokers` is FEATURESTORE_KAFKA_BROKERS. Any variable may be given as
FEATURESTORE_…_FILE instead, naming a file that holds the value (for secrets). What the environment does not set is
taken from `platform.env` in the data directory, where `featurestore up` writes the addresses of what it started, and
then from the defaults below; which project is meant may stand in the directory's pyproject.toml.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from featurestore.environment import PREFIX, PYPROJECT, EnvReader, read_env_file, read_pyproject
from featurestore.errors import SettingsError

PLATFORM_ENV = "platform.env"  # in the data directory; written by `featurestore up`, mode 0600


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaSettings:
    """The brokers, and any client setting by its librdkafka name (FEATURESTORE_KAFKA_CLIENT_SASL_USERNAME=…)."""

    brokers: str = "127.0.0.1:9092"
    group: str = "featurestore-ingest"
    group_protocol: str = "classic"  # or "consumer" (KIP-848)
    start_at: str = "earliest"  # where a source starts on a topic that it has never read: earliest | latest
    topic_partitions: int = 1  # of topics created by us
    topic_replication: int = 1
    client: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisSettings:
    """The online store's Redis; the queues use the same unless `queue_url` is set, which a cluster needs."""

    url: str = field(
        default="redis://127.0.0.1:6379/0", repr=False
    )  # or rediss://…, redis+cluster://host:port,host:port
    queue_url: str = field(default="", repr=False)
    replica_url: str = field(default="", repr=False)  # read while `url` does not answer; its values may be older
    timeout_s: float = 5.0

    @property
    def is_cluster(self) -> bool:
        return "+cluster://" in self.url

    @property
    def queues(self) -> str:
        if self.is_cluster and not self.queue_url:
            raise SettingsError("a Redis Cluster holds no queues and no models; set FEATURESTORE_REDIS_QUEUE_URL")
        return self.queue_url or self.url

    @property
    def urls(self) -> tuple[str, ...]:
        """Of every Redis there is."""
        return tuple(dict.fromkeys(filter(None, (self.url, self.queue_url))))

    @property
    def models(self) -> str:
        """Where models are published: with the online store, or beside the queues if that is a cluster."""
        return self.queues if self.is_cluster else self.url


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureSettings:
    """The blob containers: of models, and of the landing zone if it shall not lie on the disk.

    Sign in by a connection string, or by an account's URL.
    """

    connection_string: str = field(default="", repr=False)
    account_url: str = ""  # https://ACCOUNT.blob.core.windows.net; alone: Azure's default credentials
    account_key: str = field(default="", repr=False)
    sas_token: str = field(default="", repr=False)
    container: str = "ai-models"
    landing_container: str = ""  # empty = the landing zone lies on the disk, below the data directory
    timeout_s: float = 30.0  # of each try
    tries: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestSettings:
    """When a batch is landed: at the first of rows, bytes and age."""

    batch_rows: int = 100_000
    batch_bytes: int = 32 * 2**20
    batch_age_s: float = 5.0
    pending_bytes: int = 2 * 2**30  # landed and not yet processed; above it, intake pauses
    disk_reserve_bytes: int = 256 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcSettings:
    """The upload service, and how the commands of this project reach it."""

    address: str = "127.0.0.1:50051"
    token: str = field(default="", repr=False)  # bearer token that clients must send; empty = none asked
    tokens: str = field(
        default="", repr=False
    )  # others, a line each: TOKEN SOURCE SOURCE …, the sources it may send to
    tls_certificate_path: str = ""  # PEM, with its chain; empty = no TLS
    tls_key_path: str = ""
    tls_client_ca_path: str = ""  # PEM; clients must show a certificate of one of these; empty = none asked
    ca_path: str = ""  # of our commands: PEM of who signed the service's certificate; empty = no TLS
    client_certificate_path: str = ""  # PEM, what our commands show
    client_key_path: str = ""
    reflection: int = 0  # 1 = programs like grpcurl may ask what the service can do
    threads: int = 8
    max_upload_bytes: int = 16 * 2**30
    max_open_uploads: int = 64
    peer_streams: int = 4  # that one host may have open
    silence_s: float = 60.0  # after which a sender is cut
    slowest_bytes_s: float = 1024.0  # and so is one that goes on sending less than this
    expire_s: float = 24 * 3600.0  # after which an upload that nobody goes on with is forgotten
    part_rows: int = 1_000_000
    part_bytes: int = 128 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSettings:
    """The database service: group commit, readers and their bounds."""

    group_rows: int = 200_000
    group_bytes: int = 64 * 2**20
    group_wait_ms: int = 5
    queue_jobs: int = 10_000  # above it, producers wait
    readers: int = 2
    admitted_reads: int = 50  # of one client, that wait for their turn
    read_timeout_s: float = 30.0
    read_rows: int = 1_000_000
    read_bytes: int = 256 * 2**20
    memory: str = "2GB"
    sql_token: str = field(default="", repr=False)  # who asks SQL of their own must show it; empty = none asked


@dataclass(frozen=True, slots=True, kw_only=True)
class LakeSettings:
    """When rows of the log leave DuckDB for Parquet files."""

    after_days: int = 7  # whole days (UTC) since the day they landed


@dataclass(frozen=True, slots=True, kw_only=True)
class DagsterSettings:
    """The sensors' pace; limits of runs and pools stand in dagster.yaml."""

    launcher: str = "warm"  # of runs: forks of a process that has loaded the code; stock = a new process each
    run_interval_s: float = 10.0  # a run per source at most this often, unless much is pending
    lanes: int = 2
    run_rows: int = 2_000_000
    run_batches: int = 200
    alert_webhook: str = field(default="", repr=False)  # gets each failed run as JSON; empty = the log alone
    url: str = ""  # of the webserver, for `featurestore apply`; empty: the one that `up` started
    fresh_within_s: float = 60.0  # what has landed is in the log: the objective that alerts watch


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """The feature server."""

    address: str = "127.0.0.1:8080"  # of HTTP
    grpc_address: str = "127.0.0.1:50052"  # empty = no gRPC
    token: str = field(default="", repr=False)  # bearer token that clients must send; empty = none asked
    tls_certificate_path: str = ""  # PEM, with its chain; empty = no TLS
    tls_key_path: str = ""
    tls_client_ca_path: str = ""  # PEM; clients must show a certificate of one of these; empty = none asked
    workers: int = 1  # processes
    threads: int = 8  # of a process and transport: requests that are worked on
    max_requests: int = 64  # of a process and transport: worked on or waiting; above it, 503 or RESOURCE_EXHAUSTED
    max_connections: int = 4096  # of a process; above it, new ones are closed
    max_rows: int = 1000  # of a request
    max_features: int = 1000
    max_values: int = 100_000  # rows times features, of a reply
    max_bytes: int = 2**20
    model_bytes: int = 2**30  # of the artifacts of loaded models; 0 = no model is looked up or scored
    timeout_s: float = 5.0  # from a request to its reply; a client may ask for less
    drain_s: float = 1.0  # how long requests are still taken after /ready has said 503


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorSettings:
    """What the generator sends."""

    events_per_s: float = 50.0  # 0 = as fast as it can
    producers: int = 2
    users: int = 500
    file_every_s: float = 10.0
    file_rows: int = 200
    bad_share: float = 0.001  # of records that cannot be landed, so that dead letters are seen
    seed: int = 0
    max_events: int = 0  # 0 = no end
    max_files: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything a process may be told from outside."""

    data_dir: Path = Path(".featurestore")
    project: str = "featurestore_dagster.features.project:PROJECT"
    namespace: str = ""  # prefixes Redis keys, topics, consumer groups, the container and asset keys
    metrics_port: int = 0  # of this process's /metrics and /health on loopback; 0 = none
    log_level: str = "INFO"
    log_format: str = "text"  # of what processes write to stderr; json = an object per line
    kafka: KafkaSettings = KafkaSettings()
    redis: RedisSettings = RedisSettings()
    azure: AzureSettings = AzureSettings()
    ingest: IngestSettings = IngestSettings()
    grpc: GrpcSettings = GrpcSettings()
    database: DatabaseSettings = DatabaseSettings()
    lake: LakeSettings = LakeSettings()
    dagster: DagsterSettings = DagsterSettings()
    server: ServerSettings = ServerSettings()
    generator: GeneratorSettings = GeneratorSettings()

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "Settings":
        """Read the settings of this process.

        Raises:
            SettingsError: a value is not of its type, a `_FILE` cannot be read, or a variable is unknown.
        """
        given = {name: value for name, value in env.items() if name.startswith(PREFIX)}
        data_dir = Path(given.get(f"{PREFIX}DATA_DIR", str(cls.__dataclass_fields__["data_dir"].default)))
        written = read_env_file(data_dir / PLATFORM_ENV)
        # A file-borne value of the environment beats the platform's plain one, and the other way round.
        hidden = {name.removesuffix("_FILE") for name in given} | {f"{name}_FILE" for name in given}
        found = {**read_pyproject(Path(PYPROJECT)), **written}
        values = {**{name: value for name, value in found.items() if name not in hidden}, **given}
        reader = EnvReader(values)
        settings = reader.group(cls, PREFIX)
        reader.refuse_unknown()
        return settings

    @classmethod
    def names(cls) -> frozenset[str]:
        """Every variable that has a name of its own (those passed through to Kafka's client do not)."""
        reader = EnvReader({})
        reader.group(cls, PREFIX)
        return frozenset(name for name in reader.known if not name.endswith("_FILE"))

    @property
    def landing_dir(self) -> Path:
        return self.data_dir / "landing"

    @property
    def lake_dir(self) -> Path:
        return self.data_dir / "lake"

    @property
    def erasures_dir(self) -> Path:
        """Who was erased, as keyed hashes: outside the database and its backups."""
        return self.data_dir / "erasures"

    @property
    def training_sets_dir(self) -> Path:
        return self.data_dir / "training_sets"

    @property
    def database_file(self) -> Path:
        return self.data_dir / "database" / "features.duckdb"

    @property
    def jobs_dir(self) -> Path:
        """Rows of large write jobs, on their way to the database service."""
        return self.data_dir / "database" / "jobs"

    @property
    def registered_file(self) -> Path:
        """What the database service notes of the registered views, for code that is loaded without a connection."""
        return self.data_dir / "database" / "registered.json"

    @property
    def raw_dir(self) -> Path:
        """What the relations `raw.<source>` need beside the landed files."""
        return self.data_dir / "database" / "raw"

    @property
    def dagster_home(self) -> Path:
        return self.data_dir / "dagster"

    def name(self, plain: str, separator: str = ":") -> str:
        """`plain` inside this namespace: of a Redis key, topic, group, container."""
        return f"{self.namespace}{separator}{plain}" if self.namespace else plain
