# SPDX-License-Identifier: Apache-2.0
"""A clock that is wrong, the daemon's or the store's, stops no delivery."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

import proxy as faults
from clock import Clock
from feed import Answer

PATH = "/feed.json"
OFFSETS = [timedelta(hours=1), timedelta(hours=-1), timedelta(days=1), timedelta(days=-1), timedelta(days=3000)]


@pytest.mark.parametrize("off", OFFSETS, ids=str)
def test_a_wrong_clock_here_stops_no_delivery(make_daemon, millrace_sim, server, bucket, proxy, tmp_path, off):
    clock = Clock(tmp_path / "clock", datetime.now(UTC) + off)
    daemon = make_daemon(program=millrace_sim, env={"MILLRACE_CLOCK": str(clock.path)})
    server.route(PATH, Answer(b"[1,2,3]"))
    daemon.configure({"feed": {"url": server.url(PATH)}}, stores={"lake": bucket.settings(proxy)})
    daemon.start()
    daemon.poll("feed")
    flushed = daemon.cli("flush", "--wait")
    assert flushed.returncode == 0, flushed.stderr
    found = bucket.read()
    assert found.problems == []
    assert found.data("feed") == [b"1", b"2", b"3"]
    said = {r.status for r in proxy.requests()}
    assert 403 in said, "the store had something to say about the time"
    assert len(proxy.requests()) <= 5, "once it knows the store's time it signs with it"


def test_a_store_whose_clock_is_put_right_is_followed(daemon, server, bucket, proxy):
    """The store's clock seems to run an hour ahead, once."""
    server.route(PATH, Answer(b"[1,2,3]"))
    daemon.configure({"feed": {"url": server.url(PATH)}}, stores={"lake": bucket.settings(proxy)})
    ahead = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    proxy.arm(faults.too_skewed(ahead), count=1)
    daemon.start()
    daemon.poll("feed")
    flushed = daemon.cli("flush", "--wait")
    assert flushed.returncode == 0, flushed.stderr
    assert bucket.read().data("feed") == [b"1", b"2", b"3"]
    dates = [datetime.strptime(r.headers["x-amz-date"], "%Y%m%dT%H%M%SZ") for r in proxy.requests()[:3]]
    assert timedelta(minutes=59) < dates[1] - dates[0] < timedelta(minutes=61), "it was believed"
    assert abs(dates[2] - dates[0]) < timedelta(minutes=1), "until the store said otherwise"
