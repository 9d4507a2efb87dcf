"""Pure decisions and the states they move between: no os, socket, sqlite3 or clock in here.

Values that the master holds are Records (``taskd.record``) and classes with slots, not dataclasses:
importing dataclasses costs 7 ms and building one 0.5 ms, all of it part of each deploy's pause.
"""
