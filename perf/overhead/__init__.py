"""What a router costs: CPU per request and chunk, added latency, memory, beside other routers."""
