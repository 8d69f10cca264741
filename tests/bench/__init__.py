# SPDX-License-Identifier: Apache-2.0
"""The sections of `make bench`: each has a function run(bench), which adds rows to bench.report (docs/bench.md)."""
