"""What passes between processes, without any input or output: bytes and values in, the same out.

``data``    plain data: the values users save and pass, as CBOR with defined tags
``saved``   a task's kept state between attempts
``frames``  length-prefixed messages
``client``  the protocol of control.sock and submit.sock (its docstring is the specification)
``worker``  the protocol of worker.sock (likewise)
"""
