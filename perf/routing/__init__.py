"""Which policy serves a fleet best: the router's own objects in virtual time.

    cells ─ workload ─► plan of arrivals ┐
            engines ─► emulated engines ─┴► Simulation ─ policy ─► rows ─► report

The command is `python -m perf.routing`. How close virtual time is to real processes
is for perf.agreement to say.
"""
