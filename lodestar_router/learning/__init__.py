"""The model and its training: torch, no event loop, no I/O but checkpoints."""
