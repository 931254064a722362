"""`python -m bench_sidecar --socket PATH --ring-library PATH`: the sidecar of one device class."""

import argparse
import os
import signal
import sys
from typing import NoReturn

from . import server


def main() -> NoReturn:
    """Runs the fork server; the harness, not the terminal, says when to stop."""
    parser = argparse.ArgumentParser(prog="bench_sidecar", description=__doc__)
    parser.add_argument("--socket", required=True, help="where to listen for the harness")
    parser.add_argument("--ring-library", required=True, help="path of libbench_ring.so")
    parser.add_argument("--scripted", action="store_true", help="vLLM is not needed: only scripted engines are loaded")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal group
    status = server.main(options.socket, options.ring_library, with_vllm=not options.scripted)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # taking vLLM and torch apart module by module would take seconds


if __name__ == "__main__":
    main()
