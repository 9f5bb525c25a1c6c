"""The trainer process and the router's link to it."""
