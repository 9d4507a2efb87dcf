"""The storm: a real daemon under load and under every fault that can be made from outside, and a
checker that knows nothing of its insides. See README.md; run it with ``python -m contrib.storm``.
"""
