"""Requests to token ids, equal to the engine's own."""
