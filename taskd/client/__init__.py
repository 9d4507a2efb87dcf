"""The client library: ``Client``, ``AsyncClient`` and what both share.

``records``     what the daemon tells, as Python values
``operations``  what can be asked: requests and the reading of answers, once for both clients
``session``     requests over lost connections, without input or output
``address``     which socket to connect to
``default``     the Client of this process
``blocking``    Client, by ``link``, one blocking connection
``aio``         AsyncClient, by one connection in an event loop
``jsonform``    values as JSON
"""
