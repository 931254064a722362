"""Prints the path of the ring's library from the messages of `cargo build --message-format json` on standard input."""

import json
import sys
from pathlib import Path


def main() -> None:
    """Finds the output folder of this package's build script."""
    messages = [json.loads(line) for line in sys.stdin if line.startswith("{")]
    built = [message for message in messages if message["reason"] == "build-script-executed"]
    libraries = [Path(message["out_dir"]) / "libbench_ring.so" for message in built]
    found = [library for library in libraries if library.is_file()]
    if len(found) != 1:
        sys.exit(f"cargo's messages name {len(found)} builds of libbench_ring.so, not one")
    print(found[0])


main()
