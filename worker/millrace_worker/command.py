# SPDX-License-Identifier: Apache-2.0
"""The command line: `setup`, the verbs for who sits at the machine, and `forced`, which stands in authorized_keys."""

import os
import sys

from millrace_worker import forced, settings

USAGE = f"""\
usage: millrace-worker setup --key FILE|TEXT …    makes this machine ready; setup --help says more
       millrace-worker VERB …                     {", ".join(forced.VERBS)}: as the worker's user
"""


def take(words, option, default):
    """The value of `option VALUE` where that is what words begin with."""
    if words[:1] == [option] and len(words) > 1:
        words.pop(0)
        return words.pop(0)
    return default


def main():
    words = sys.argv[1:]
    etc = take(words, "--etc", settings.ETC)
    agent = take(words, "--agent", None)
    verb = words[0] if words else None
    if verb == "forced":
        return forced.answer(etc, agent, os.environb.get(b"SSH_ORIGINAL_COMMAND"))
    if verb in forced.VERBS:
        return forced.answer(etc, agent, os.fsencode(" ".join(words)))
    if verb == "supervise":
        from millrace_worker.supervise import supervise

        return supervise(settings.load(etc), words[1])
    if verb == "sleep-now":
        from millrace_worker.awake import sleep_now

        return sleep_now(settings.load(etc), agent)
    if verb == "setup":
        from millrace_worker.setup import setup

        return setup(words[1:])
    sys.stderr.write(USAGE)
    return 64
