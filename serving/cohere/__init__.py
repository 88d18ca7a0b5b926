"""The Cohere dialect: what its SDK sends and expects, at `/v1` (Cohere API reference)."""
