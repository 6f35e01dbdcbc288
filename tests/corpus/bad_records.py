"""Records that must not be landed, each with a part of the reason; and odd ones that must.

They are of a source with the columns SCHEMA and the timestamp `at` (RFC 3339).
"""

SCHEMA = {"user_id": int, "name": str, "amount": float, "flag": bool, "note": str | None, "limit": float | None}

_AT = '"at": "2026-01-02T03:04:05Z"'
_REST = f'"name": "x", "amount": 1.5, "flag": true, {_AT}'
GOOD = f'{{"user_id": 1, {_REST}}}'.encode()


def with_value(column: str, text: str) -> bytes:
    """The good record with another JSON value in one column."""
    values = {"user_id": "1", "name": '"x"', "amount": "1.5", "flag": "true", "at": '"2026-01-02T03:04:05Z"'}
    members = ", ".join(f'"{name}": {value}' for name, value in (values | {column: text}).items())
    return f"{{{members}}}".encode()


def without(column: str) -> bytes:
    values = {"user_id": "1", "name": '"x"', "amount": "1.5", "flag": "true", "at": '"2026-01-02T03:04:05Z"'}
    return ("{" + ", ".join(f'"{name}": {value}' for name, value in values.items() if name != column) + "}").encode()


def _times() -> dict[str, tuple[bytes, str]]:
    wrong = {
        "naive": "2026-01-02T03:04:05",
        "naive with a fraction": "2026-01-02T03:04:05.5",
        "date only": "2026-01-02",
        "without seconds": "2026-01-02T03:04Z",
        "leap second": "2016-12-31T23:59:60Z",
        "hour 24": "2026-01-02T24:00:00Z",
        "30 February": "2026-02-30T00:00:00Z",
        "29 February of a common year": "2026-02-29T00:00:00Z",
        "month 13": "2026-13-01T00:00:00Z",
        "day 0": "2026-01-00T00:00:00Z",
        "minute 60": "2026-01-01T00:60:00Z",
        "basic format": "20260102T030405Z",
        "week date": "2026-W01-1T00:00:00Z",
        "ordinal date": "2026-001T00:00:00Z",
        "five-digit year": "12026-01-02T03:04:05Z",
        "negative year": "-2026-01-02T03:04:05Z",
        "comma": "2026-01-02T03:04:05,5Z",
        "offset of a day": "2026-01-02T03:04:05+24:00",
        "two zones": "2026-01-02T03:04:05Z+01:00",
        "named zone": "2026-01-02T03:04:05 Europe/Berlin",
        "American": "01/02/2026 03:04:05",
        "number in a text": "1767225600",
        "infinity": "infinity",
        "now": "now",
        "empty": "",
        "space around": " 2026-01-02T03:04:05Z ",
        "trailing NUL": "2026-01-02T03:04:05Z\\u0000",
        "1969": "1969-12-31T23:59:59.999999Z",
        "1970 in a zone ahead": "1970-01-01T00:30:00+01:00",
        "year 1": "0001-01-01T00:00:00+23:00",
        "2200": "2200-01-01T00:00:00Z",
        "2199 in a zone behind": "2199-12-31T23:30:00-01:00",
        "year 9999": "9999-12-31T23:59:59-23:00",
        "next century": "2101-01-01T00:00:00Z",
    }
    found = {f"time: {name}": (with_value("at", f'"{text}"'), "at: ") for name, text in wrong.items()}
    for name, value in {"number": "1767225600", "null": "null", "true": "true", "object": "{}"}.items():
        found[f"time: {name}"] = (with_value("at", value), "at: ")
    return found


def _numbers() -> dict[str, tuple[bytes, str]]:
    found: dict[str, tuple[bytes, str]] = {}
    for value in (
        '"1"',
        "true",
        "1.0",
        "1e3",
        "1E0",
        "null",
        "[1]",
        "{}",
        '""',
        "9223372036854775808",
        "-9223372036854775809",
    ):
        found[f"int: {value}"] = (with_value("user_id", value), "user_id: ")
    for value in ('"1.5"', "true", "null", "[1.5]", '"NaN"', '"Infinity"', "1e400", "-1e400", "1e999999"):
        found[f"float: {value}"] = (with_value("amount", value), "amount: ")
    for value in (
        "NaN",
        "-NaN",
        "Infinity",
        "-Infinity",
        "nan",
        "01",
        "+1",
        ".5",
        "1.",
        "0x10",
        "1_000",
        "1,5",
        "--1",
        "1e",
        "'1'",
    ):
        found[f"not JSON: {value}"] = (with_value("amount", value), "")
    found["int of 5,000 digits"] = (with_value("user_id", "9" * 5_000), "user_id: ")
    found["float of 5,000 digits"] = (with_value("amount", "9" * 5_000), "amount: ")
    found["whole number that a float changes"] = (with_value("amount", "9007199254740993"), "amount: ")
    found["negative whole number that a float changes"] = (with_value("limit", "-9007199254740993"), "limit: ")
    for value in ("1", "0", '"true"', '"yes"', "null"):
        found[f"bool: {value}"] = (with_value("flag", value), "flag: ")
    for value in ("True", "TRUE", "tru", "trueish"):
        found[f"not JSON: {value}"] = (with_value("flag", value), "")
    return found


