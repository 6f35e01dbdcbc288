"""What the step of a rebuild does: the log → the online store, piece by piece."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import dagster as dg

from featurestore.definitions.view import FeatureView
from featurestore.entity_id import Piece
from featurestore.errors import FeatureStoreError
from featurestore.landing.pending import Cause
from featurestore.recovery.online import Refilled, refill
from featurestore_dagster.assets.online import PIECES
from featurestore_dagster.names import Keys
from featurestore_dagster.resources import Given
from featurestore_dagster.runs import failure


def rebuild_pieces(context: dg.AssetExecutionContext, views: Sequence[FeatureView], keys: Keys) -> dg.MaterializeResult:
    """Make the run's pieces of the views equal to the log."""
    given = Given(context, keys)
    done = {view.target: Refilled() for view in views}
    try:
        for key in context.partition_keys:
            for view in views:
                piece = Piece(int(key), PIECES)
                done[view.target] += refill(view, piece, given.database, given.online, now=datetime.now(UTC))
            context.log.info("piece %s of %d is filled", key, PIECES)
    except FeatureStoreError as error:
        raise failure(error, Cause.INFRASTRUCTURE) from error
    return dg.MaterializeResult(metadata=_metadata(done))


def _metadata(done: Mapping[str, Refilled]) -> dict[str, dg.MetadataValue]:
    return {
        f"{target} {what}": dg.MetadataValue.int(number)
        for target, one in done.items()
        for what, number in (
            ("written", one.put.written),
            ("newer already", one.put.stale),
            ("tiles", one.put.tiles),
            ("not in the log", one.removed),
        )
    }
