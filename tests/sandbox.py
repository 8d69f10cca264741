#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs a program that may not ask the kernel about its clock, as under systemd's ProtectClock=.

Standard library only.
"""

import ctypes
import os
import sys

CALLS = {"x86_64": (159, 305), "aarch64": (171, 266)}  # adjtimex, clock_adjtime
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, MODE_FILTER = 22, 38, 2
LOAD_NUMBER, JUMP_EQUAL, RETURN = 0x20, 0x15, 0x06  # of <linux/bpf_common.h>
ALLOW, REFUSE = 0x7FFF0000, 0x00050001  # EPERM


class Instruction(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("k", ctypes.c_uint32)]


class Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_uint16), ("filter", ctypes.POINTER(Instruction))]


def forbid(first, second):
    steps = [(LOAD_NUMBER, 0, 0, 0), (JUMP_EQUAL, 2, 0, first), (JUMP_EQUAL, 1, 0, second)]
    steps += [(RETURN, 0, 0, ALLOW), (RETURN, 0, 0, REFUSE)]
    instructions = (Instruction * len(steps))(*[Instruction(*step) for step in steps])
    libc = ctypes.CDLL(None, use_errno=True)
    filters = Program(len(steps), instructions)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 or libc.prctl(
        PR_SET_SECCOMP, MODE_FILTER, ctypes.byref(filters), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    forbid(*CALLS[os.uname().machine])
    os.execvp(sys.argv[1], sys.argv[1:])
