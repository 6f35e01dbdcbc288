"""Scores by entity keys against their two parts alone: the read of the features, and a bare run of onnxruntime.

python -m benchmarks.score --repeats 2000
"""

import argparse

import numpy as np
import onnxruntime
from onnx import TensorProto, helper
from prometheus_client import CollectorRegistry

import featurestore as fs
from benchmarks.online_data import ALL, PROJECT, filled_redis
from benchmarks.online_read import compare
from featurestore.database.embedded import EmbeddedDatabase
from featurestore.models.publish import ModelStore
from featurestore.online.redis_store import RedisOnlineStore
from featurestore.store import Store
from featurestore_serving.features import Features, Limits
from featurestore_serving.metrics import ModelMetrics
from featurestore_serving.models import ServedModels
from featurestore_serving.scores import ScoreRequest, Scores
from tests.featurestore.models.examples import scoring

GOALS = {1: 1.5, 100: 1.5}
MODEL = fs.Model("bench", [ALL[0][one.name] for one in ALL[0].online_features if one.dtype is float][:10])
WIDTH, TREES = len(MODEL.expected_features), 100


def forest() -> bytes:
    """Trees of depth 1 over random inputs: about what a small gradient boosting costs."""
    dice = np.random.default_rng(1)
    nodes = {"treeids": [], "nodeids": [], "featureids": [], "modes": [], "values": [], "true": [], "false": []}
    for tree in range(TREES):
        nodes["treeids"] += [tree] * 3
        nodes["nodeids"] += [0, 1, 2]
        nodes["featureids"] += [int(dice.integers(WIDTH)), 0, 0]
        nodes["modes"] += ["BRANCH_LEQ", "LEAF", "LEAF"]
        nodes["values"] += [float(dice.random()), 0.0, 0.0]
        nodes["true"] += [1, 0, 0]
        nodes["false"] += [2, 0, 0]
    node = helper.make_node(
        "TreeEnsembleRegressor",
        ["inputs"],
        ["score"],
        domain="ai.onnx.ml",
        n_targets=1,
        nodes_treeids=nodes["treeids"],
        nodes_nodeids=nodes["nodeids"],
        nodes_featureids=nodes["featureids"],
        nodes_modes=nodes["modes"],
        nodes_values=nodes["values"],
        nodes_truenodeids=nodes["true"],
        nodes_falsenodeids=nodes["false"],
        target_treeids=[tree for tree in range(TREES) for _ in range(2)],
        target_nodeids=[1, 2] * TREES,
        target_ids=[0, 0] * TREES,
        target_weights=dice.random(2 * TREES).tolist(),
    )
    given = helper.make_tensor_value_info("inputs", TensorProto.FLOAT, ["rows", WIDTH])
    found = helper.make_tensor_value_info("score", TensorProto.FLOAT, ["rows", 1])
    graph = helper.make_graph([node], "forest", [given], [found])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


def bare_session(data: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entities", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=2_000)
    args = parser.parse_args()
    data = forest()
    with filled_redis(args.entities) as url:
        project = fs.Project(PROJECT.views, (MODEL,))
        store, models = Store(project, EmbeddedDatabase(), RedisOnlineStore(url)), ModelStore(url)
        models.publish(*scoring(MODEL, "1", data), 1)
        served = ServedModels(models, 10**9, ModelMetrics(CollectorRegistry()))
        scores = Scores(project, Features(store, Limits(rows=10_000, features=1000, values=10**6)), served)
        session, features = bare_session(data), list(MODEL.expected_features)
        matrices = {rows: np.random.default_rng(2).random((rows, WIDTH), np.float32) for rows in GOALS}

        def ours(users: list[int]) -> object:
            return scores.answer(ScoreRequest(model="bench", keys={"user_id": users}, request={}))

        def parts(users: list[int]) -> object:
            store.online({"user_id": users}, features)
            return session.run(None, {"inputs": matrices[len(users)]})

        for rows, goal in GOALS.items():
            ways = {"score": ours, "read + onnxruntime": parts}
            found = compare(ways, args.entities, rows, max(50, args.repeats // rows))
            print(f"{rows} entities x {WIDTH} features")
            for name, micros in found.items():
                print(f"  {name:20} p50 {micros:8.1f} µs")
            print(f"  ratio {found['score'] / found['read + onnxruntime']:.2f} (goal {goal})")
        store.close()
        models.close()


if __name__ == "__main__":
    main()