def _texts() -> dict[str, tuple[bytes, str]]:
    found: dict[str, tuple[bytes, str]] = {}
    for value in ("1", "true", "null", '["x"]', '{"a": "b"}'):
        found[f"text: {value}"] = (with_value("name", value), "name: ")
    for value in ("'x'", '"x', 'x"', '"\\x"', '"\\u12"', '"a\nb"', '"a\tb"', '"a\x00b"'):
        found[f"not JSON: {value!r}"] = (with_value("name", value), "")
    found["lone high surrogate"] = (with_value("name", '"\\ud800"'), "")
    found["lone low surrogate"] = (with_value("name", '"\\udc00"'), "")
    found["lone surrogate in an undeclared member"] = (GOOD[:-1] + b', "more": "\\ud800"}', "")
    found["NUL"] = (with_value("name", '"a\\u0000b"'), "name: ")
    found["NUL in an optional text"] = (with_value("note", '"\\u0000"'), "note: ")
    found["invalid UTF-8"] = (GOOD.replace(b'"x"', b'"\xff"'), "UTF-8")
    found["surrogate in UTF-8"] = (GOOD.replace(b'"x"', b'"\xed\xa0\x80"'), "UTF-8")
    found["overlong UTF-8"] = (GOOD.replace(b'"x"', b'"\xc0\xaf"'), "UTF-8")
    found["cut UTF-8"] = (GOOD.replace(b'"x"', b'"\xe2\x82"'), "UTF-8")
    found["Latin-1"] = (GOOD.replace(b'"x"', '"Müller"'.encode("latin-1")), "UTF-8")
    found["invalid UTF-8 in an undeclared member"] = (GOOD[:-1] + b', "more": "\xff"}', "UTF-8")
    found["invalid UTF-8 in an undeclared name"] = (GOOD[:-1] + b', "mo\xffre": 1}', "UTF-8")
    return found


