"""What clients ask: streams of prompts and answer lengths, endless and seeded."""
