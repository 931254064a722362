"""`python -m bench_sidecar --socket PATH --ring-library PATH`: the sidecar of one device class."""

import argparse
import os
import socket
from typing import NoReturn

from . import engines, log, server
from .ring import load_library


def main() -> NoReturn:
    """Runs the fork server; the harness, not the terminal, says when to stop."""
    parser = argparse.ArgumentParser(prog="bench_sidecar", description=__doc__)
    parser.add_argument("--socket", required=True, help="where to listen for the harness")
    parser.add_argument("--ring-library", required=True, help="path of libbench_ring.so")
    parser.add_argument("--scripted", action="store_true", help="vLLM is not needed: only scripted engines are loaded")
    parser.add_argument("--keep", action="store_true", help="it may outlive the harness that starts it")
    parser.add_argument("--engine", type=int, metavar="FD", help="be an engine process, with its line to the server")
    parser.add_argument(
        "--parent", type=int, metavar="PID", help="the process that has started this one, and must live"
    )
    parser.add_argument("--temporary", metavar="FOLDER", help="temporary files, removed at the end")
    options = parser.parse_args()
    if options.engine is not None:
        line = socket.socket(fileno=options.engine)
        engines.become_engine(line, load_library(options.ring_library), options.parent)
    if os.getpgid(0) != os.getpid():
        os.setsid()  # behind a wrapper: what a terminal or a job sends to a group is for the harness
    parent = options.parent or os.getppid()
    status = server.main(
        options.socket,
        options.ring_library,
        parent,
        with_vllm=not options.scripted,
        is_kept=options.keep,
        temporary=options.temporary,
    )
    log.flush()
    os._exit(status)  # taking vLLM and torch apart module by module would take seconds


if __name__ == "__main__":
    main()
