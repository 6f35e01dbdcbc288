"""The asset graph as its pages show it: every node is described, and every column leads to where it comes from."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from featurestore_dagster.features.project import PROJECT
from tests.featurestore_dagster.pages import pages

GRAPH = """{assetNodes{assetKey{path} description groupName kinds isExecutable
  owners{... on TeamAssetOwner{team} ... on UserAssetOwner{email}}
  metadataEntries{label
    ... on TableSchemaMetadataEntry{schema{columns{name type}}}
    ... on TableColumnLineageMetadataEntry{lineage{columnName columnDeps{assetKey{path} columnName}}}
    ... on CodeReferencesMetadataEntry{codeReferences{... on LocalFileCodeReference{filePath lineNumber}}}}}}"""

GROUPS = {
    "source": "sources",
    "raw": "raw",
    "landing": "raw",
    "erasures": "raw",
    "features": "features",
    "lake": "lake",
    "online": "online",
    "models": "models",
}
# Commands in the shape of assets, and tables that are the platform's own.
WITHOUT_COLUMNS = {"landing", "erasures", "models"}
OPERATIONS = {"online/rebuild"}

Node = dict[str, Any]


@pytest.fixture(scope="module")
def nodes() -> Generator[dict[str, Node]]:
    with dg.instance_for_test() as instance, pages(instance, "featurestore_dagster.definitions") as ask:
        yield {"/".join(node["assetKey"]["path"]): node for node in ask(GRAPH)}


def entry(node: Node, label: str) -> Any:
    [found] = [one for one in node["metadataEntries"] if one["label"] == label] or [None]
    return found


def columns_of(node: Node) -> list[str]:
    schema = entry(node, "dagster/column_schema")
    return [column["name"] for column in schema["schema"]["columns"]] if schema else []


def test_every_asset_says_what_it_is_and_where_it_belongs(nodes: dict[str, Node]) -> None:
    for key, node in nodes.items():
        assert node["description"].rstrip(".") != node["description"], key
        assert node["groupName"] == GROUPS[key.split("/")[0]], key
        assert node["kinds"], key


def test_a_views_assets_have_its_owner_and_lead_to_its_line(nodes: dict[str, Node]) -> None:
    for view in PROJECT.views:
        assets = [nodes[key] for room in ("features", "online", "lake") if (key := f"{room}/{view.name}") in nodes]
        assert assets
        for node in assets:
            assert node["owners"] == [{"team": view.owner.removeprefix("team:")}], view.name
            [reference] = entry(node, "dagster/code_references")["codeReferences"]
            lines = Path(reference["filePath"]).read_text().splitlines()
            assert f'"{view.name}"' in "".join(lines[reference["lineNumber"] - 1 :][:2])


def test_every_column_leads_to_a_column_upstream(nodes: dict[str, Node]) -> None:
    for key, node in nodes.items():
        if key in OPERATIONS or key.split("/")[0] in WITHOUT_COLUMNS:
            continue
        columns = columns_of(node)
        assert columns, key
        lineage = entry(node, "dagster/column_lineage")
        if lineage is None:
            assert key.startswith("source/"), key
            continue
        for column in lineage["lineage"]:
            assert column["columnName"] in columns, key
            assert column["columnDeps"] or key.startswith("features/"), (key, column)  # a constant, or of the request
            for dep in column["columnDeps"]:
                assert dep["columnName"] in columns_of(nodes["/".join(dep["assetKey"]["path"])]), (key, column, dep)
