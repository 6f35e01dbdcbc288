"""Who was erased: what is written down, whose rows and dead letters that concerns, and since when."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from featurestore.errors import CorruptFileError
from featurestore.landing.dead_letters import DeadLetter, may_name
from featurestore.landing.erasures import Erasures

NOW = datetime(2026, 5, 4, tzinfo=UTC)
LATER = NOW + timedelta(microseconds=1)
ROWS = pa.table({"user_id": [1, 2, None, 1], "shop": ["a", "b", "c", "d"]})


def test_the_id_is_not_written_down_once_it_was_carried_out(tmp_path: Path) -> None:
    erasures = Erasures(tmp_path)
    decided = erasures.decide("user", ("user_id",), ["sales"], "secret-42", NOW)
    assert erasures.decide("user", ("user_id",), ["sales"], "secret-42", LATER) == decided  # it is gone on with
    erasures.note(type(decided)(**{**{f: getattr(decided, f) for f in decided.__struct_fields__}, "entity_id": ""}))
    assert b"secret-42" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    [known] = Erasures(tmp_path).all()
    assert known.entity_hash == decided.entity_hash == Erasures(tmp_path).hash_of("user", "secret-42")
    assert Erasures(tmp_path / "other").hash_of("user", "secret-42") != known.entity_hash  # nobody can guess it
    assert erasures.decide("user", ("user_id",), ["sales"], "secret-42", LATER).erased_at > known.erased_at


def test_rows_of_a_source_that_had_landed_by_then_are_gone(tmp_path: Path) -> None:
    erasures = Erasures(tmp_path)
    assert erasures.erased("sales", ROWS, NOW) is None
    erasures.decide("user", ("user_id",), ["sales"], "1", NOW)
    found = erasures.erased("sales", ROWS, NOW)
    assert found is not None
    assert found.to_pylist() == [True, False, False, True]
    assert erasures.erased("sales", ROWS, LATER) is None
    assert erasures.erased("others", ROWS, NOW) is None
    erasures.decide("pair", ("user_id", "shop"), ["sales"], "2|b", LATER)
    both = erasures.erased("sales", ROWS, NOW)
    assert both is not None
    assert both.to_pylist() == [True, True, False, True]


@pytest.mark.parametrize(
    ("raw", "names"),
    [
        (b'{"user_id": 42, "at": "x"}', True),
        (b'{"user_id": "42", "at": "x"}', True),
        (b'{"user_id": 43, "amount": 42}', False),  # of somebody else
        (b'{"entity_id": "42", "feature_name": "x"}', True),
        (b"42,3.5,x", True),
        (b'"42";x', True),
        (b"142,423,x42", False),
        (b'{"user_id": 42', True),  # cut off
        (b"\xff\xfe 42 \x00", True),
    ],
)
def test_a_dead_letter_names_an_entity_by_its_columns_or_by_a_word(raw: bytes, names: bool) -> None:
    assert ("42" in set(may_name(DeadLetter(0, "bad", raw), ("user_id",)))) is names
    assert "42" in set(may_name(DeadLetter(0, "bad", raw, key=b"42"), ("user_id",)))


def test_a_dead_letter_names_a_key_of_several_columns() -> None:
    for raw in (b'{"user_id": 1, "shop": "a|b"}', b'2026;1;"a|b"'):
        assert "1|a\\|b" in set(may_name(DeadLetter(0, "bad", raw), ("user_id", "shop")))


def test_a_damaged_record_is_said(tmp_path: Path) -> None:
    (tmp_path / "1.json").write_text("{")
    with pytest.raises(CorruptFileError, match="who was erased must be known"):
        Erasures(tmp_path).all()
