"""A declaration that cannot work fails where it stands, with a message that says what to change."""

import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

import featurestore as fs
from featurestore.definitions.project import load_project
from featurestore.errors import SettingsError, UnknownFeatureError
from featurestore_dagster.features import user
from featurestore_dagster.features.project import PROJECT
from featurestore_dagster.features.user import CREDIT_PROFILE, PROFILES, USER, USER_ACTIVITY, USER_EVENTS

MERCHANT = fs.Entity("merchant", key="merchant_id")


def view(
    *features: fs.Feature | fs.Aggregation, version: int = 1, name: str = "v", where: str = "true"
) -> fs.FeatureView:
    return fs.FeatureView(
        name, USER, PROFILES, features or [fs.Feature("age_years", int)], version=version, where=where
    )


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (
            lambda: CREDIT_PROFILE["age_year"],
            "view 'credit_profile' has no feature 'age_year'; did you mean 'age_years'?",
        ),
        (
            lambda: fs.FeatureView("x", MERCHANT, PROFILES, [fs.Feature("debt", float)]),
            (
                "view 'x': source 'profiles' has no column 'merchant_id', the key of entity 'merchant'; "
                "it has user_id, income, debt, age_years"
            ),
        ),
        (
            lambda: fs.Aggregation("clicks", "count", windows=("1w",)),
            "aggregation 'clicks', windows: '1w' is not a duration; write a number and s, m, h or d, e.g. '7d'",
        ),
        (
            lambda: fs.Aggregation("clicks", "count", windows=()),
            "aggregation 'clicks' has no windows; give at least one, e.g. ('1h',)",
        ),
        (
            lambda: fs.Aggregation("clicks", "count", windows=("10s",)),
            "aggregation 'clicks': window '10s' is shorter than 24s",
        ),
        (
            lambda: fs.Aggregation("clicks", "median", windows=("1h",)),
            "aggregation 'clicks': 'median' is not one of count, sum, mean, min, max, first, last",
        ),
        (
            lambda: fs.Project((view(),), (fs.Model("m", [view()["age_years"]]),)),
            "model 'm' expects feature 'age_years', which is not online; set online=True in view 'v'",
        ),
        (
            lambda: fs.Project((view(name="a"), view(name="b"))),
            "feature 'age_years' is declared in view 'a' and in view 'b'; a feature's name is unique in the store",
        ),
        (lambda: fs.Project((view(), view(where="false"))), "the project declares view 'v v1' twice"),
        (
            lambda: fs.Project((view(), view(fs.Feature("age_years", float), version=2))),
            (
                "feature 'age_years' changes its type between version 1 and version 2 of view 'v'; "
                "a feature has one type for ever: give it another name"
            ),
        ),
        (
            lambda: fs.Aggregation("clicks", "count", windows="7d"),
            "aggregation 'clicks', windows: '7d' is not a list; give a list of durations, e.g. ('1h', '7d')",
        ),
        (
            lambda: fs.Aggregation("spend", "sum", windows=("7d",)),
            "aggregation 'spend': sum of what? give a column or an expression",
        ),
        (
            lambda: fs.Feature("age", int, max_age=90),  # type: ignore[arg-type]
            "feature 'age', max_age: 90 is not a duration; write a number and s, m, h or d, e.g. '7d'",
        ),
        (
            lambda: fs.FeatureView("v", USER, PROFILES, ["age_years"]),  # type: ignore[list-item]
            "view 'v', features: 'age_years' is none of fs.Feature and fs.Aggregation",
        ),
        (
            lambda: fs.FeatureView("v", PROFILES, USER, [fs.Feature("debt", float)]),  # type: ignore[arg-type]
            "view 'v': UploadSource(…) is no Entity; give name, entity, source",
        ),
        (lambda: view(version="2"), "view 'v': version '2' is not a whole number from 1"),  # type: ignore[arg-type]
        (
            lambda: fs.Expectation("debt > 0", on_fail="drop"),  # type: ignore[arg-type]
            "expectation 'debt > 0': on_fail 'drop' is not quarantine or warn",
        ),
        (
            lambda: fs.DerivedView("d", inputs=["debt"], features=[fs.Feature("x", float)]),  # type: ignore[list-item]
            "view 'd', inputs: 'debt' is none of VIEW['feature'] and whole views",
        ),
        (lambda: fs.Model("m", ["debt"]), "model 'm', expected features: 'debt' is none of VIEW['feature']"),  # type: ignore[list-item]
        (
            lambda: fs.Project.from_modules("user"),  # type: ignore[arg-type]
            "Project.from_modules: 'user' is none of modules: import your files, and name them here",
        ),
        (lambda: fs.Entity("User", key="user_id"), "entity 'User': a name is lower_snake_case, at most 63 characters"),
        (lambda: fs.Feature("tie", int), "feature 'tie': the name is taken by a column of the log; choose another"),
        (
            lambda: fs.KafkaSource("s", timestamp="t", schema={"t": int}),
            "source 's': 't' is the timestamp; leave it out of the schema",
        ),
        (
            lambda: fs.UploadSource("s", timestamp="t", created_at="c", schema={"c": int}),
            "source 's': 'c' is the created_at; leave it out of the schema",
        ),
        (
            lambda: fs.UploadSource("s", timestamp="t", created_at="t", schema={"x": int}),
            "source 's': 't' is the timestamp and created_at",
        ),
        (
            lambda: fs.UploadSource("s", timestamp="t", created_at="C", schema={"x": int}),
            "source 's': created_at 'C' is not a lower_snake_case name",
        ),
        (
            lambda: fs.KafkaSource("s", timestamp="t", created_at="c", schema={"x": int}),
            "source 's': a record of Kafka is known when it lands; no created_at",
        ),
        (
            lambda: fs.KafkaSource("s", timestamp="t", schema={"x": bytes}),
            "source 's', column 'x': <class 'bytes'> is not one of str, int, float, bool (or `… | None`)",
        ),
        (lambda: view(fs.Feature("f", int), fs.Feature("f", int)), "view 'v' declares feature 'f' twice"),
        (lambda: fs.Feature("f", complex), "feature 'f': <class 'complex'> is not one of str, int, float, bool"),  # type: ignore[arg-type]
        (
            lambda: fs.DerivedView("d", [], [fs.Feature("f", int, "1")]),
            "view 'd' has neither inputs nor request values; give what it computes with",
        ),
        (
            lambda: fs.DerivedView("d", [], [fs.Feature("f", int, "x")], request={"x": bytes}),
            "view 'd', request value 'x': <class 'bytes'> is not one of str, int, float, bool (or `… | None`)",
        ),
        (lambda: fs.Model("m", []), "model 'm' expects no features; give at least one"),
    ],
)
def test_mistakes_are_named(declare: Callable[[], object], message: str) -> None:
    with pytest.raises(fs.DefinitionError) as raised:
        declare()
    assert str(raised.value) == message


