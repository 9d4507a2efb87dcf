"""Pure decisions and the states they move between: no os, socket, sqlite3 or clock in here.

Records that the master holds are NamedTuples and classes with slots, not dataclasses: importing
dataclasses and building one costs 7 ms and 0.5 ms each, and the master's start-up is the pause
that every client sees in a deploy.
"""
