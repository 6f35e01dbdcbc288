"""Dagster's webserver, asked over GraphQL: reload the code, start a backfill."""

import http.client
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from featurestore.errors import StoreUnavailableError, TerminalError

TIMEOUT_S = 120.0  # loading a project's code is part of an answer

_LOCATIONS = """
query { workspaceOrError {
  ... on Workspace { locationEntries { name } }
  ... on PythonError { message }
} }
"""
_RELOAD = """
mutation($name: String!) { reloadRepositoryLocation(repositoryLocationName: $name) {
  __typename
  ... on WorkspaceLocationEntry { locationOrLoadError { __typename ... on PythonError { message causes { message } } } }
  ... on PythonError { message }
  ... on ReloadNotSupported { message }
  ... on RepositoryLocationNotFound { message }
} }
"""
_BACKFILL = """
mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  __typename
  ... on LaunchBackfillSuccess { backfillId }
  ... on PythonError { message }
  ... on UnauthorizedError { message }
  ... on InvalidSubsetError { message }
  ... on PartitionKeysNotFoundError { message }
} }
"""
_STATUS = """
query($id: String!) { partitionBackfillOrError(backfillId: $id) {
  __typename
  ... on PartitionBackfill { status }
  ... on PythonError { message }
  ... on BackfillNotFoundError { message }
} }
"""


class Webserver:
    """The webserver of a running platform.

    Raises, from every method: StoreUnavailableError (it does not answer), TerminalError (it refuses; with the reason).
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def locations(self) -> list[str]:
        """The names of the code locations."""
        workspace = self._ask(_LOCATIONS)["workspaceOrError"]
        if "message" in workspace:
            raise TerminalError(f"Dagster cannot load its workspace: {workspace['message'].strip()}")
        return [entry["name"] for entry in workspace["locationEntries"]]

    def reload(self, location: str) -> None:
        """Load a code location anew; what it makes of its code's mistakes is the error."""
        found = self._ask(_RELOAD, name=location)["reloadRepositoryLocation"]
        loaded = found.get("locationOrLoadError") or found
        if "message" in loaded:
            causes = [cause["message"] for cause in loaded.get("causes", [])]
            raise TerminalError(f"Dagster cannot load {location}: {(causes or [loaded['message']])[-1].strip()}")

    def backfill(self, assets: Sequence[Sequence[str]], partitions: Sequence[str], title: str) -> str:
        """Start a backfill of these assets' partitions; return its id."""
        params = {
            "assetSelection": [{"path": list(path)} for path in assets],
            "partitionNames": list(partitions),
            "title": title,
        }
        found = self._ask(_BACKFILL, params=params)["launchPartitionBackfill"]
        if "backfillId" not in found:
            raise TerminalError(f"Dagster does not start the backfill: {found.get('message', found['__typename'])}")
        return found["backfillId"]

    def backfill_status(self, backfill_id: str) -> str:
        """REQUESTED, COMPLETED_SUCCESS, FAILED and the like."""
        found = self._ask(_STATUS, id=backfill_id)["partitionBackfillOrError"]
        return found.get("status", found.get("message", found["__typename"]))

    def _ask(self, query: str, **variables: object) -> dict[str, Any]:
        address = urlsplit(self.url)
        connection_class = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
        connection = connection_class(address.netloc, timeout=TIMEOUT_S)
        try:
            body = json.dumps({"query": query, "variables": variables})
            connection.request("POST", f"{address.path}/graphql", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise StoreUnavailableError("Dagster", self.url, str(error)) from error
        finally:
            connection.close()
        if answer.get("errors"):
            raise TerminalError(f"Dagster at {self.url}: {answer['errors'][0]['message']}")
        return answer["data"]
