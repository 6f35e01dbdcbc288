"""Dagster's UI in a real browser: the lineage reads like the README's picture, hours can be seen and backfilled.

With SCREENSHOTS=docs/images the pages are kept as pictures.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from playwright.sync_api import Page, expect, sync_playwright

from featurestore_cli.stack.state import Home
from ingest.client import send_events
from tests.e2e.platform import Platform, wait_until
from tests.services import ENV

pytestmark = [pytest.mark.e2e, pytest.mark.services, pytest.mark.system, pytest.mark.timeout(300)]

CHROMIUM = "/usr/bin/chromium"  # Debian's package
WAY = ["sources", "raw", "features", "online", "models"]
PATIENCE_MS = 60_000


@pytest.fixture(scope="module")
def page(watched: Platform) -> Iterator[Page]:
    state = Home(watched.data_dir).state()
    assert state
    record = {"user_id": 5_000, "as_of": datetime.now(UTC).isoformat(), "income": 2.0, "debt": 1.0, "age_years": 30}
    settings = watched.settings.grpc
    send_events([record], "profiles", address=settings.address, token=settings.token)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1600, "height": 1000}, base_url=state.dagster_url)
        opened.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        yield opened
        browser.close()


def keep(page: Page, name: str) -> None:
    if "SCREENSHOTS" in ENV:
        page.screenshot(path=Path(ENV["SCREENSHOTS"], f"{name}.png"))


def test_the_lineage_goes_the_way_of_the_data(page: Page) -> None:
    page.goto("/asset-groups")
    places = []
    for group in WAY:
        node = page.locator("svg").get_by_text(group, exact=True).first
        node.wait_for()
        box = node.bounding_box()
        assert box
        places.append(box["x"])
    assert places == sorted(places)
    keep(page, "lineage")


def test_a_view_stands_among_its_neighbours(page: Page) -> None:
    page.goto("/assets/features/credit_profile?view=lineage&lineageScope=neighbors")
    graph = page.locator("svg")
    for asset in ("profiles", "credit_profile", "rebuild"):
        graph.get_by_text(asset, exact=True).first.wait_for()
    keep(page, "neighbours")


def test_an_hour_shows_its_rows(page: Page, watched: Platform) -> None:
    hour = hours(watched)[-1]
    page.goto(f"/assets/features/credit_profile?view=partitions&partition={hour}")
    expect(page.get_by_text("rows_in", exact=True)).to_be_visible()
    expect(page.get_by_text("quarantined", exact=True).first).to_be_visible()
    expect(page.get_by_text(re.compile(r"age_years +[▁▂▃▄▅▆▇█]")).first).to_be_visible()  # without a click
    keep(page, "hour")


def test_a_backfill_is_started_by_clicking_and_changes_nothing(page: Page, watched: Platform) -> None:
    before = ledger(watched)
    [*_, hour] = hours(watched)
    earlier = (datetime.strptime(hour, "%Y-%m-%d-%H:%M") - timedelta(hours=1)).strftime("%Y-%m-%d-%H:%M")  # noqa: DTZ007
    page.goto("/assets/features/credit_profile?view=partitions")
    page.get_by_role("button", name="Materialize…").click()
    dialog = page.get_by_role("dialog")
    partitions = dialog.get_by_role("textbox").first
    partitions.fill(f"[{earlier}...{hour}]")
    partitions.press("Enter")
    dialog.get_by_text("2 partitions").first.wait_for()
    dialog.get_by_role("button", name="Launch backfill").click()
    wait_until(lambda: statuses(watched) == [BulkActionStatus.COMPLETED_SUCCESS], 150, "the backfill ends", watched)
    assert before <= ledger(watched)


def statuses(watched: Platform) -> list[BulkActionStatus]:
    return [backfill.status for backfill in backfills(watched)]


def backfills(watched: Platform) -> list[PartitionBackfill]:
    with dg.DagsterInstance.from_config(str(watched.settings.dagster_home)) as instance:
        return list(instance.get_backfills())


def hours(watched: Platform) -> list[str]:
    """The materialized hours of the view, at least one."""
    found: list[str] = []

    def materialized() -> bool:
        with dg.DagsterInstance.from_config(str(watched.settings.dagster_home)) as instance:
            found[:] = sorted(instance.get_materialized_partitions(dg.AssetKey(["features", "credit_profile"])))
        return bool(found)

    wait_until(materialized, 120, "an hour is materialized", watched)
    return found


def ledger(watched: Platform) -> set[tuple[object, ...]]:
    rows = watched.sql("SELECT batch_id, commit_seq, logged FROM applied WHERE target = 'credit_profile@v1'")
    return {tuple(row.values()) for row in rows}
