"""What passes between processes, without any input or output: bytes and values in, the same out.

``data``         plain data: the values users save and pass, as CBOR with defined tags
``saved``        a task's kept state between attempts
``frames``       length-prefixed messages
``control``      the protocol of control.sock and submit.sock (its docstring is the specification);
                 ``server_side`` and ``client_side`` are its two ends
``worker``       the protocol of worker.sock (its docstring is the specification)
"""
