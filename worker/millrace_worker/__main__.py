# SPDX-License-Identifier: Apache-2.0
"""For `python3 -I …/millrace_worker VERB`: this folder's parent becomes the one place that the package comes from."""

import os
import sys

sys.dont_write_bytecode = True
sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from millrace_worker.command import main  # noqa: E402

sys.exit(main())
