"""Checkpoints in, hosted-API wire formats out, behind one BentoML service."""
