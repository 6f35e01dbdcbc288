"""A model from labels to a served score, on the running platform. The tour is docs/models.md.

python examples/credit_risk.py train         labels → training set → scikit-learn → ONNX, ready to push
python examples/credit_risk.py compare       the server's scores beside the same scores computed offline
"""

import json
import os
import sys
import urllib.request
from datetime import UTC, datetime

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import featurestore as fs
from featurestore.settings import Settings
from featurestore_dagster.features.project import PROJECT
from featurestore_dagster.features.user import CREDIT_RISK

SETTINGS = Settings.from_env(os.environ)
LABELS = SETTINGS.data_dir / "generator" / "labels.parquet"  # made by the generator: loans, and whether they defaulted
FOLDER = SETTINGS.data_dir / "examples" / CREDIT_RISK.model_id
FEATURES = [feature.name for feature in CREDIT_RISK.expected_features]


def train() -> None:
    """Write a folder that `featurestore models push` takes, and the receipt of the training set beside it."""
    # 1. What was known of each user when the loan was given: never later, so that training sees what serving will see.
    with fs.connect(PROJECT) as store:
        training = store.training_set(pq.read_table(LABELS), CREDIT_RISK.expected_features)
    known = pa.table(training).drop_null()

    # 2. An ordinary scikit-learn model, of the features in the order that the project declares.
    inputs = np.column_stack([known[name].to_numpy() for name in FEATURES])
    model = make_pipeline(StandardScaler(), LogisticRegression())
    model.fit(inputs, known["defaulted"].to_numpy(zero_copy_only=False))

    # 3. The same model as ONNX, which runs no code of ours, and some rows with the scores that it has to give for ever.
    onnx = to_onnx(model, inputs[:1].astype(np.float32), options={"zipmap": False}).SerializeToString()
    rows = inputs[:5]
    golden = [{"inputs": row, "score": score} for row, score in zip(rows.tolist(), scores(onnx, rows), strict=True)]

    # 4. A folder to push.
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "model.onnx").write_bytes(onnx)
    version = f"{datetime.now(UTC):%Y%m%dT%H%M%S}"
    (FOLDER / "metadata.json").write_text(json.dumps({"version": version, "golden": golden}))
    (FOLDER.parent / "train.receipt.json").write_bytes(training.receipt.to_json())
    print(f"trained on {len(known)} of {len(training)} loans, version {version}: {FOLDER}")


def compare() -> None:
    """Ask the server for scores; compute each of them again, from the log, for the instant of its newest feature."""
    users = sorted(set(pq.read_table(LABELS)["user_id"].to_pylist()))[:100]
    reply = post("/v1/score", {"model": CREDIT_RISK.model_id, "keys": {"user_id": users}})
    scored = [(user, row) for user, row in zip(users, reply["rows"], strict=True) if row["score"] is not None]
    times = [max(one["event_timestamp"] for one in row["features"].values()) for _, row in scored]
    spine = pa.table({
        "user_id": [user for user, _ in scored],
        "event_timestamp": pa.array([datetime.fromisoformat(time) for time in times], pa.timestamp("us", "UTC")),
    })  # fmt: skip
    with fs.connect(PROJECT) as store:
        known = store.training_set(spine, CREDIT_RISK.expected_features).table
    inputs = np.column_stack([known[name].to_numpy() for name in FEATURES])
    offline = scores((FOLDER / "model.onnx").read_bytes(), inputs)
    online = [row["score"] for _, row in scored]
    for (user, _), here, there in list(zip(scored, online, offline, strict=True))[:5]:
        print(f"user {user:<8} online {here:.6f}   offline {there:.6f}")
    worst = max(abs(here - there) for here, there in zip(online, offline, strict=True))
    print(f"{len(scored)} users by version {reply['version']}; the largest difference is {worst:.1e}")
    if worst > 1e-6:
        sys.exit(1)


def scores(onnx: bytes, inputs: np.ndarray) -> list[float]:
    """The probability of a default, by the ONNX file alone."""
    session = onnxruntime.InferenceSession(onnx)
    [probabilities] = session.run(["probabilities"], {"X": inputs.astype(np.float32)})
    return probabilities[:, 1].tolist()


def post(path: str, body: object) -> dict:
    url = f"http://{SETTINGS.server.address}{path}"
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as reply:
        return json.load(reply)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["train"]:
            train()
        case ["compare"]:
            compare()
        case _:
            sys.exit(__doc__)
