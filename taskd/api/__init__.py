"""What an app declares with ``@task``, and the context that a running task is given as ``ctx``.

It knows no worker process: a worker, and ``taskd.testing``, hand it a recorder (``api.recorder``).
"""
