"""An upload against the least that any receiver must do: write, crc32c and fsync of the same bytes, 512 KiB at a time.

The service is a process of its own, as in production. `received` is until every byte but the last is durable there,
`landed` a whole upload by the client, until the rows of the file are visible. Goals: received at least half as fast as
the plain write; the service's resident memory grows by less than 64 MB, whatever the size: `--size 1GiB --repeats 1`.

    python -m benchmarks.upload [--size 256MiB] [--format parquet|csv|ndjson] [--repeats 3]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import google_crc32c
import grpc
import msgspec
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from ingest.client import CHUNK_BYTES, upload
from ingest.pb import ingest_pb2 as pb
from ingest.pb import ingest_pb2_grpc as pb_grpc
from tests.services import ENV, Ports

GOALS = {"received": 0.5}  # of the speed of the plain write
GOAL_MB = 64  # by which memory may grow
GROUP_ROWS = 250_000
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="256MiB", type=lambda text: int(text[:-3]) * UNITS[text[-3:]])
    parser.add_argument("--format", default="parquet", choices=("parquet", "csv", "ndjson"))
    parser.add_argument("--repeats", default=3, type=int)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as scratch:  # on a disk, which /tmp may not be
        path = Path(scratch) / f"profiles.{args.format}"
        make_file(path, args.size)
        print(f"{path.stat().st_size >> 20} MiB of {args.format}, median of {args.repeats}")
        with service(Path(scratch) / "data") as (address, process):
            measure(path, address, process, args.repeats)


def measure(path: Path, address: str, process: psutil.Process, repeats: int) -> None:
    small = path.with_name(f"small{path.suffix}")
    make_file(small, 1)
    upload(small, "profiles", address=address)  # what is loaded at the first use is loaded
    before = process.memory_info().rss
    taken: dict[str, list[tuple[float, float]]] = {"plain": [], "received": [], "landed": []}
    own = psutil.Process()
    with watching(process) as peak:
        for number in range(repeats):
            taken["plain"].append(timed(own, lambda: write_plainly(path)))
            taken["received"].append(
                timed(process, lambda number=number: send_but_a_byte(path, address, f"received-{number}"))
            )
            taken["landed"].append(timed(process, lambda number=number: upload_anew(path, address, f"landed-{number}")))
    gigabytes = path.stat().st_size / 1e9
    plain_s = statistics.median(wall_s for wall_s, _ in taken["plain"])
    for name, times in taken.items():
        wall_s, cpu_s = (statistics.median(column) for column in zip(*times, strict=True))
        goal = f" (goal {GOALS[name]})" if name in GOALS else ""
        print(
            f"  {name:10} {wall_s:7.2f} s  {1e3 * gigabytes / wall_s:6.0f} MB/s  {plain_s / wall_s:5.2f} of plain"
            f"{goal:11}  {cpu_s / gigabytes:5.2f} s CPU per GB{' (service)' if name != 'plain' else ''}"
        )
    grown_mb = (peak[0] - before) / 1e6
    print(f"  the service's memory: {before / 1e6:.0f} MB, at most +{grown_mb:.0f} MB (goal {GOAL_MB})")


def timed(process: psutil.Process, call: Callable[[], object]) -> tuple[float, float]:
    """The seconds that it took, and those of processor time that the process needed."""
    start_s, cpu_start_s = time.perf_counter(), sum(process.cpu_times()[:2])
    call()
    return time.perf_counter() - start_s, sum(process.cpu_times()[:2]) - cpu_start_s


def write_plainly(path: Path) -> None:
    with path.open("rb") as source, path.with_name("plain").open("wb") as target:
        while data := source.read(CHUNK_BYTES):
            google_crc32c.value(data)
            target.write(data)
        target.flush()
        os.fsync(target.fileno())


def send_but_a_byte(path: Path, address: str, upload_id: str) -> None:
    size_bytes = path.stat().st_size
    reference = pb.UploadReference(source="profiles", upload_id=upload_id)
    start = pb.StartUploadRequest(
        upload=reference, format=pb.FILE_FORMAT_PARQUET, size_bytes=size_bytes, sha256=bytes(32)
    )

    def messages() -> Iterator[pb.UploadFileRequest]:
        yield pb.UploadFileRequest(upload=reference)
        with path.open("rb") as file:
            for offset in range(0, size_bytes - 1, CHUNK_BYTES):
                data = file.read(min(CHUNK_BYTES, size_bytes - 1 - offset))
                yield pb.UploadFileRequest(chunk=pb.Chunk(offset=offset, data=data, crc32c=google_crc32c.value(data)))

    with grpc.insecure_channel(address) as channel:
        stub = pb_grpc.IngestStub(channel)
        stub.StartUpload(start, timeout=60)
        assert stub.UploadFile(messages(), timeout=600).committed_bytes == size_bytes - 1
        stub.CancelUpload(reference, timeout=60)


def upload_anew(path: Path, address: str, upload_id: str) -> None:
    assert upload(path, "profiles", address=address, upload_id=upload_id).dead_rows == 0


@contextmanager
def watching(process: psutil.Process) -> Generator[list[int]]:
    """The most memory that was resident, looked at again and again."""
    peak, stopping = [0], threading.Event()

    def look() -> None:
        while not stopping.wait(0.02):
            peak[0] = max(peak[0], process.memory_info().rss)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peak
    finally:
        stopping.set()
        thread.join()


@contextmanager
def service(data_dir: Path) -> Generator[tuple[str, psutil.Process]]:
    """The ingest service of this repository's project."""
    address = f"127.0.0.1:{Ports().take()}"
    env = ENV | {"FEATURESTORE_DATA_DIR": str(data_dir), "FEATURESTORE_GRPC_ADDRESS": address}
    with subprocess.Popen([sys.executable, "-m", "ingest", "grpc"], env=env, stderr=subprocess.DEVNULL) as process:
        try:
            with grpc.insecure_channel(address) as channel:
                grpc.channel_ready_future(channel).result(60)
            yield address, psutil.Process(process.pid)
        finally:
            process.terminate()


