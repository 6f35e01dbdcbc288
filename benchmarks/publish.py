"""Publishing a model of 50 MB, from Azure Blob Storage through the gate into Redis, against a plain download and SET.

python -m benchmarks.publish --repeats 5
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import redis
from azure.storage.blob import ContainerClient

import featurestore as fs
from featurestore.models.blobs import ModelBlobs
from featurestore.models.history import Scan
from featurestore.models.log import Production
from featurestore.models.metadata import Golden
from featurestore.models.production import bring
from featurestore.models.publish import ModelStore
from tests.featurestore.models.examples import NOW, linear, profile, scoring
from tests.services import azurite_process, redis_process

MODEL = fs.Model("bench", [profile()["debt_to_income_ratio"]])
PROJECT = fs.Project((profile(),), (MODEL,))
GOAL = 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home, azurite_process(Path(home)) as azurite, redis_process(Path(home)) as r:
        blobs, store, client = azurite.blobs("models"), ModelStore(r.url), redis.Redis.from_url(r.url)
        wanted, scan = pushed(blobs, args.megabytes)
        container = ContainerClient.from_connection_string(azurite.connection_string, "models")
        name = scan.versions[-1].metadata.artifacts[0].azure_location

        def ours() -> None:
            outcome = bring(wanted, scan, blobs, store, PROJECT)
            assert outcome.published, outcome.refusals

        def plain() -> None:
            client.set("plain", container.download_blob(name).readall())

        taken: dict[str, list[float]] = {"published": [], "download and SET": []}
        for _ in range(args.repeats):
            for way, run in (("published", ours), ("download and SET", plain)):
                client.flushall()
                start = time.perf_counter()
                run()
                taken[way].append(time.perf_counter() - start)
        found = {way: statistics.median(all_) for way, all_ in taken.items()}
        for way, seconds in found.items():
            print(f"  {way:18} p50 {seconds:6.2f} s")
        print(f"  ratio {found['published'] / found['download and SET']:.2f} (goal {GOAL})")
        client.close()
        store.close()
        blobs.close()


def pushed(blobs: ModelBlobs, megabytes: int) -> tuple[Production, Scan]:
    """A version of that size in production."""
    version, artifacts = scoring(MODEL, "1", linear(2, padding=megabytes * 10**6))
    staged = tuple(
        replace(one, azure_location=one.azure_location.removesuffix(".production")) for one in version.artifacts
    )
    golden = (Golden(inputs=(1.0,), score=2.0),)
    blobs.push(replace(version, status="staging", promotion=0, artifacts=staged, golden=golden), artifacts)
    blobs.promote(MODEL.model_id, "1", actor="bench", now=NOW)
    scan = blobs.scan()
    return Production("bench", "1", scan.versions[-1].etag, 1), scan


if __name__ == "__main__":
    main()
