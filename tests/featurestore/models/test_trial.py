"""A version is tried out in a process of its own: what its artifacts do harms nobody else."""

from dataclasses import replace
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from featurestore.models import trial
from featurestore.models.trial import try_out
from tests.featurestore.models.examples import promoted, with_artifacts

GOOD, BYTES = promoted()
ALONE = replace(GOOD, artifacts=GOOD.artifacts[1:])


def findings(model: bytes) -> list[tuple[str, str]]:
    artifacts = {"model": model}
    return try_out(with_artifacts(ALONE, artifacts), artifacts)


def hostile(nodes: list[object], constants: list[object]) -> bytes:
    """A model that takes what the version says, and does something else with it."""
    graph = helper.make_graph(
        nodes,
        "hostile",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        initializer=constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return model.SerializeToString()


def endless() -> bytes:
    """A loop that does not end within a lifetime."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go_on"], ["goes_on"]), helper.make_node("Sin", ["now"], ["next"])],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("now", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
    )
    constants = [
        helper.make_tensor("turns", TensorProto.INT64, [], [2**62]),
        helper.make_tensor("true", TensorProto.BOOL, [], [True]),
    ]
    return hostile([helper.make_node("Loop", ["turns", "true", "x"], ["y"], body=body)], constants)


def greedy() -> bytes:
    """A tensor of 4 TB."""
    constants = [helper.make_tensor("shape", TensorProto.INT64, [2], [1_000_000, 1_000_000])]
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    return hostile(nodes, constants)


def test_a_good_version_is_loaded_and_scored() -> None:
    assert try_out(GOOD, BYTES) == []


def test_what_is_found_in_the_child_is_said_here() -> None:
    wrong = replace(GOOD, golden=(replace(GOOD.golden[0], score=0.25),))
    assert try_out(wrong, BYTES) == list(trial.findings(wrong, BYTES))
    assert try_out(wrong, BYTES)[0][0] == "golden"


def test_a_model_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "TIMEOUT_S", 3.0)
    assert findings(endless()) == [("onnx", "it could not be loaded and scored within 3 s")]


def test_a_model_that_takes_all_memory_is_refused() -> None:
    [(what, reason)] = findings(greedy())
    assert what == "onnx"
    assert "model.onnx.production cannot be" in reason or "ended" in reason


def test_a_child_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial.sys, "executable", "/bin/false")
    assert try_out(GOOD, BYTES) == [("onnx", "the process that loaded and scored it ended with exit code 1: no word")]


def test_the_child_knows_no_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FEATURESTORE_REDIS_URL", "redis://:s3cr3t@127.0.0.1/0")
    (tmp_path / "python").write_text("#!/bin/sh\nset >&2\nexit 7\n")
    (tmp_path / "python").chmod(0o700)
    monkeypatch.setattr(trial, "_SAID", 100_000)
    monkeypatch.setattr(trial.sys, "executable", str(tmp_path / "python"))
    [(_, reason)] = try_out(GOOD, BYTES)
    assert "exit code 7" in reason
    assert "s3cr3t" not in reason
