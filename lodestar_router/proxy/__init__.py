"""The HTTP edge: clients in, engines out, bytes passed through."""
