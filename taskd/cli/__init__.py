"""The commands ``taskd`` and ``taskctl``.

``entry``              the console scripts
``taskd``, ``taskctl`` each command's verbs and common options
``outcome``            exit statuses, and messages on stderr
``verbs/``             the verbs of taskctl, which ask a running daemon
``start/``             the verbs of taskd that start a daemon, or say which release it starts
``install/``           ``taskd install`` and ``taskd uninstall``
``output/``            what both print with: text, JSON, progress bars, streams
"""
