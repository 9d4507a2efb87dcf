"""Pure decisions and tables of states: nothing here imports os, socket, sqlite3 or a clock.

Values that the master holds are Records (``taskd.record``) and classes with slots, not dataclasses:
importing dataclasses costs 7 ms and building one 0.5 ms, all of it part of each deploy's pause.
"""
