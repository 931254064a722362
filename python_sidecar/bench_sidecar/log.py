"""The sidecar's log: stdout and stderr, which the harness has sent to a file."""

import contextlib
import sys
import traceback


def say(text: str) -> None:
    """Writes a line. A disk that is full loses the line, and ends nothing."""
    with contextlib.suppress(OSError):
        print(f"bench: {text}", file=sys.stderr)


def say_traceback() -> None:
    """Writes the traceback of the exception that is handled now."""
    with contextlib.suppress(OSError):
        traceback.print_exc()


def flush() -> None:
    """Writes all that is buffered, as far as the disk has room."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
