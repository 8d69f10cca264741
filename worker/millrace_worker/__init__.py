# SPDX-License-Identifier: Apache-2.0
"""What runs on the machine that Millrace wakes: the forced command behind its ssh key, and the jobs' supervisor.

Standard library only. The forced command is started for every word that the Pi says, so what is slow to import
(subprocess, argparse, shutil) is imported where it is used.
"""

VERSION = "0.1.0"
PROTOCOL = 1
