"""The models in production, looked up when the server starts: what Redis has lost is put back."""

import logging
from contextlib import closing

from featurestore.database.client import QueueDatabase
from featurestore.definitions.project import Project
from featurestore.errors import FeatureStoreError
from featurestore.models.blobs import ModelBlobs
from featurestore.models.log import productions
from featurestore.models.production import bring
from featurestore.models.publish import ModelStore
from featurestore.settings import Settings

log = logging.getLogger(__name__)

LOOK_UP_S = 5.0  # for the answer of the database service


def restore(settings: Settings, project: Project, store: ModelStore) -> None:
    """Bring what the log says is in production into Redis; if it cannot be asked, Redis' word for every model will do.

    Raises:
        TransientError, SettingsError: the log or the container cannot be asked, and Redis knows nothing of a model.
    """
    if not project.models:
        return
    try:
        _bring_lost(settings, project, store)
    except FeatureStoreError as error:
        unknown = [model.model_id for model in project.models if store.manifest(model.model_id) is None]
        if unknown:
            raise
        log.warning("the models in production were not looked up, those in Redis are served: %s", error)


def _bring_lost(settings: Settings, project: Project, store: ModelStore) -> None:
    queues, namespace = settings.redis.queues, settings.namespace
    with closing(QueueDatabase(queues, namespace=namespace, timeout_s=LOOK_UP_S)) as database:
        wanted = productions(database)
    lost = [one for one in wanted if not store.is_whole(one.model_id, one.generation)]
    if not lost:
        return
    with closing(ModelBlobs(settings.azure, namespace)) as blobs:
        scan = blobs.scan()
        for one in lost:
            outcome = bring(one, scan, blobs, store, project)
            for refusal in outcome.refusals:
                log.error("model %s, version %s: %s", one.model_id, one.version, refusal)
            if outcome.published:
                log.info("model %s: published version %s", one.model_id, one.version or "none")
