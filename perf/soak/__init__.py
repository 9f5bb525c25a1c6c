"""Whether the router keeps its promises for long: faults at random, clients that leave, leaks."""