def test_an_aggregation_makes_a_feature_per_window() -> None:
    names = [feature.name for feature in USER_ACTIVITY.all_features]
    assert names == ["last_action", "clicks_10m", "clicks_1h", "clicks_7d", "spend_7d"]
    assert [(column.name, column.dtype) for column in USER_ACTIVITY.columns] == [
        ("last_action", str),
        ("clicks", bool),
        ("spend", float),
    ]


def test_a_project_finds_what_its_files_name() -> None:
    project = fs.Project.from_modules(user)
    assert project == PROJECT
    assert [source.name for source in project.sources] == ["profiles", "user_events"]
    assert [one.name for one in project.views_of(USER_EVENTS)] == ["user_activity", "user_action"]
    assert project.find("clicks_7d") == USER_ACTIVITY["clicks_7d"]
    assert project.find("credit_profile") == CREDIT_PROFILE


def test_a_feature_of_text_is_suggested() -> None:
    with pytest.raises(UnknownFeatureError, match="did you mean 'clicks_7d'"):
        PROJECT.find("clicks_8d")


def add_one(rows: pa.Table) -> pa.Table:
    """A transform."""
    return rows.append_column("one", rows["sequence"])


def add_one_again(rows: pa.Table) -> pa.Table:
    # The same, called and laid out otherwise.
    return rows.append_column(
        "one",
        rows["sequence"],
    )


def add_two(rows: pa.Table) -> pa.Table:
    return rows.append_column("two", rows["sequence"])


def transformed(
    transform: Callable[[pa.Table], pa.Table], *expect: fs.Expectation, online: bool = False
) -> fs.FeatureView:
    return fs.FeatureView(
        "v", USER, PROFILES, [fs.Feature("age_years", int, online=online)], transform=transform, expect=expect
    )


def test_the_digest_is_of_what_changes_the_rows() -> None:
    same = [
        transformed(add_one),
        transformed(add_one_again),
        transformed(add_one, online=True),
        transformed(add_one, fs.Expectation("debt > 0", on_fail="warn")),
    ]
    others = [
        transformed(add_two),
        transformed(add_one, fs.Expectation("debt > 0")),
        view(),
        view(where="debt > 0"),
        view(fs.Feature("age_years", int, "age_years + 1")),
    ]
    assert len({one.digest for one in same}) == 1
    assert len({one.digest for one in [*same, *others]}) == 1 + len(others)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("no_such_module:PROJECT", "there is no module 'no_such_module'"),
        ("featurestore_dagster.features.user:PROJECT", "has no Project called 'PROJECT'"),
    ],
)
def test_a_project_that_is_not_there_is_named(reference: str, message: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        load_project(reference)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('fs.Entity("User", key="id")', "entity 'User': a name is lower_snake_case, at most 63 characters"),
        ('fs.Entity("user", keys="id")', "TypeError: Entity.__init__() got an unexpected keyword argument 'keys'"),
        ("import pandsa", "ModuleNotFoundError: No module named 'pandsa'"),
    ],
)
def test_a_mistake_in_the_users_code_is_said_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, message: str
) -> None:
    """Without a traceback: of ten frames only one is the user's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    name = f"mistaken_{abs(hash(line))}"
    (tmp_path / f"{name}.py").write_text(f"import featurestore as fs\n\n{line}\n")
    with pytest.raises(fs.DefinitionError) as raised:
        load_project(f"{name}:PROJECT")
    assert str(raised.value) == f"{message} ({name}.py:3)"


def test_a_project_is_loaded_by_its_reference() -> None:
    assert load_project("featurestore_dagster.features.project:PROJECT") is PROJECT


def test_a_source_whose_rows_bring_created_at_is_another_source() -> None:
    plain, own = (fs.UploadSource("s", timestamp="t", created_at=name, schema={"x": int}) for name in ("", "known"))

    assert plain.schema_version != own.schema_version
    assert plain.times == {"t": "event_timestamp"}
    assert own.times == {"t": "event_timestamp", "known": "created_at"}
