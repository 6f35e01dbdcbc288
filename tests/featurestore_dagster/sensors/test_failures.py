"""Failed runs are told, once each, with what is known of them."""

import json
import logging
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import dagster as dg
import pytest

from featurestore.errors import SettingsError
from featurestore.settings import DagsterSettings
from featurestore_dagster.names import LANE_TAG
from featurestore_dagster.runs import with_batches
from featurestore_dagster.sensors import failures
from featurestore_dagster.sensors.failures import Alert, log_alert, notify_as_set, webhook

ALERT = Alert(run_id="r", job="j", partition="p", lane="clicks.0", batches=2, reason="no luck")


def fail(instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    class Batches(dg.ConfigurableResource):
        batch_ids: list[str]

    @dg.op
    def explode(batches: Batches) -> None:
        raise dg.Failure("the rows are bad")

    @dg.job(resource_defs={"batches": Batches(batch_ids=[])})
    def doomed() -> None:
        explode()

    config = with_batches(["clicks/a", "clicks/b"])
    tags = {LANE_TAG: "clicks.0"}
    return doomed.execute_in_process(instance=instance, run_config=config, tags=tags, raise_on_error=False)


def test_an_alert_says_what_failed_and_why(instance: dg.DagsterInstance) -> None:
    result = fail(instance)
    told: list[Alert] = []
    context = dg.build_run_status_sensor_context(
        sensor_name="failed_runs",
        dagster_event=result.get_run_failure_event(),
        dagster_instance=instance,
        dagster_run=result.dagster_run,
    ).for_run_failure()
    failures.sensor(told.append)(context)
    [alert] = told
    assert (alert.job, alert.lane, alert.batches, alert.reason) == ("doomed", "clicks.0", 2, "the rows are bad")
    assert alert.run_id == result.dagster_run.run_id


def test_the_log_is_the_default(instance: dg.DagsterInstance, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, logger="featurestore_dagster.sensors.failures"):
        failures.log_alert(ALERT)
    assert "run r of j failed (partition p, lane clicks.0, 2 batches): no luck" in caplog.text


@contextmanager
def listener(received: list[object], status: int) -> Generator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002  # the base class's name

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/alerts"
        finally:
            server.shutdown()
            thread.join(10)


def test_a_webhook_gets_the_alert_as_json() -> None:
    received: list[object] = []
    with listener(received, 200) as url:
        webhook(url)(ALERT)
    assert received == [
        {"run_id": "r", "job": "j", "partition": "p", "lane": "clicks.0", "batches": 2, "reason": "no luck"}
    ]


def test_a_webhook_that_fails_is_logged_and_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with listener([], 500) as url:
        webhook(url)(ALERT)
    for url in ("http://127.0.0.1:1/canary", "http://127.0.0.1:port/canary", "http://127.0.0.1:1/a canary"):
        webhook(url)(ALERT)
    assert caplog.text.count("was not delivered") == 4
    assert "canary" not in caplog.text  # whoever knows the address can write to it


def test_a_webhook_is_a_web_address() -> None:
    with pytest.raises(SettingsError, match="http"):
        webhook("file:///etc/passwd")


def test_the_setting_names_the_webhook() -> None:
    assert notify_as_set(DagsterSettings()) is log_alert
    received: list[object] = []
    with listener(received, 200) as url:
        notify_as_set(DagsterSettings(alert_webhook=url))(ALERT)
    assert len(received) == 1
