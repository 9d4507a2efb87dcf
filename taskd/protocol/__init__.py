"""What passes between processes, without any input or output: bytes and values in, the same out.

``cbor``         the decoder of CBOR without tags
``fields``       the check of a map of fields against a table
``data``         plain data: the values users save and pass, as CBOR with defined tags
``saved``        a task's kept state between attempts; ``records``: what the master reads of it
``frames``       length-prefixed messages
``control``      the protocol of control.sock and submit.sock (its docstring is the specification);
                 ``operations`` checks requests, ``server_side`` and ``client_side`` are its ends
``worker``       the protocol of worker.sock (its docstring is the specification)
``boot``         the boot map of a zygote
"""
