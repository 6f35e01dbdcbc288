"""Tables are made of checked names and types only."""

import pytest

from featurestore.database.jobs import FeatureColumn, ViewTable
from featurestore.errors import DefinitionError


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"view": 'x"; DROP TABLE applied; --'}, "lower_snake_case"),
        ({"target": "activity@v2"}, "is not version 1"),
        ({"version": 0}, "is not version 0"),
        ({"columns": (("a b", "BIGINT"),)}, "lower_snake_case"),
        ({"columns": (("tie", "BIGINT"),)}, "taken by a column of the log"),
        ({"columns": (("steps", "INTEGER DEFAULT nextval('x')"),)}, "is not one of BIGINT"),
        ({"features": (FeatureColumn("steps", "DOUBLE", True),)}, "is not a column of type DOUBLE"),
    ],
)
def test_a_table_is_made_of_checked_names_and_types_only(change: dict[str, object], reason: str) -> None:
    fields: dict[str, object] = {
        "target": "activity@v1",
        "view": "activity",
        "version": 1,
        "entity": "user",
        "source": "events",
        "digest": "d",
        "columns": (("steps", "BIGINT"),),
        "features": (FeatureColumn("steps", "BIGINT", True),),
    }
    assert ViewTable(**fields).relation == 'log."activity_v1"'  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match=reason):
        ViewTable(**{**fields, **change})  # type: ignore[arg-type]
