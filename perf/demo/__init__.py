"""The router on emulated engines, with traffic and a live table: no GPU, no download."""
