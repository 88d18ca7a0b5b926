"""The OpenAI dialect: what its SDK sends and expects, at `/openai/v1` (OpenAI API reference)."""
