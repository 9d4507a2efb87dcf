"""``taskd demo``: a deploy under running tasks, shown in under a minute and counted from outside.

Runs in the process of the command; the daemon and the tasks are real processes of their own.

run      what happens, in order            releases  the two releases of the demo's app
plan     the tasks, and what each does     plain     the same computations without taskd
daemon   a daemon in its own directory     verdict   what was lost, repeated or wrong: pure
stage    what is shown while it runs
"""
