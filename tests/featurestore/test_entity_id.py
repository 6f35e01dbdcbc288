"""One entity has one text, and no two entities share one."""

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.entity_id import KeyValue, entity_id, entity_id_sql, key_texts
from featurestore.errors import TerminalError

TEXTS = st.text(alphabet="ab|\\1", min_size=1, max_size=4)
KEYS = st.tuples(TEXTS, TEXTS)


@given(KEYS, KEYS)
def test_keys_of_several_columns_never_collide(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert (entity_id(one) == entity_id(other)) == (one == other)


@given(KEYS)
def test_sql_makes_the_same_text(key: tuple[str, str]) -> None:
    query = f"SELECT {entity_id_sql(('x', 'y'))} FROM (SELECT ? AS x, ? AS y)"
    assert duckdb.execute(query, list(key)).fetchall() == [(entity_id(key),)]


def test_a_number_and_its_text_are_one_entity() -> None:
    assert entity_id([42]) == entity_id(["42"]) == "42"


@pytest.mark.parametrize("value", [42.0, True, None, ""])
def test_what_could_be_written_in_two_ways_is_refused(value: KeyValue | None) -> None:
    with pytest.raises(TerminalError):
        entity_id([value])


@given(KEYS)
def test_a_key_is_read_back_from_its_text(key: tuple[str, str]) -> None:
    assert key_texts(entity_id(key), 2) == list(key)


@pytest.mark.parametrize("text", ["a", "a|", "|", "a|b|c", "a\\|b", "a\\x|b", "a|b\\"])
def test_other_texts_are_no_key(text: str) -> None:
    with pytest.raises(TerminalError, match="not the text of a key of 2 columns"):
        key_texts(text, 2)
