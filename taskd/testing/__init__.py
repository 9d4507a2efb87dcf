"""For tests of an app's tasks.

``run`` runs one task without a daemon, to its end or interrupted or killed at a chosen place, to
show that it resumes. ``eager`` runs what ``fn.submit(…)`` and clients submit at once, in this
process, to test the code that submits. With pytest there are fixtures as well: ``taskd_eager``, and
``taskd_daemon`` for a real daemon (see ``taskd.pytest_plugin``).
"""

from taskd.testing.in_process import NotEager as NotEager, eager as eager
from taskd.testing.single_run import Place as Place, Run as Run, run as run
