"""Publishes what a vLLM engine's scheduler did, step by step, over ZMQ.

stat_logger   the class that vLLM loads; the only module that imports vLLM
lanes         pure: stats of many steps in, one wire message out
publisher     the thread and the PUB socket
settings      environment and endpoint rules
"""
