"""A vLLM engine in numbers: its scheduler exactly, its step times by formula."""
