"""production-stack's own end-to-end tests and benchmark, run against this router."""
