"""A daemon whose clock a test sets, forward and back, as an administrator or NTP would.

The machine's own clock stays as it is. A small library, made here and loaded before libc, adds
what stands in a file to every reading of CLOCK_REALTIME, in the daemon and in all its processes;
the monotonic clocks are let be, as they are when a clock is set. taskd itself knows nothing of it.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from typing import Any

import pytest
from support.daemon import Daemon

SOURCE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile long *ahead;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("TASKD_TEST_CLOCK");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *found = mmap(0, sizeof *ahead, PROT_READ, MAP_SHARED, fd, 0);
    if (found != MAP_FAILED) ahead = found;
    close(fd);
}

int clock_gettime(clockid_t id, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, id, now);
    if (result == 0 && id == CLOCK_REALTIME && ahead) now->tv_sec += *ahead;
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (out) *out = exact.tv_sec;
    return exact.tv_sec;
}
"""


class SetClock(Daemon):
    """``set_clock`` counts from the true time; 0 is that."""

    def __init__(self, **sections: Any) -> None:
        super().__init__(**sections)
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            pytest.skip("no C compiler is here to make a clock that can be set")
        with open(self.path("clock.c"), "w", encoding="ascii") as file:
            file.write(SOURCE)
        self._library = self.path("clock.so")
        command = [compiler, "-O1", "-shared", "-fPIC", "-o", self._library, self.path("clock.c")]
        subprocess.run(command, check=True, capture_output=True)
        self.set_clock(0)

    def set_clock(self, seconds: int) -> None:
        with open(self.path("clock"), "ab"):
            pass
        with open(self.path("clock"), "r+b") as file:
            file.write(struct.pack("=q", seconds))

    def environment(self) -> dict[str, str]:
        ours = {"LD_PRELOAD": self._library, "TASKD_TEST_CLOCK": self.path("clock")}
        return super().environment() | ours
