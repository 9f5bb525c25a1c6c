"""Routing policies: pure, one method, one registry."""
