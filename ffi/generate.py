#!/usr/bin/env python3
"""Make the protocol's C, Rust and Python files from protocol.toml.

usage: python3 ffi/generate.py [--check]

With --check nothing is written: it exits 1 and names the files that differ from what would be made.
Needs Python 3.11 (tomllib) and nothing else.
"""

import struct
import sys
import textwrap
import tomllib
from pathlib import Path
from typing import Any

Record = dict[str, Any]  # a table of protocol.toml

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "ffi" / "protocol.toml"
NOTE = "Made by ffi/generate.py from ffi/protocol.toml; do not edit."
SIZES = {"u8": 1, "u16": 2, "u32": 4, "u64": 8}
CODES = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q"}
HEAD = [
    {"name": "kind", "type": "u8", "doc": "Which record this is."},
    {"name": "count", "type": "u8", "doc": "Used slots, or a small code; see the record."},
    {"name": "flags", "type": "u16", "doc": "Zero."},
    {"name": "step", "type": "u32", "doc": "Engine step, counted from 0 within the run."},
    {"name": "emitted_ns", "type": "u64", "doc": "CLOCK_MONOTONIC, the first thing that the push does."},
]


def laid_out(record: Record) -> list[Record]:
    """The record's fields with head and offsets; refuses padding and any size but the record's."""
    offset = 0
    fields: list[Record] = []
    for field in HEAD + record["fields"]:
        size = SIZES[field["type"]]
        if offset % size:
            sys.exit(f"{SOURCE}: {record['name']}.{field['name']} is not aligned at offset {offset}")
        fields.append({**field, "offset": offset, "length": field.get("length", 1)})
        offset += size * field.get("length", 1)
    if offset != SPEC["record_size"]:
        sys.exit(f"{SOURCE}: {record['name']} has {offset} bytes, not {SPEC['record_size']}")
    return fields


def c_header() -> str:
    """The records as C structs, with what C++ can check of their layout."""
    out = [
        f"// {NOTE}",
        "#ifndef BENCH_PROTOCOL_H",
        "#define BENCH_PROTOCOL_H",
        "",
        "#include <stddef.h>",
        "#include <stdint.h>",
        "",
    ]
    out += [f"#define BENCH_ABI_VERSION {SPEC['abi_version']}u", f"#define BENCH_RING_MAGIC {SPEC['magic']:#x}ull"]
    out += [f"#define BENCH_RECORD_SIZE {SPEC['record_size']}u", ""]
    for constant in SPEC["constant"]:
        out += [f"// {constant['doc']}", f"#define BENCH_{constant['name']} {literal(constant['value'], 'u', 'ull')}"]
    for record in SPEC["record"]:
        name = record["name"]
        out += [
            "",
            f"// {record['doc']}",
            f"#define BENCH_KIND_{name.upper()} {record['kind']}u",
            f"struct bench_{name.lower()}_record {{",
        ]
        for field in laid_out(record):
            array = f"[{field['length']}]" if field["length"] > 1 else ""
            out.append(f"  {field['type'].replace('u', 'uint')}_t {field['name']}{array};  // {field['doc']}")
        out += ["};", "#ifdef __cplusplus", f"static_assert(sizeof(bench_{name.lower()}_record) == BENCH_RECORD_SIZE);"]
        out += [
            f"static_assert(offsetof(bench_{name.lower()}_record, {f['name']}) == {f['offset']});"
            for f in laid_out(record)
        ]
        out.append("#endif")
    return "\n".join([*out, "", "#endif", ""])


def rust_module() -> str:
    """The records as plain-old-data structs."""
    out = [f"// {NOTE}", "", "//! Records and constants of the data plane.", "", "use bytemuck::{Pod, Zeroable};", ""]
    out += [
        "/// Version of the layout; both sides refuse any other.",
        f"pub const ABI_VERSION: u32 = {SPEC['abi_version']};",
    ]
    out += ["/// First word of a ring's header.", f"pub const MAGIC: u64 = {SPEC['magic']:#x};"]
    out += ["/// Bytes in a record: one cache line.", f"pub const RECORD_SIZE: usize = {SPEC['record_size']};"]
    for constant in SPEC["constant"]:
        kind = "u32" if constant["value"] < 2**32 else "u64"
        out += [
            f"/// {constant['doc']}",
            f"pub const {constant['name']}: {kind} = {literal(constant['value'], '', '')};",
        ]
    for record in SPEC["record"]:
        out += ["", f"/// {record['doc']}", "#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]", "#[repr(C)]"]
        out.append(f"pub struct {record['name']}Record {{")
        for field in laid_out(record):
            kind = f"[{field['type']}; {field['length']}]" if field["length"] > 1 else field["type"]
            out += [f"    /// {field['doc']}", f"    pub {field['name']}: {kind},"]
        out += ["}", "", f"impl {record['name']}Record {{", "    /// Value of `kind` in this record."]
        out += [f"    pub const KIND: u8 = {record['kind']};", "}"]
    return "\n".join([*out, ""])


def python_module() -> str:
    """The records as struct formats, in the form that ruff's formatter leaves alone."""
    out = [
        f'"""Records and constants of the data plane. {NOTE}"""',
        "",
        "import struct",
        "from typing import Final",
        "",
    ]
    out += [f"ABI_VERSION: Final = {SPEC['abi_version']}", f"RECORD_SIZE: Final = {SPEC['record_size']}", ""]
    for constant in SPEC["constant"]:
        out += [f"# {constant['doc']}", f"{constant['name']}: Final = {literal(constant['value'], '', '')}"]
    for record in SPEC["record"]:
        name, fields = record["name"].upper(), laid_out(record)
        pattern = "<" + "".join(
            CODES[f["type"]] if f["length"] == 1 else f"{f['length']}{CODES[f['type']]}" for f in fields
        )
        assert struct.calcsize(pattern) == SPEC["record_size"]
        names = ", ".join(f["name"] + (f"[{f['length']}]" if f["length"] > 1 else "") for f in fields)
        lines = textwrap.wrap(f"Fields: {names}", 118)
        out += [
            "",
            f"# {record['doc']}",
            *(f"# {line}" for line in lines),
            f"KIND_{name}: Final = {record['kind']}",
            f'{name}: Final = struct.Struct("{pattern}")',
        ]
    return "\n".join([*out, ""])


def literal(value: int, suffix32: str, suffix64: str) -> str:
    """Masks in hexadecimal, as every formatter of the three languages leaves them."""
    text = f"{value:#X}".replace("0X", "0x") if value > 2**31 else str(value)
    return text + (suffix32 if value < 2**32 else suffix64)


def main() -> int:
    """Writes what differs, or with --check names it; returns the exit status."""
    files = {
        ROOT / "ffi" / "bench_protocol.h": c_header(),
        ROOT / "src" / "measurement" / "ring" / "protocol.rs": rust_module(),
        ROOT / "python_sidecar" / "bench_sidecar" / "protocol.py": python_module(),
    }
    stale = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(
                f"{path.relative_to(ROOT)} differs from ffi/protocol.toml: run python3 ffi/generate.py", file=sys.stderr
            )
        return 1 if stale else 0
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[path])
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


SPEC = tomllib.loads(SOURCE.read_text())

if __name__ == "__main__":
    sys.exit(main())
