"""Adapters to vLLM engines: probes, /metrics, KV events, scheduler stats."""