def _shapes() -> dict[str, tuple[bytes, str]]:
    deep = "[" * 100_000 + "]" * 100_000
    found: dict[str, tuple[bytes, str]] = {
        f"without {c}": (without(c), f"{c}: missing") for c in SCHEMA if c in GOOD.decode()
    }
    found |= {
        "without the time": (without("at"), "at: missing"),
        "nothing": (b"", "no value"),
        "space": (b"   ", ""),
        "null": (b"null", ""),
        "number": (b"1", ""),
        "text": (b'"x"', ""),
        "list": (b"[]", ""),
        "list of records": (b"[" + GOOD + b"]", ""),
        "empty object": (b"{}", "missing"),
        "two records": (GOOD + GOOD, ""),
        "two records on two lines": (GOOD + b"\n" + GOOD, ""),
        "something after the record": (GOOD + b" x", ""),
        "cut": (GOOD[:-1], ""),
        "cut in a text": (GOOD[: GOOD.index(b"x") + 1], ""),
        "byte order mark": (b"\xef\xbb\xbf" + GOOD, ""),
        "UTF-16": (GOOD.decode().encode("utf-16"), ""),
        "UTF-32": (GOOD.decode().encode("utf-32"), ""),
        "gzip": (b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03", ""),
        "Avro-like bytes": (bytes(range(32)), ""),
        "comment": (b"/* x */" + GOOD, ""),
        "trailing comma": (GOOD[:-1] + b",}", ""),
        "single quotes": (GOOD.replace(b'"', b"'"), ""),
        "names without quotes": (GOOD.replace(b'"user_id"', b"user_id"), ""),
        "other case": (GOOD.replace(b"user_id", b"User_ID"), "user_id: missing"),
        "name twice, same value": (GOOD[:-1] + b', "user_id": 1}', "user_id"),
        "name twice, other value": (GOOD[:-1] + b', "user_id": 2}', "user_id"),
        "name twice, once null": (b'{"limit": null, "limit": 2, ' + _REST.encode() + b', "user_id": 1}', "limit"),
        "name twice, once escaped": (GOOD[:-1] + b', "user\\u005fid": 2}', "user_id"),
        "time twice": (GOOD[:-1] + f", {_AT}}}".encode(), "at"),
        "undeclared name twice": (GOOD[:-1] + b', "more": 1, "more": 2}', "more"),
        "name twice beside an undeclared one": (GOOD[:-1] + b', "more": 1, "name": "y"}', "name"),
        "name twice beside quotes in a text": (with_value("name", '"say \\"hi\\""')[:-1] + b', "name": "y"}', "name"),
        "deep list": (with_value("name", deep), ""),
        "deep undeclared list": (GOOD[:-1] + f', "more": {deep}}}'.encode(), ""),
        "deep object": ((b'{"a": ' * 100_000) + b"1" + b"}" * 100_000, ""),
        "over 1 MiB": (with_value("name", f'"{"x" * (1 << 20)}"'), "larger than"),
        "over 1 MiB of nothing": (b" " * (1 << 20) + GOOD, "larger than"),
        "undeclared member that is not JSON": (GOOD[:-1] + b', "more": nul}', ""),
    }
    return found


def _optional() -> dict[str, tuple[bytes, str]]:
    """An optional column may be missing or null; what is there must be right."""
    wrong = {
        "note": ("0", "1", "-1.5", "true", "false", "[]", '["x"]', "{}", '{"x": null}', "[null]"),
        "limit": ('"1"', '""', '"null"', "true", "false", "[]", "[1]", "{}", "1e400", "-1e400", "9007199254740993"),
    }
    bare = (
        "NaN",
        "-Infinity",
        "undefined",
        "None",
        "NULL",
        "nil",
        "Null",
        "1e",
        "1e+",
        "0x1",
        "1_0",
        "1.",
        "-",
        "\\u0031",
    )
    found = {
        f"{column}: {value}": (with_value(column, value), f"{column}: ") for column in wrong for value in wrong[column]
    }
    return found | {f"optional, not JSON: {value}": (with_value("limit", value), "") for value in bare}


def _formats() -> dict[str, tuple[bytes, str]]:
    """What people send by mistake."""
    return {
        "XML": (b"<record><user_id>1</user_id></record>", ""),
        "YAML": (b"user_id: 1\nname: x\n", ""),
        "CSV": (b"1,x,1.5,true,2026-01-02T03:04:05Z", ""),
        "form": (b"user_id=1&name=x", ""),
        "Python": (b"{'user_id': 1, 'name': 'x'}", ""),
        "MessagePack": (b"\x81\xa7user_id\x01", ""),
        "CBOR": (b"\xa1\x67user_id\x01", ""),
        "BSON": (b"\x16\x00\x00\x00\x12user_id\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00", ""),
        "Confluent's Avro": (b"\x00\x00\x00\x00\x07\x02\x02x", ""),
        "JSON behind a schema id": (b"\x00\x00\x00\x00\x07" + GOOD, ""),
        "Parquet": (b"PAR1\x15\x04\x15", ""),
        "Arrow": (b"ARROW1\x00\x00", ""),
        "zstd": (b"\x28\xb5\x2f\xfd\x04\x00", ""),
        "JSON in a JSON text": (b'"{\\"user_id\\": 1}"', ""),
        "an envelope": (b'{"payload": ' + GOOD + b"}", "missing"),
        "a change record": (b'{"before": null, "after": ' + GOOD + b', "op": "c"}', "missing"),
        "a list of values": (b'[1, "x", 1.5, true, "2026-01-02T03:04:05Z"]', ""),
        "a NUL behind the record": (GOOD + b"\x00", ""),
        "a record separator before it": (b"\x1e" + GOOD, ""),
        "closed twice": (GOOD + b"}", ""),
    }


BAD: dict[str, tuple[bytes, str]] = {
    **_times(),
    **_numbers(),
    **_texts(),
    **_shapes(),
    **_optional(),
    **_formats(),
}

# What looks odd and is right, with the columns that show it.
ODD: dict[str, tuple[bytes, dict[str, object]]] = {
    "plain": (GOOD, {"user_id": 1, "name": "x", "amount": 1.5, "flag": True, "note": None, "limit": None}),
    "whole number as a float": (with_value("amount", "3"), {"amount": 3.0}),
    "largest exact whole number": (with_value("amount", "9007199254740992"), {"amount": 2.0**53}),
    "exact whole number beyond": (with_value("amount", "9007199254740994"), {"amount": 2.0**53 + 2}),
    "large float": (with_value("amount", "1e300"), {"amount": 1e300}),
    "tiny float": (with_value("amount", "1e-400"), {"amount": 0.0}),
    "largest int": (with_value("user_id", "9223372036854775807"), {"user_id": 2**63 - 1}),
    "smallest int": (with_value("user_id", "-9223372036854775808"), {"user_id": -(2**63)}),
    "minus nothing": (with_value("user_id", "-0"), {"user_id": 0}),
    "null where allowed": (with_value("limit", "null"), {"limit": None}),
    "empty text": (with_value("name", '""'), {"name": ""}),
    "quotes in a text": (with_value("name", '"say \\"hi\\""'), {"name": 'say "hi"'}),
    "member-like text": (with_value("name", '"\\"user_id\\": 2"'), {"name": '"user_id": 2'}),
    "escaped name": (GOOD.replace(b"user_id", b"user\\u005fid"), {"user_id": 1}),
    "surrogate pair": (with_value("name", '"\\ud83d\\ude00"'), {"name": "\N{GRINNING FACE}"}),
    "other script": (with_value("name", '"Владимир 中文 🦀"'), {"name": "Владимир 中文 🦀"}),
    "undeclared members": (GOOD[:-1] + b', "more": {"user_id": 2, "user_id": [{}]}, "other": "\\"" }', {"user_id": 1}),
    "space around": (b" \r\n\t" + GOOD + b" \n", {"user_id": 1}),
    "a million": (with_value("name", f'"{"x" * 1_000_000}"'), {"name": "x" * 1_000_000}),
}
