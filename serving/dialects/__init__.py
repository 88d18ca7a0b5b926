"""The routes of other servers and their clients: TEI, vLLM, Infinity, Jina, Voyage."""
