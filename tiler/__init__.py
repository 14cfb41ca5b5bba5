"""The ASGI service: it reads what was published and nothing else."""
