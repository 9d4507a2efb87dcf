"""Clients: their connections, their limits, and what each request does."""
