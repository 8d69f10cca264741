# SPDX-License-Identifier: Apache-2.0
"""What ends a verb early. The statuses are sysexits.h's, and PROTOCOL.md says what each means."""

USAGE = 64
BAD_DATA = 65
NO_JOB = 69
NOT_NOW = 75
NOT_SET_UP = 78


class Refusal(Exception):
    """text is one line for a person: what is wrong, and what to do."""

    def __init__(self, status, text):
        super().__init__(text)
        self.status = status
