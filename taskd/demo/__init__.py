"""``taskd demo``: a deploy under running tasks, shown in under a minute and counted from outside.

Runs in the process of the command; the daemon and the tasks are real processes of their own.

run        what happens, in order
plan       which tasks there are, and what each has to do
releases   the two releases of the demo's app
daemon     a daemon in a directory of its own
watching   threads that follow, ping and deploy, and only put what they learn into one queue
signals    Ctrl-C and the like
stage      what is shown while it runs
plain      the same computations without taskd, to compare with
judge      what was lost, repeated or wrong: pure
summary    the table and the conclusion
"""
