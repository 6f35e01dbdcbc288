"""Users whose income and debt change over time: profiles as files to upload, and labels that depend on them."""

import json
import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.landing.batch import EPOCH

SOURCE = "profiles"
FORMATS = ("parquet", "csv", "ndjson")

_HISTORY = timedelta(days=60)
_PROFILES_PER_USER = 6  # of history
_COLUMNS = ("user_id", "income", "debt", "age_years", "as_of")


@dataclass(frozen=True, slots=True)
class Profile:
    """What is known of a user from `as_of` on."""

    user_id: int
    income: float
    debt: float
    age_years: int
    as_of: datetime

    def to_json(self) -> str:
        return json.dumps(asdict(self) | {"as_of": self.as_of.isoformat()})


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a file. A doubtful one is landed and quarantined (its income is negative), a bad one a dead letter."""

    profile: Profile
    kind: Literal["good", "doubtful", "bad"]


@dataclass(frozen=True, slots=True)
class Label:
    """Whether a user who was lent an amount at that time has paid it back."""

    user_id: int
    event_timestamp: datetime
    amount: float
    defaulted: bool


class People:
    """Makes profiles and labels: who owes much and is young defaults more often."""

    def __init__(self, *, seed: int, users: int, bad_share: float) -> None:
        self._random = random.Random(f"{seed}/people")
        self._bad_share = bad_share
        born = {user: self._random.randint(18, 90) for user in range(1, users + 1)}
        self._newest = {
            user: Profile(user, self._random.lognormvariate(10.3, 0.5), 0.0, age, EPOCH) for user, age in born.items()
        }
        self._ratio = {user: self._random.uniform(0.02, 1.2) for user in born}

    def history(self, now: datetime) -> list[Row]:
        """Some profiles of every user, spread over the last weeks."""
        step = _HISTORY / _PROFILES_PER_USER
        return [
            self._row(user, now - _HISTORY + step * (number + self._random.random()))
            for user in self._newest
            for number in range(_PROFILES_PER_USER)
        ]

    def changes(self, count: int, now: datetime) -> list[Row]:
        """New profiles of some users, each of a time of its own."""
        users = self._random.sample(sorted(self._newest), min(count, len(self._newest)))
        return [self._row(user, now + timedelta(microseconds=index)) for index, user in enumerate(users)]

    def label(self, profile: Profile, time: datetime) -> Label:
        """What became of a loan that was given when this was known of the user."""
        log_odds = -3.0 + 3.5 * profile.debt / profile.income - 0.03 * (profile.age_years - 45)
        defaulted = self._random.random() < 1 / (1 + math.exp(-log_odds))
        return Label(profile.user_id, time, round(self._random.uniform(10, 5_000), 2), defaulted)

    def labels(self, rows: Sequence[Row], count: int, now: datetime) -> list[Label]:
        """Labels at random times, each by the profile that was the newest then; oldest first."""
        good = sorted((row.profile for row in rows if row.kind == "good"), key=lambda one: (one.user_id, one.as_of))
        replaced = [later.as_of if later.user_id == one.user_id else now for one, later in pairwise([*good, good[0]])]
        labels: list[Label] = []
        for profile, until in self._random.choices(list(zip(good, replaced, strict=True)), k=count):
            labels.append(self.label(profile, profile.as_of + (until - profile.as_of) * self._random.random()))
        return sorted(labels, key=lambda label: label.event_timestamp)

    def _row(self, user: int, as_of: datetime) -> Row:
        old = self._newest[user]
        income = round(old.income * math.exp(self._random.gauss(0, 0.1)), 2)
        ratio = self._ratio[user] = min(2.0, max(0.0, self._ratio[user] + self._random.gauss(0, 0.15)))
        profile = self._newest[user] = Profile(user, income, round(income * ratio, 2), old.age_years, as_of)
        lot = self._random.random()
        if lot < self._bad_share:
            return Row(profile, "bad")
        return Row(replace(profile, income=-income), "doubtful") if lot < 2 * self._bad_share else Row(profile, "good")


def write_file(path: Path, rows: Sequence[Row]) -> None:
    """Write a file of the format that its name says; a bad row is bad in a way that the format allows."""
    {".parquet": _write_parquet, ".csv": _write_csv, ".ndjson": _write_ndjson}[path.suffix](path, rows)


def _write_parquet(path: Path, rows: Sequence[Row]) -> None:
    columns = {name: [getattr(row.profile, name) for row in rows] for name in _COLUMNS}
    columns["income"] = [None if row.kind == "bad" else row.profile.income for row in rows]
    pq.write_table(pa.table(columns), path)


def _write_csv(path: Path, rows: Sequence[Row]) -> None:
    lines = [",".join(_COLUMNS)]
    for row in rows:
        cells = [str(getattr(row.profile, name)) for name in _COLUMNS]
        if row.kind == "bad":
            cells[1] = "n/a"
        lines.append(",".join(cells))
    path.write_text("\n".join(lines) + "\n")


def _write_ndjson(path: Path, rows: Sequence[Row]) -> None:
    texts = [row.profile.to_json() for row in rows]
    lines = [text[: len(text) // 2] if row.kind == "bad" else text for row, text in zip(rows, texts, strict=True)]
    path.write_text("\n".join(lines) + "\n")
