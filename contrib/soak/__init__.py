"""The soak: hours of the storm at a low rate, while what the daemon uses is watched for growth.

See README.md in ``contrib/storm``; run it with ``python -m contrib.soak``.
"""
