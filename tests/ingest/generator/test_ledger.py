"""The ledger: what several runs together have sent."""

import json
from pathlib import Path

from ingest.generator.ledger import Ledger, Sent, read_ledger


def sent(user: str, *values: int, bad: int = 0, doubtful: bool = False) -> Sent:
    one = Sent(bad=bad)
    for value in values:
        one.good_one(user, json.dumps({"value": value}).encode(), doubtful=doubtful)
    return one


def test_runs_add_up_and_the_last_good_record_of_a_user_stays(tmp_path: Path) -> None:
    for first in (0, 10):
        ledger = Ledger(tmp_path)
        ledger.add("events", sent("1", first + 1, first + 2, bad=1))
        ledger.add("events", sent("2", first + 3))
        ledger.add("events", sent("1", first + 99, doubtful=True))
        ledger.write()

    found = read_ledger(tmp_path)["events"]

    assert (found.good, found.bad, found.doubtful, found.in_doubt) == (8, 2, 2, 0)
    assert found.good_of_user == {"1": 6, "2": 2}
    assert {user: json.loads(bytes(raw))["value"] for user, raw in found.last_of_user.items()} == {"1": 12, "2": 13}


def test_what_is_not_written_is_not_read(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.add("events", sent("1", 1))

    assert read_ledger(tmp_path) == {}
    assert read_ledger(tmp_path / "nothing") == {}
