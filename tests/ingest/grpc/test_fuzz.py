"""Files of any bytes to the service: what lands and what is refused is all that was sent, and nothing else happens."""

import gzip
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import google_crc32c
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from featurestore.errors import TerminalError
from featurestore.landing.zone import LandingZone
from featurestore.settings import Settings
from ingest.grpc.spool import Announced, Format
from ingest.grpc.uploads import Uploads
from ingest.metrics import IngestMetrics
from ingest.pb import ingest_pb2 as pb
from tests.corpus.bad_files import BAD_LINES, HEADER, LINE, ndjson, parquet
from tests.ingest.grpc.conftest import PROJECT, with_grpc
from tests.ingest.grpc.test_formats import peak_bytes

GROWTH_BYTES = 300 << 20


@dataclass(frozen=True)
class Came:
    """What became of a file: rows by their place in it, and why others are none; or why all of it was refused."""

    rows: list[int]
    dead: dict[int, str]
    refusal: str = ""

    @property
    def count(self) -> int:
        return len(self.rows) + len(self.dead)


class Service:
    """Takes file after file, each under an id of its own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = with_grpc(settings, part_rows=1_000)
        settings.data_dir.mkdir()
        self._zone = LandingZone.of(settings)
        self._uploads = Uploads(self._settings, PROJECT, self._zone, IngestMetrics(CollectorRegistry()))
        self._count = 0

    def send(self, form: Format, content: bytes) -> Came:
        """Send a file whole. Any error but a refusal with a reason fails the test; so does what it leaves behind."""
        self._count += 1
        upload_id = f"file-{self._count}"
        before_bytes = peak_bytes(reset=True)
        try:
            came = self._send(upload_id, form, content)
        except TerminalError as error:
            came = Came([], {}, str(error))
            assert not list(self._settings.data_dir.glob(f"*/**/*{upload_id}"))
        assert peak_bytes() - before_bytes < GROWTH_BYTES
        assert all(0 < len(reason) <= 200 and reason.isprintable() for reason in came.dead.values())
        return came

    def _send(self, upload_id: str, form: Format, content: bytes) -> Came:
        self._uploads.start(Announced("profiles", upload_id, form, len(content), hashlib.sha256(content).hexdigest()))
        chunk = pb.Chunk(offset=0, data=content, crc32c=google_crc32c.value(content))
        manifest = self._uploads.receive("profiles", upload_id, [chunk]).manifest
        assert manifest is not None
        landing = self._zone.open_upload("profiles", upload_id)
        batches = manifest.batches(landing.chain)
        rows = [row for batch in batches for row in self._zone.read(batch)["sequence"].to_numpy().tolist()]
        dead = {letter.sequence: letter.reason for letter in self._zone.dead_letters_of(batches[0])}
        assert (len(rows), len(dead)) == (manifest.rows, manifest.dead_rows)
        return Came(rows, dead)


@pytest.fixture
def service(settings: Settings) -> Service:
    return Service(settings)


fuzzing = hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])

MARK = b"\xef\xbb\xbf"  # of the order of bytes
NOTE = b"x" * 300_000
NOTED = b"note," + HEADER
GOOD_LINES: dict[Format, list[bytes]] = {
    # A quoted cell begins with a letter: else it could as well end one that somebody forgot to close.
    "csv": [note + b"," + LINE for note in (b"", b"a", b'"a, b"', b'"a\n""b""\r\n\nc"', b'"a\n"', NOTE)],
    "ndjson": [ndjson() + b"\n", b" \t" + ndjson(note='"\n') + b" \n", ndjson(note=NOTE.decode(), more=[{}]) + b"\n"],
}
NO_LINES = [b"x\n", b"\xff\xfe\n", b"\0\n", b"x" * (2 << 20) + b"\n"]
BAD: dict[Format, list[bytes]] = {
    "csv": [
        *NO_LINES,
        *(b"," + line for suffix, line, _ in BAD_LINES.values() if suffix == ".csv"),
        *(b'"' + line for line in (LINE, NOTE * 7 + b"\n")),  # a quote that is not closed is of this line alone
        LINE[:-1] + b'"x\n',
    ],
    "ndjson": [*NO_LINES, *(line for suffix, line, _ in BAD_LINES.values() if suffix == ".ndjson")],
}


@given(st.data(), st.sampled_from(sorted(GOOD_LINES)), st.booleans(), st.booleans(), st.booleans())
@fuzzing
def test_a_bad_line_is_refused_by_itself(
    service: Service, data: st.DataObject, form: Format, mark: bool, windows: bool, ended: bool
) -> None:
    """Whatever stands before and after it: a byte order mark, other ends of lines, no end."""
    kinds = data.draw(st.lists(st.booleans(), min_size=1, max_size=8))
    lines = [data.draw(st.sampled_from((GOOD_LINES if good else BAD)[form])) for good in (True, *kinds)]
    content = (NOTED if form == "csv" else b"") + b"".join(lines)
    content = content.replace(b"\n", b"\r\n") if windows else content

    came = service.send(form, (MARK if mark else b"") + (content if ended else content.rstrip(b"\r\n")))

    places = dict(enumerate((True, *kinds)))
    assert came.refusal == ""
    assert came.rows == [place for place, good in places.items() if good]
    assert sorted(came.dead) == [place for place, good in places.items() if not good]


Change = Callable[[bytes], bytes]


def replaced(begin: float, end: float, piece: bytes) -> Change:
    """Another piece for what lies between two places of a file, which are shares of its length."""

    def change(data: bytes) -> bytes:
        first, last = sorted(int(place * (len(data) + 1)) for place in (begin, end))
        return data[:first] + piece + data[last:]

    return change


def overwritten(place: float, byte: int) -> Change:
    def change(data: bytes) -> bytes:
        at = int(place * len(data))
        return data[:at] + bytes([byte]) + data[at + 1 :]

    return change


def encoded(name: str) -> Change:
    return lambda data: data.decode("latin-1").encode(name)


PLACES = st.floats(0, 1)
PIECES = st.sampled_from([b"", b"\n", b"\r", b"\r\n", b'"', b'""', b",", b"\0", b"\xff", MARK, b"{", b"}", b"\\"])
CHANGES: st.SearchStrategy[Change] = st.one_of(
    st.builds(replaced, PLACES, PLACES, PIECES),
    st.builds(lambda place, piece: replaced(place, place, piece), PLACES, PIECES | st.binary(max_size=8)),
    st.builds(lambda place: replaced(place, 1, b""), PLACES),
    st.builds(overwritten, PLACES, st.integers(0, 255)),
    st.sampled_from(["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "utf-7"]).map(encoded),
    st.sampled_from([gzip.compress, lambda data: data.replace(b"\n", b"\r"), lambda data: data + data]),
)


def valid(form: Format, directory: Path) -> bytes:
    if form == "parquet":
        parquet(directory / "valid.parquet", 200)
        return (directory / "valid.parquet").read_bytes()
    return (NOTED if form == "csv" else b"") + b"".join(line for line in GOOD_LINES[form] if len(line) < 1_000) * 5


@given(st.sampled_from([*sorted(GOOD_LINES), "parquet"]), st.lists(CHANGES, min_size=1, max_size=3))
@fuzzing
def test_a_changed_file_lands_row_by_row_or_is_refused(
    service: Service, tmp_path: Path, form: Format, changes: list[Change]
) -> None:
    content = valid(form, tmp_path)
    for change in changes:
        content = change(content)

    came = service.send(form, content or b"\n")

    if not came.refusal:
        assert sorted([*came.rows, *came.dead]) == list(range(came.count))
        assert came.count == rows_in(form, content) or (form == "csv" and b'"' in content)


def rows_in(form: Format, content: bytes) -> int:
    """As anybody would count them who is not told of quotes."""
    if form == "parquet":
        return pq.read_metadata(BytesIO(content)).num_rows
    lines = [line for line in content.removeprefix(MARK).split(b"\n") if line.strip(b" \t\r")]
    return len(lines) - (form == "csv")
