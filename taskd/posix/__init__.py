"""Raw system calls behind small names, so that the rest reads like prose."""
