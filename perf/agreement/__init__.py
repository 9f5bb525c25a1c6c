"""Does virtual time tell what real processes do?

    vllm bench serve ─► router ─► engines          real processes, sockets and time
            │ arrivals, prompts, lengths
            ▼
    Simulation of the same router and engines      virtual time
            ▼
    mean TTFT of both, side by side

The command is `python -m perf.agreement`.
"""
