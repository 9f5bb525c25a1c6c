"""Policy against policy, through the router, on real vLLM engines."""
