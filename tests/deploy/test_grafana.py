"""deploy/grafana: dashboards that a Grafana can load, and that find their data source."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

DIRECTORY = Path(__file__).parents[2] / "deploy" / "grafana"
BOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((DIRECTORY / "dashboards").iterdir())}


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (panel for panel in board["panels"] if panel["type"] != "row")


@pytest.mark.parametrize("name", BOARDS)
def test_ids_are_unique_and_the_data_source_is_the_provisioned_one(name: str) -> None:
    board = BOARDS[name]
    assert board["uid"] == name
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    [source] = yaml.safe_load((DIRECTORY / "provisioning/datasources/featurestore.yaml").read_text())["datasources"]
    for panel in panels(board):
        assert panel["datasource"] == {"type": source["type"], "uid": source["uid"]}
        references = [target["refId"] for target in panel["targets"]]
        assert all(references)
        assert len(set(references)) == len(references)
