"""The Python process of one device class: it owns the vLLM engine that `bench` measures."""

__version__ = "0.1.0"
