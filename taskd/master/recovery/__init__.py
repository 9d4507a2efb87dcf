"""What a dead worker or a dead master has left: found, and settled."""
