"""The checks that look at the whole, evaluated between runs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import dagster as dg
import msgspec

from featurestore.definitions.project import Project
from featurestore.errors import FeatureStoreError
from featurestore_dagster.checks.scope import Check, Scope
from featurestore_dagster.names import PLAIN, Keys
from featurestore_dagster.services import Connect, Services

EVERY = timedelta(minutes=10)  # while data arrives; what is red is looked at with every tick


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    at: datetime = field(default_factory=lambda: datetime(1970, 1, 1, tzinfo=UTC))
    landed: int = -1
    red: tuple[str, ...] = ()


def sensor(checks: Sequence[Check], project: Project, connect: Connect, keys: Keys = PLAIN) -> dg.SensorDefinition:
    """Evaluates the checks, and reports them without a run.

    In a run they would cost a process that reads every footer and the whole ledger; here both are in memory. They can
    be run by hand all the same.
    """

    @dg.sensor(
        name=keys.name("checks"),
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Evaluates the asset checks while data arrives, and what is red until it is green.",
    )
    def watch(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        try:
            with connect() as services:
                return _tick(_read(context.cursor), services, project, checks)
        except FeatureStoreError as error:
            return dg.SkipReason(str(error))

    return watch


def _tick(
    seen: "_Seen", services: Services, project: Project, checks: Sequence[Check]
) -> dg.SensorResult | dg.SkipReason:
    now, landed = datetime.now(UTC), len(services.landing.batches())
    if not seen.red and (landed == seen.landed or now - seen.at < EVERY):
        return dg.SkipReason("nothing has landed since the last look" if landed == seen.landed else "looked lately")
    scope = Scope.of(project, services.landing, services.database, services.online, services.backlog)
    results = [check.result(scope) for check in checks]
    # As long as something waits, completeness may turn red without anything else landing.
    is_settled = services.backlog.is_quiet(project, scope.landed, services.online, parked=(), now=now)
    red = tuple(_name(check) for check, result in zip(checks, results, strict=True) if not result.passed)
    return dg.SensorResult(
        asset_events=[_evaluation(result) for result in results],
        skip_reason=f"{len(results)} checks evaluated, {len(red)} are red {', '.join(red)}".strip(),
        cursor=msgspec.json.encode(_Seen(at=now, landed=landed if is_settled else -1, red=red)).decode(),
    )


def _read(cursor: str | None) -> _Seen:
    try:
        return msgspec.json.decode(cursor or "", type=_Seen)
    except msgspec.MsgspecError:
        return _Seen()


def _name(check: Check) -> str:
    return f"{check.name} of {check.key.to_user_string()}"


def _evaluation(result: dg.AssetCheckResult) -> dg.AssetCheckEvaluation:
    if result.asset_key is None or result.check_name is None:
        raise ValueError("a check of several assets names its asset and itself")
    return dg.AssetCheckEvaluation(
        asset_key=result.asset_key,
        check_name=result.check_name,
        passed=result.passed,
        metadata=result.metadata,
        severity=result.severity,
        description=result.description,
    )
