"""Figures of taskd beside those of an earlier commit, measured in one run and told as ratios.

``python -m contrib.bench.store --help``. What a machine does at another hour says nothing, so that
no absolute figure is worth keeping; and CPU time says more than wall time where others use the
machine, too.
"""
