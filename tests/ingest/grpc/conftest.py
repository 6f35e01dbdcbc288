"""A project with one source of uploads, one of Kafka, and the service that takes uploads."""

import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from prometheus_client import CollectorRegistry

import featurestore as fs
from featurestore.landing.zone import LandingZone
from featurestore.process.health import Health
from featurestore.settings import GrpcSettings, IngestSettings, Settings
from ingest.grpc.daemon import GrpcDaemon
from ingest.pb import ingest_pb2_grpc as pb_grpc

USER = fs.Entity("user", key="user_id")
PROFILES = fs.UploadSource(
    "profiles",
    timestamp="as_of",
    schema={"user_id": int, "income": float, "debt": float, "age_years": int, "note": str | None},
)
EVENTS = fs.KafkaSource("events", timestamp="at", schema={"user_id": int})
PROJECT = fs.Project(
    (
        fs.FeatureView("profile", USER, PROFILES, [fs.Feature("age_years", int)]),
        fs.FeatureView("event", USER, EVENTS, [fs.Feature("user_id", int)]),
    )
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        data_dir=tmp_path / "data",
        grpc=GrpcSettings(address="127.0.0.1:0"),
        ingest=IngestSettings(disk_reserve_bytes=0),
    )


@pytest.fixture
def zone(settings: Settings) -> LandingZone:
    return LandingZone(settings.landing_dir)


@contextmanager
def serving(settings: Settings, project: fs.Project = PROJECT, *, stepping: bool = False) -> Generator[str]:
    """The service in this process; yields its address. Its step is done once, or again and again."""
    daemon = GrpcDaemon(settings, project, health=Health(), registry=CollectorRegistry())
    daemon.start()
    stopping = threading.Event()

    def step() -> None:
        while not stopping.wait(0.05):
            daemon.step()

    thread = threading.Thread(target=step)
    try:
        daemon.step()
        if stepping:
            thread.start()
        yield f"127.0.0.1:{daemon.port}"
    finally:
        stopping.set()
        if stepping:
            thread.join()
        daemon.stop()


@pytest.fixture
def address(settings: Settings) -> Generator[str]:
    with serving(settings) as address:
        yield address


def with_grpc(settings: Settings, **changes: object) -> Settings:
    return replace(settings, grpc=replace(settings.grpc, **changes))


@pytest.fixture
def stub(address: str) -> Generator[pb_grpc.IngestStub]:
    with grpc.insecure_channel(address) as channel:
        yield pb_grpc.IngestStub(channel)
