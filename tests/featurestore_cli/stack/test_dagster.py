"""Dagster's part: one server per code location of the workspace, a home of its own."""

import socket
from pathlib import Path

import pytest
import yaml

from featurestore.errors import TerminalError
from featurestore_cli.stack.dagster import plan_dagster
from featurestore_cli.stack.ports import Ports

WORKSPACE = """
load_from:
  - python_module:
      module_name: shop.definitions
      working_directory: code
      location_name: shop
  - python_file: other.py
"""


def test_each_location_of_the_workspace_gets_a_server(tmp_path: Path) -> None:
    (tmp_path / "workspace.yaml").write_text(WORKSPACE)
    dagster = plan_dagster(tmp_path / "home", tmp_path, previous_port=0, ports=Ports())
    shop, other = dagster.code_servers
    assert shop.arguments == ("--module-name", "shop.definitions", "--working-directory", str(tmp_path / "code"))
    assert other.arguments == ("--python-file", "other.py", "--working-directory", str(tmp_path))
    assert [shop.name, other.name] == ["dagster-code", "dagster-code-2"]

    dagster.prepare()
    written = yaml.safe_load((tmp_path / "home" / "workspace.yaml").read_text())["load_from"]
    assert [entry["grpc_server"]["location_name"] for entry in written] == ["shop", "other.py"]
    assert written[0]["grpc_server"]["socket"] == str(shop.socket)


def test_without_a_workspace_it_is_the_example_project(tmp_path: Path) -> None:
    [server] = plan_dagster(tmp_path, tmp_path, previous_port=0, ports=Ports()).code_servers
    assert server.arguments[:2] == ("--module-name", "featurestore_dagster.definitions")


def test_what_up_cannot_serve_is_refused(tmp_path: Path) -> None:
    (tmp_path / "workspace.yaml").write_text("load_from: [{grpc_server: {host: elsewhere, port: 4000}}]")
    with pytest.raises(TerminalError, match="cannot start a grpc_server"):
        plan_dagster(tmp_path, tmp_path, previous_port=0, ports=Ports())
    (tmp_path / "workspace.yaml").write_text("load_from: [")
    with pytest.raises(TerminalError, match="is not YAML"):
        plan_dagster(tmp_path, tmp_path, previous_port=0, ports=Ports())


def test_a_path_too_long_for_a_socket_gets_a_port(tmp_path: Path) -> None:
    home = tmp_path / ("deep" * 30)
    [server] = plan_dagster(home, tmp_path, previous_port=0, ports=Ports()).code_servers
    assert server.socket is None
    assert server.entry()["grpc_server"] == {"host": "127.0.0.1", "port": server.port, "location_name": server.location}


def test_the_projects_own_settings_go_first(tmp_path: Path) -> None:
    dagster = plan_dagster(tmp_path / "home", tmp_path, previous_port=0, ports=Ports())
    dagster.prepare()
    assert "telemetry" in (tmp_path / "home" / "dagster.yaml").read_text()
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}  # mine\n")
    dagster.prepare()
    assert "mine" in (tmp_path / "home" / "dagster.yaml").read_text()


def test_the_instance_is_initialised_once_for_each_version_of_dagster(tmp_path: Path) -> None:
    dagster = plan_dagster(tmp_path / "home", tmp_path, previous_port=0, ports=Ports())
    assert dagster.prepare()
    dagster.initialised()
    assert not dagster.prepare()
    (tmp_path / "home" / "initialised").write_text("1.0.0")
    assert dagster.prepare()


def test_the_port_is_kept_from_the_last_time_unless_it_is_taken(tmp_path: Path) -> None:
    port = Ports().take()
    assert plan_dagster(tmp_path, tmp_path, previous_port=port, ports=Ports()).port == port
    with socket.create_server(("127.0.0.1", port)):
        assert plan_dagster(tmp_path, tmp_path, previous_port=port, ports=Ports()).port != port
