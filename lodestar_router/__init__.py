"""A request router for fleets of vLLM engines that learns from its own traffic."""

__version__ = "0.1.0"
