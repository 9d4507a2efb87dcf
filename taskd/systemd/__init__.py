"""Speaking to the service manager."""
