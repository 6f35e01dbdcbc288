"""Failed runs → someone who should know."""

import json
import logging
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from http.client import HTTPException
from urllib.error import HTTPError

import dagster as dg

from featurestore.errors import SettingsError
from featurestore.settings import DagsterSettings
from featurestore_dagster.names import LANE_TAG, PLAIN, Keys
from featurestore_dagster.runs import batches_of, reason_of

log = logging.getLogger(__name__)

WEBHOOK_TIMEOUT_S = 5.0
REASON_CHARACTERS = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """A failed run, in a form that can be sent."""

    run_id: str
    job: str
    partition: str
    lane: str
    batches: int
    reason: str


Notify = Callable[[Alert], None]


def log_alert(alert: Alert) -> None:
    """Write the alert to this process's log."""
    log.error(
        "run %s of %s failed (partition %s, lane %s, %d batches): %s",
        alert.run_id, alert.job, alert.partition or "-", alert.lane or "-", alert.batches, alert.reason,
        extra={"run_id": alert.run_id},
    )  # fmt: skip


def webhook(url: str) -> Notify:
    """Post each alert as JSON to `url`; one that cannot be delivered is logged and not tried again."""
    if not url.startswith(("http://", "https://")):
        raise SettingsError("FEATURESTORE_DAGSTER_ALERT_WEBHOOK: a webhook's address starts with http:// or https://")

    def post(alert: Alert) -> None:
        log_alert(alert)
        body = json.dumps(asdict(alert)).encode()
        request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})  # noqa: S310  # checked above
        try:
            urllib.request.urlopen(request, timeout=WEBHOOK_TIMEOUT_S).close()  # noqa: S310
        except HTTPError as error:
            with error:  # it is the reply as well
                undelivered(alert, str(error))
        except OSError as error:
            undelivered(alert, str(error))
        except HTTPException as error:  # of an address that is none, which its text quotes: addresses are secrets
            undelivered(alert, type(error).__name__)

    def undelivered(alert: Alert, reason: str) -> None:
        log.warning("the alert for run %s was not delivered: %s", alert.run_id, reason)

    return post


def notify_as_set(settings: DagsterSettings) -> Notify:
    """To the webhook of the settings, or to the log alone."""
    return webhook(settings.alert_webhook) if settings.alert_webhook else log_alert


def sensor(notify: Notify = log_alert, keys: Keys = PLAIN) -> dg.SensorDefinition:
    """Tells `notify` about each failed run of this code location, once."""

    @dg.run_failure_sensor(
        name=keys.name("failed_runs"),
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells about failed runs: in the log, or to a webhook.",
    )
    def failed_runs(context: dg.RunFailureSensorContext) -> None:
        notify(_alert(context, keys))

    return failed_runs


def _alert(context: dg.RunFailureSensorContext, keys: Keys) -> Alert:
    run = context.dagster_run
    reasons = [reason_of(event.step_failure_data) for event in context.get_step_failure_events()]
    reason = "; ".join(text for text in reasons if text) or context.failure_event.message or "no reason given"
    return Alert(
        run_id=run.run_id,
        job=run.job_name,
        partition=run.tags.get("dagster/partition", ""),
        lane=run.tags.get(LANE_TAG, ""),
        batches=len(batches_of(run.run_config, keys)),
        reason=reason[:REASON_CHARACTERS],
    )
