"""Files and batches as OpenAI has them: kept on disk, run through the router itself."""
