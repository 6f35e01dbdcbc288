"""ONNX models: what they take, and what they give.

A version's artifacts are applied one after the other: each that is not the model itself, in the order of the metadata
(a scaler, an encoder), then the model. Each takes one matrix of numbers, a row per entity and a column per expected
feature, in index order. The score of a row is the last column of the model's last output of floats: a single column is
itself, and of the probabilities of a classifier it is that of the last class.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.errors import TerminalError
from featurestore.models.metadata import ModelVersion

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Tensor = np.ndarray[Any, np.dtype[Any]]
Matrix = np.ndarray[tuple[int, int], np.dtype[Any]]
Vector = Sequence[int | float | bool]

_NUMBERS = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}
_KINDS = {int, float, bool}
_FLOATS = {"tensor(float)", "tensor(double)"}
_OUTPUTS = {**_NUMBERS, "tensor(int32)": np.int32, "tensor(bool)": np.bool_}


class ModelError(TerminalError):
    """An artifact cannot be loaded or run; the message says which and why."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What an artifact takes or gives."""

    name: str
    dtype: type  # of numpy
    shape: tuple[int, ...]  # -1: any


@dataclass(frozen=True, slots=True)
class Stage:
    """One artifact, loaded."""

    name: str
    session: "InferenceSession"
    input: TensorInfo
    output: str  # the last one of floats
    outputs: tuple[TensorInfo, ...]  # of numbers

    @property
    def width(self) -> int | None:
        """How many columns its matrix has; None: any."""
        return self.input.shape[1] if self.input.shape[1] >= 0 else None

    def run(self, rows: Matrix, outputs: Sequence[str] = ()) -> list[Tensor]:
        """The named outputs; without names, the one that is the score or the next stage's input."""
        # A cast that changes a number beyond rounding would change the score without a word.
        with np.errstate(over="ignore", invalid="ignore"):
            given = rows.astype(self.input.dtype, copy=False)
        if self.input.dtype is np.int64 and not np.array_equal(given, rows):
            raise ModelError(f"{self.name} takes whole numbers, and these are not")
        if not np.isfinite(given).all() and not np.array_equal(np.isfinite(given), np.isfinite(rows)):
            raise ModelError(f"{self.name} takes float32, and these numbers are too large for it")
        try:
            found = self.session.run(outputs or [self.output], {self.input.name: given})
        except _runtime_errors() as error:
            raise ModelError(f"{self.name} cannot be run: {_first_line(error)}") from error
        return [np.asarray(one) for one in found]


class OnnxModel:
    """A loaded version; thread-safe. One thread per call, so that callers decide how many cores they use."""

    def __init__(self, artifacts: Sequence[tuple[str, bytes]]) -> None:
        """Load artifacts, in the order they are applied, each with a name for messages.

        Raises:
            ModelError: one cannot be loaded, or does not take and give a matrix of numbers.
        """
        self.stages = tuple(_load(name, data) for name, data in artifacts)

    @property
    def width(self) -> int | None:
        """How many inputs it takes; None if it does not say."""
        return self.stages[0].width

    @property
    def input(self) -> TensorInfo:
        return self.stages[0].input

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """Of the model itself."""
        return self.stages[-1].outputs

    def score(self, vectors: Sequence[Vector]) -> list[float]:
        """One score per vector.

        Raises:
            ModelError: a vector has another width, or holds what is not a number.
        """
        if not vectors:
            return []
        [found] = self.infer(_matrix(vectors))
        return found.reshape(len(vectors), -1)[:, -1].astype(np.float64).tolist()

    def infer(self, rows: Matrix, outputs: Sequence[str] = ()) -> list[Tensor]:
        """The named outputs of the model itself for a matrix of inputs; without names, the one with the score.

        Raises:
            ModelError: the matrix has another width, or holds what the model does not take.
        """
        for stage in self.stages:
            if stage.width is not None and rows.shape[1] != stage.width:
                raise ModelError(f"{stage.name} takes {stage.width} inputs, not {rows.shape[1]}")
            if stage is self.stages[-1]:
                break
            [found] = stage.run(rows)
            rows = found.reshape(len(rows), -1)
        return self.stages[-1].run(rows, outputs)


def load(version: ModelVersion, artifacts: Mapping[str, bytes]) -> OnnxModel:
    """Load a version from its artifacts' bytes, by artifact type.

    Raises:
        ModelError: one cannot be loaded, or does not take and give a matrix of numbers.
    """
    names = [(one.artifact_type, one.azure_location) for one in version.artifacts]
    return OnnxModel([(name, artifacts[artifact_type]) for artifact_type, name in in_order(names)])


def in_order(named: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Pairs that begin with an artifact type, in the order the artifacts are applied: the model last."""
    return sorted(named, key=lambda one: one[0] == "model")


def _matrix(vectors: Sequence[Vector]) -> Matrix:
    """float64, which holds every int up to 2^53."""
    width = len(vectors[0])
    rows = np.empty((len(vectors), width), dtype=np.float64)
    for number, vector in enumerate(vectors):
        kinds = set(map(type, vector))
        if len(vector) != width or not kinds <= _KINDS:
            raise ModelError(f"vector {number}, {list(vector)!r}, is not a row of {width} numbers")
        if int in kinds and any(isinstance(value, int) and abs(value) > 2**53 for value in vector):
            raise ModelError(f"vector {number}: a whole number above 2^53 has no exact float")
        rows[number] = vector
    return rows


def _load(name: str, data: bytes) -> Stage:
    import onnxruntime  # here, because loading it takes half a second that only scoring needs

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except _runtime_errors() as error:
        raise ModelError(f"{name} cannot be loaded: {_first_line(error)}") from error
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1:
        raise ModelError(f"{name} takes {len(inputs)} inputs ({', '.join(one.name for one in inputs)}), not one matrix")
    if inputs[0].type not in _NUMBERS or len(inputs[0].shape) != 2:
        raise ModelError(f"{name} takes a {inputs[0].type} of shape {inputs[0].shape}, not a matrix of numbers")
    floats = [one for one in outputs if one.type in _FLOATS]
    if not floats:
        raise ModelError(f"{name} gives {', '.join(one.type for one in outputs)}, and no tensor of floats")
    return Stage(
        name=name,
        session=session,
        input=_tensor(inputs[0]),
        output=floats[-1].name,
        outputs=tuple(_tensor(one) for one in outputs if one.type in _OUTPUTS),
    )


def _tensor(node: Any) -> TensorInfo:
    """Of a session's input or output; a size that is no number is any."""
    return TensorInfo(node.name, _OUTPUTS[node.type], tuple(n if isinstance(n, int) else -1 for n in node.shape))


def _runtime_errors() -> tuple[type[Exception], ...]:
    """What onnxruntime raises; its errors have no common ancestor."""
    state: Any = import_module("onnxruntime.capi.onnxruntime_pybind11_state")  # here, for the same reason
    own = (value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception))
    return (*own, RuntimeError, ValueError)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
