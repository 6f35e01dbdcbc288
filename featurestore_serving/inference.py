"""The Open Inference Protocol v2: tensors → the model → tensors, as JSON or with their bytes behind it.

One input, the matrix of the expected features in index order, of the type that the model takes; no number is cast. The
binary tensor extension is understood: parameters `binary_data_size`, `binary_data` and `binary_data_output`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from featurestore.models.onnx import Matrix, Tensor, TensorInfo
from featurestore_serving.models import LoadedModel, ServedModels
from featurestore_serving.refusals import Reason, RefusedError
from featurestore_serving.wire import decoded

EXTENSIONS = ("binary_tensor_data",)
DATATYPES: Mapping[type, str] = {
    np.float32: "FP32",
    np.float64: "FP64",
    np.int64: "INT64",
    np.int32: "INT32",
    np.bool_: "BOOL",
}

_KINDS: Mapping[str, frozenset[type]] = {
    "FP32": frozenset({int, float}),
    "FP64": frozenset({int, float}),
    "INT64": frozenset({int}),
}

Document = Mapping[str, object]


class _Input(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: list[Any] | None = None
    parameters: dict[str, Any] = {}


class _Output(msgspec.Struct):
    name: str
    parameters: dict[str, Any] = {}


class _Request(msgspec.Struct):
    inputs: list[_Input]
    id: str = ""
    outputs: list[_Output] = []
    parameters: dict[str, Any] = {}


_decode = msgspec.json.Decoder(_Request).decode


@dataclass(frozen=True, slots=True)
class Message:
    """A body: JSON, and behind its `header_bytes` the bytes of tensors, if there are any."""

    body: bytes
    header_bytes: int | None = None


class Inference:
    """Answers for the models in production; thread-safe. Raises as ServedModels does, and RefusedError."""

    def __init__(self, models: ServedModels, max_rows: int) -> None:
        self._models, self._max_rows = models, max_rows

    def model(self, model_id: str, version: str = "") -> LoadedModel:
        """The model, if it is that version which is in production."""
        found = self._models.get(model_id)
        if version not in {"", found.manifest.version}:
            raise RefusedError(
                Reason.NOT_FOUND,
                f"version {version[:100]!r} of {model_id!r} is not in production; {found.manifest.version!r} is",
            )
        return found

    def metadata(self, model_id: str, version: str = "") -> Document:
        """What a model takes and gives."""
        found = self.model(model_id, version)
        return {
            "name": model_id,
            "versions": [found.manifest.version],
            "platform": "onnxruntime_onnx",
            "inputs": [_described(found.onnx.input)],
            "outputs": [_described(one) for one in found.onnx.outputs],
        }

    def infer(self, model_id: str, version: str, message: Message) -> Message:
        """Run the model on a request's tensor."""
        found = self.model(model_id, version)
        end = len(message.body) if message.header_bytes is None else message.header_bytes
        request = decoded(_decode, message.body[:end])
        rows = self._rows(found.onnx.input, request.inputs, message.body[end:])
        wanted = _wanted(found.onnx.outputs, request)
        tensors = found.onnx.infer(rows, list(wanted))
        head = {"model_name": model_id, "model_version": found.manifest.version}
        return _reply({**head, "id": request.id} if request.id else head, wanted, tensors)

    def _rows(self, takes: TensorInfo, inputs: Sequence[_Input], binary: bytes) -> Matrix:
        """The request's one tensor, if it is the one that the model takes."""
        if len(inputs) != 1 or inputs[0].name != takes.name:
            raise _invalid(f"the model takes one input, {takes.name!r}, not {[one.name[:100] for one in inputs[:10]]}")
        [one] = inputs
        datatype, width = DATATYPES[takes.dtype], takes.shape[1]
        if one.datatype != datatype:
            raise _invalid(f"input {takes.name!r} is {datatype}, not {one.datatype[:100]!r}")
        if len(one.shape) != 2 or min(one.shape) < 1 or width not in {-1, one.shape[1]}:
            raise _invalid(f"input {takes.name!r} has the shape {list(takes.shape)}, not {one.shape[:10]}")
        if one.shape[0] > self._max_rows:
            raise RefusedError(Reason.TOO_LARGE, f"{one.shape[0]} rows; at most {self._max_rows} are allowed")
        values = _from_binary(one, takes, binary) if one.data is None else _from_json(one, takes)
        if len(values) != one.shape[0] * one.shape[1]:
            raise _invalid(f"input {takes.name!r} has {len(values)} values, and its shape is {one.shape}")
        return values.reshape(one.shape[0], one.shape[1])


def _from_json(one: _Input, takes: TensorInfo) -> Tensor:
    data = one.data or []
    try:
        flat = [value for row in data for value in row] if data and isinstance(data[0], list) else data
        if not {type(value) for value in flat} <= _KINDS[one.datatype]:
            raise _invalid(f"input {one.name!r} has values that are not {one.datatype}")
        with np.errstate(over="ignore"):  # found below
            values = np.array(flat, takes.dtype)
    except (OverflowError, TypeError) as error:
        raise _invalid(f"input {one.name!r} has values that are not {one.datatype}") from error
    if not np.isfinite(values).all():
        raise _invalid(f"input {one.name!r} has numbers too large for {one.datatype}")
    return values


def _from_binary(one: _Input, takes: TensorInfo, binary: bytes) -> Tensor:
    if one.parameters.get("binary_data_size") != len(binary) or len(binary) % np.dtype(takes.dtype).itemsize:
        raise _invalid(f"input {one.name!r} has no data, or binary_data_size is not that of the bytes behind the JSON")
    return np.frombuffer(binary, np.dtype(takes.dtype).newbyteorder("<")).astype(takes.dtype)


def _wanted(outputs: Sequence[TensorInfo], request: _Request) -> dict[str, bool]:
    """Names of the outputs, and whether they are sent as bytes."""
    as_bytes = bool(request.parameters.get("binary_data_output", False))
    known = [one.name for one in outputs]
    for one in request.outputs:
        if one.name not in known:
            raise _invalid(f"the model has no output {one.name[:100]!r}; it has {', '.join(known)}")
    asked = {one.name: bool(one.parameters.get("binary_data", as_bytes)) for one in request.outputs}
    return asked or dict.fromkeys(known, as_bytes)


def _reply(head: Document, wanted: Mapping[str, bool], tensors: Sequence[Tensor]) -> Message:
    described: list[Document] = []
    binary = b""
    for (name, is_binary), tensor in zip(wanted.items(), tensors, strict=True):
        one = {"name": name, "datatype": DATATYPES[tensor.dtype.type], "shape": list(tensor.shape)}
        if is_binary:
            data = tensor.astype(tensor.dtype.newbyteorder("<"), copy=False).tobytes()
            described.append({**one, "parameters": {"binary_data_size": len(data)}})
            binary += data
        elif not np.isfinite(tensor).all():
            raise _invalid(f"output {name!r} is not a finite number, which JSON cannot say; ask for binary data")
        else:
            described.append({**one, "data": tensor.ravel().tolist()})
    text = msgspec.json.encode({**head, "outputs": described})
    return Message(text + binary, len(text)) if binary else Message(text)


def _described(tensor: TensorInfo) -> Document:
    return {"name": tensor.name, "datatype": DATATYPES[tensor.dtype], "shape": list(tensor.shape)}


def _invalid(message: str) -> RefusedError:
    return RefusedError(Reason.INVALID, message)
