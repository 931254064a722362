<<<<<<< HEAD
"""The sidecar of bench: a persistent vLLM engine, driven over shared-memory rings."""
=======
"""The Python process of one device class: it owns the vLLM engine that `bench` measures."""
>>>>>>> h3

__version__ = "0.1.0"
