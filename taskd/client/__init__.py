"""The client library: ``Client``, ``AsyncClient`` and what both share.

``records``   what the daemon tells, as Python values
``asks``      what can be asked: the request and the reading of its answer, once for both clients
``session``   requests over lost connections, without input or output
``address``   which socket to connect to
``blocking``  Client      ``aio``  AsyncClient      ``jsonform``  values as JSON
"""