def make_file(path: Path, size_bytes: int) -> None:
    """Profiles of random numbers, which hardly compress."""
    chance, now = np.random.default_rng(0), int(time.time() * 1e6)
    write = {".parquet": _write_parquet, ".csv": _write_csv, ".ndjson": _write_ndjson}[path.suffix]

    def tables() -> Iterator[pa.Table]:
        while not path.exists() or path.stat().st_size < size_bytes:
            yield pa.table(
                {
                    "user_id": chance.integers(0, 1 << 40, GROUP_ROWS),
                    "income": chance.random(GROUP_ROWS) * 1e5,
                    "debt": chance.random(GROUP_ROWS) * 1e5,
                    "age_years": chance.integers(18, 100, GROUP_ROWS),
                    "as_of": pa.array(now - chance.integers(0, 1 << 45, GROUP_ROWS), pa.timestamp("us", "UTC")),
                }
            )

    write(path, tables())


def _write_parquet(path: Path, tables: Iterator[pa.Table]) -> None:
    first = next(tables)
    with pq.ParquetWriter(path, first.schema, compression="none", use_dictionary=False) as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)


def _write_csv(path: Path, tables: Iterator[pa.Table]) -> None:
    with path.open("wb") as file:
        for number, table in enumerate(tables):
            times = table["as_of"].cast(pa.string()).to_pylist()
            texts = table.set_column(4, "as_of", [[time.replace(" ", "T") for time in times]])
            options = pyarrow.csv.WriteOptions(include_header=number == 0, quoting_style="none", quoting_header="none")
            pyarrow.csv.write_csv(texts, file, options)
            file.flush()


def _write_ndjson(path: Path, tables: Iterator[pa.Table]) -> None:
    with path.open("wb") as file:
        for table in tables:
            file.writelines(msgspec.json.encode(row) + b"\n" for row in table.to_pylist())
            file.flush()


if __name__ == "__main__":
    main()
