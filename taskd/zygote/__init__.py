"""The process that has imported one revision's app, forks its workers and keeps them."""
