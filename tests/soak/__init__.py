# SPDX-License-Identifier: Apache-2.0
"""What takes too long for `make test`: weeks in quick motion, and days under what finds leaks. `make soak` runs it."""
