"""Says what an interpreter is and has, as one line of JSON, without importing any of it.

The arguments are the modules to look for. The syntax is kept to what an outdated Python reads as well, so that it can
say that it is outdated.
"""

import json
import sys

facts = {
    "executable": sys.executable or "",
    "python": list(sys.version_info[:3]),
    "modules": [],
    "files": {},
    "packages": {},
}  # type: dict[str, object]
if sys.version_info >= (3, 8):
    import importlib.metadata
    import importlib.util
    import os
    import re

    # A folder that merely has the module's name makes a spec without an origin.
    specs = [importlib.util.find_spec(name) for name in sys.argv[1:]]
    files = {spec.name: os.path.realpath(spec.origin) for spec in specs if spec is not None and spec.origin is not None}
    facts["modules"] = list(files)
    facts["files"] = files
    packages = {}  # type: dict[str, str]
    for found in importlib.metadata.distributions():
        name = found.metadata["Name"]
        if name:  # absent where the metadata is damaged
            packages.setdefault(re.sub(r"[-_.]+", "-", name).lower(), found.version)
    facts["packages"] = packages
print("bench-probe " + json.dumps(facts))
