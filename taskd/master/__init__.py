"""The master: one loop over one wait point, and the store's writer thread.

It supervises, schedules and answers clients. It never imports user code and never forks.
"""
