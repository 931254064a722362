import os
from collections.abc import Iterator
from types import ModuleType

import pytest
from bench_sidecar.ring import load_library
from harness import Engine, Sidecar


@pytest.fixture(scope="session")
def library() -> ModuleType:
    """The ring of this build; the tests cannot do without it."""
    return load_library(os.environ["BENCH_RING_LIBRARY"])


@pytest.fixture(scope="session")
def sidecar(library: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    """A sidecar with the real vLLM, imported once for all tests."""
    sidecar = Sidecar(tmp_path_factory.mktemp("sidecar"), library)
    sidecar.wait_for_hello()
    yield sidecar
    assert sidecar.close() == 0


@pytest.fixture(scope="session")
def engine(sidecar: Sidecar) -> Engine:
    """A loaded engine, for tests that leave it as they found it."""
    engine = sidecar.load()
    assert engine.first["event"] == "ready", engine.first
    return engine
