"""The sidecar of bench: a persistent vLLM engine, driven over shared-memory rings."""

__version__ = "0.1.0"
