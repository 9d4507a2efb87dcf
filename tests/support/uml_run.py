"""Run User Mode Linux on processors whose vector state is larger than its kernel knows.

A kernel before 6.13 saves a process's vector registers into 2,696 bytes. Where the processor has
more (AMX: 11,008 bytes), the machine's kernel refuses to take that much back (``PTRACE_SETREGSET``:
EFAULT) and the first process inside dies: "Kernel panic - not syncing: Attempted to kill init". So
this program lets ``PTRACE_GETREGSET`` of that state fail before it executes User Mode Linux, which
then saves the 512 bytes that every processor has. What goes beyond those is lost at each page
fault: the programs inside must be told to use none of it (``ENVIRONMENT``).

Usage: ``python uml_run.py PROGRAM ARGUMENT ...``
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

ENVIRONMENT = {
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps="
    "-AVX,-AVX2,-AVX512F,-AVX512VL,-AVX512BW,-AVX_Fast_Unaligned_Load",
    "OPENSSL_ia32cap": "~0x1000000000000000:~0xc0010020",
}
"""What keeps the C library and OpenSSL from the registers that are lost."""

_LOAD, _SKIP_UNLESS, _ANSWER = 0x20, 0x15, 0x06
_SYS_PTRACE, _PTRACE_GETREGSET, _NT_X86_XSTATE = 101, 0x4204, 0x202
_NUMBER, _REQUEST, _REGISTERS = 0, 16, 32
_FAILS, _ALLOWED = 0x00050000 | errno.ENODEV, 0x7FFF0000
_FILTER = (
    (_LOAD, 0, _NUMBER),
    (_SKIP_UNLESS, 5, _SYS_PTRACE),
    (_LOAD, 0, _REQUEST),
    (_SKIP_UNLESS, 3, _PTRACE_GETREGSET),
    (_LOAD, 0, _REGISTERS),
    (_SKIP_UNLESS, 1, _NT_X86_XSTATE),
    (_ANSWER, 0, _FAILS),
    (_ANSWER, 0, _ALLOWED),
)
"""struct sock_filter of seccomp(2): code, lines to skip if the value differs, value."""

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2


def main() -> None:
    lines = b"".join(struct.pack("=HBBI", code, 0, skip, value) for code, skip, value in _FILTER)
    held = ctypes.create_string_buffer(lines)
    program = struct.pack("@HP", len(_FILTER), ctypes.addressof(held))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_SECCOMP)")
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
