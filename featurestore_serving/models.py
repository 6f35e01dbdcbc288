"""The models in production, loaded when they are first asked for, within a bound of memory."""

import logging
import threading
from collections import OrderedDict
from dataclasses import dataclass

from featurestore.errors import FeatureStoreError, TerminalError
from featurestore.models.onnx import OnnxModel
from featurestore.models.publish import Manifest, ModelStore
from featurestore_serving.metrics import ModelMetrics
from featurestore_serving.refusals import Reason, RefusedError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A version of a model, ready to score. Who holds it may go on with it after another was published."""

    manifest: Manifest
    onnx: OnnxModel

    @property
    def size_bytes(self) -> int:
        """Of its artifacts; loaded, it takes about as much again."""
        return _size_bytes(self.manifest)


class ServedModels:
    """Models by id; thread-safe. The one that was asked for least recently makes room for another."""

    def __init__(self, store: ModelStore, limit_bytes: int, metrics: ModelMetrics) -> None:
        self._store, self._limit_bytes, self._metrics = store, limit_bytes, metrics
        self._loaded = OrderedDict[str, LoadedModel]()  # the one asked for last stands last
        self._lock = threading.Lock()  # of what is loaded; held for moments only
        self._loading = threading.Lock()  # one load at a time, so that memory holds one model too many at most

    def get(self, model_id: str) -> LoadedModel:
        """The version in production, as of a second ago.

        Raises:
            RefusedError: NOT_FOUND if none is in production, INVALID if it cannot be scored here.
            TransientError: Redis does not answer, or what it has is not whole.
        """
        return self._known(model_id) or self._first(model_id)

    def refresh(self) -> None:
        """Load what was published since, and forget what was withdrawn; requests go on with what is loaded.

        A model that cannot be read or loaded now stays as it is, and so does one of which Redis knows nothing any more.
        """
        with self._lock:
            loaded = list(self._loaded.values())
        for one in loaded:
            try:
                self._refresh(one)
            except FeatureStoreError as error:
                log.warning("going on with version %s of %s: %s", one.manifest.version, one.manifest.model_id, error)

    def _refresh(self, before: LoadedModel) -> None:
        model_id = before.manifest.model_id
        manifest = self._store.manifest(model_id)
        if manifest is None or manifest == before.manifest:
            return
        if manifest.version:
            with self._loading:
                self._keep(self._load(model_id))
        else:
            self._change(model_id, None)
            log.info("model %s is not in production any more", model_id)

    def _known(self, model_id: str) -> LoadedModel | None:
        with self._lock:
            found = self._loaded.get(model_id)
            if found is not None:
                self._loaded.move_to_end(model_id)
            return found

    def _first(self, model_id: str) -> LoadedModel:
        with self._loading:
            return self._known(model_id) or self._keep(self._load(model_id))

    def _load(self, model_id: str) -> LoadedModel:
        manifest = self._store.manifest(model_id)
        self._check(model_id, manifest)
        published = self._store.read_model(model_id)
        manifest = self._check(model_id, published.manifest if published else None)
        assert published is not None
        loaded = LoadedModel(manifest, published.load())
        self._metrics.loads.inc()
        log.info("loaded version %s of %s, %d bytes", manifest.version, model_id, loaded.size_bytes)
        return loaded

    def _check(self, model_id: str, manifest: Manifest | None) -> Manifest:
        """Before its bytes are read, and once more what came with them."""
        if manifest is None or not manifest.version:
            raise RefusedError(Reason.NOT_FOUND, f"no version of model {model_id[:100]!r} is in production")
        other = sorted({one.format for one in manifest.artifacts} - {"onnx"})
        if other:
            raise TerminalError(f"model {model_id!r} is published as {', '.join(other)}; this server scores ONNX")
        if (size_bytes := _size_bytes(manifest)) > self._limit_bytes:
            raise TerminalError(
                f"model {model_id!r} has {size_bytes} bytes; FEATURESTORE_SERVER_MODEL_BYTES is {self._limit_bytes}"
            )
        return manifest

    def _keep(self, model: LoadedModel) -> LoadedModel:
        self._change(model.manifest.model_id, model)
        return model

    def _change(self, model_id: str, model: LoadedModel | None) -> None:
        """Put a model in the place of the one that is loaded, and make room for it."""
        with self._lock:
            self._loaded.pop(model_id, None)
            if model is not None:
                self._loaded[model_id] = model
            while (size_bytes := sum(one.size_bytes for one in self._loaded.values())) > self._limit_bytes:
                other, _ = self._loaded.popitem(last=False)
                log.info("model %s makes room", other)
            self._metrics.size_bytes.set(size_bytes)


def _size_bytes(manifest: Manifest) -> int:
    return sum(one.size_bytes for one in manifest.artifacts)
