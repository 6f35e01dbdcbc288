"""Views become typed tables, and the long relation over them."""

from collections.abc import Generator
from dataclasses import replace

import pytest

import featurestore as fs
from featurestore.database.embedded import EmbeddedDatabase
from featurestore.database.jobs import SchemaJob
from featurestore.database.tables import ARROW_TYPES, HEAD_TYPES, create_hot_table, schema_job, view_table
from featurestore.order import HEAD
from tests.featurestore.database.examples import ACTIVITY, NOON, PROJECT, SCHEMA, job, row, table


@pytest.fixture
def database() -> Generator[EmbeddedDatabase]:
    opened = EmbeddedDatabase()
    yield opened
    opened.close()


def test_a_view_becomes_a_table() -> None:
    made = view_table(ACTIVITY)
    assert (made.target, made.relation) == ("activity@v1", 'log."activity_v1"')
    assert made.columns[-1] == ("spend", "DOUBLE")  # the aggregation's input
    assert [one.name for one in made.features] == ["last_action", "amount", "steps", "bought"]
    assert [one.name for one in made.features if one.online] == ["last_action", "steps"]
    assert 'commit_seq BIGINT NOT NULL, "last_action" VARCHAR,' in create_hot_table(made)
    assert list(HEAD_TYPES) == list(HEAD)
    assert set(HEAD_TYPES.values()) <= set(ARROW_TYPES)


def test_a_project_becomes_one_job() -> None:
    assert [one.target for one in schema_job(PROJECT).tables] == ["activity@v1"]


def test_features_is_there_before_any_view(database: EmbeddedDatabase) -> None:
    database.ensure(SchemaJob("none", ()))
    before = database.query_arrow("FROM features")
    database.ensure(SCHEMA)
    assert before.num_rows == 0
    assert database.query_arrow("FROM features").schema.names == before.schema.names


def test_the_long_relation_has_a_row_per_row_feature(database: EmbeddedDatabase) -> None:
    database.ensure(SCHEMA)
    database.append(job(("a", 1), rows=table(row("a", 0, last_action="buy", steps=None, amount=2.5, bought=True))))
    rows = database.query_arrow("FROM features ORDER BY feature_name").to_pylist()
    at = NOON.replace(tzinfo=None)
    head = {"entity_id": "0", "event_timestamp": at, "created_at": at, "sequence": 0, "view_version": 1}
    empty = {"value": None, "value_int": None, "value_text": None, "value_bool": None}
    assert rows == [
        {**head, **empty, "feature_name": "amount", "value": 2.5},
        {**head, **empty, "feature_name": "bought", "value": 1.0, "value_bool": True},
        {**head, **empty, "feature_name": "last_action", "value_text": "buy"},
        {**head, **empty, "feature_name": "steps"},
    ]


def test_a_query_of_one_feature_reads_one_table_only(database: EmbeddedDatabase) -> None:
    other = fs.FeatureView("other", ACTIVITY.entity, ACTIVITY.source, [fs.Feature("strides", int, "steps * 2")])
    database.ensure(schema_job(fs.Project(views=(ACTIVITY, other, replace(ACTIVITY, version=2)))))
    plan = str(database.query_arrow("EXPLAIN SELECT value FROM features WHERE feature_name = 'strides'").to_pylist())
    assert "other_v1" in plan
    assert "activity_v1" not in plan
