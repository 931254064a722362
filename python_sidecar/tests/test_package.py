import re
from pathlib import Path

import bench_sidecar

REPOSITORY = Path(__file__).resolve().parents[2]


def test_version_is_the_one_of_the_harness() -> None:
    manifest = (REPOSITORY / "Cargo.toml").read_text(encoding="utf-8")
    found = re.search(r'^version = "(.+)"$', manifest, flags=re.MULTILINE)
    assert found is not None
    assert bench_sidecar.__version__ == found.group(1)
