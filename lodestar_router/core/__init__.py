"""Values and views: pure, no I/O, no clock, no threads."""
