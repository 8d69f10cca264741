# SPDX-License-Identifier: Apache-2.0
"""The source's bytes come out of the store as they went in, and an answer that says nothing new adds nothing."""

import pytest

import lake
from feed import Answer, elements

PATH = "/feed.json"


def read_store(daemon):
    daemon.flush()
    found = lake.read(daemon.lake)
    assert found.problems == []
    return found


def test_recorded_answers_served_twice_running_are_kept_once(daemon, server, samples):
    server.route(PATH, Answer(samples[0]))
    daemon.configure({"parking": {"url": server.url(PATH)}})
    daemon.start()
    for body in samples:
        server.route(PATH, Answer(body))
        daemon.poll_new("parking", server, PATH)
        again = daemon.poll_new("parking", server, PATH)
        assert again == {"source": "parking", "outcome": "unchanged", "records": 0, "first_seq": 0, "text": ""}
    expected = [element for body in samples for element in elements(body)]
    found = read_store(daemon)
    assert len(expected) == 45
    assert found.data("parking") == expected
    assert {r.fetch for r in found.records()} == {1, 2, 3, 4, 5}
    source = daemon.source("parking")
    assert (source["fetches"], source["records"]) == (5, 45)
    assert source["unchanged"] >= 5


def test_an_answer_equal_to_the_last_before_a_restart_adds_nothing(daemon, server, samples):
    server.route(PATH, Answer(samples[0]))
    daemon.configure({"parking": {"url": server.url(PATH)}})
    daemon.start()
    daemon.poll_new("parking", server, PATH)
    assert daemon.stop() == 0
    daemon.start()
    assert daemon.poll_new("parking", server, PATH)["outcome"] == "unchanged"
    assert len(read_store(daemon).records()) == 9


NASTY = [
    b'{"n":123456789012345678901234567890}',
    b"-0.000000000000000000000000000001234567890E+0000300",
    b"1e999",
    b"-0",
    b'{"a":1,"a":2,"a":1}',
    b'{"z":1,"a":{"y":2,"b":3},"m":[]}',
    rb'"\u0041\/\"\\\b\f\n\r\t"',
    rb'"\ud800"',
    rb'"\udc00\ud800 and \ud83d\ude00"',
    '"\u2028 \u2029"'.encode(),
    '"🚗 Ærlighet, 測試"'.encode(),
    b'{ "spaced" :\t[ 1 , 2 ]  }',
    b'"},{\\"data\\":[[],\\u0022]"',
    b'",\\"data\\":"',
    b'{"seq":1,"data":{"data":null}}',
    b'""',
    b"null",
    b"{}",
    b"[]",
    b"[" * 510 + b"]" * 510,
]


@pytest.mark.parametrize("piece", [None, 1, 7], ids=["whole", "byte by byte", "in sevens"])
def test_nasty_values_come_out_as_they_went_in(daemon, server, piece):
    server.route(PATH, Answer(b"[" + b",".join(NASTY) + b"]", piece=piece))
    daemon.configure({"nasty": {"url": server.url(PATH)}})
    daemon.start()
    daemon.poll("nasty")
    assert read_store(daemon).data("nasty") == NASTY


def test_line_breaks_between_tokens_become_spaces(daemon, server):
    body = b'\xef\xbb\xbf \r\n[\r\n  {\r\n    "a" : [\n1,\r2 ]\n  }\n\n, "x" \n ]\r\n\n'
    server.route(PATH, Answer(body))
    daemon.configure({"pretty": {"url": server.url(PATH)}})
    daemon.start()
    daemon.poll("pretty")
    assert read_store(daemon).data("pretty") == [b'{      "a" : [ 1, 2 ]   }', b'"x"']


def test_records_are_found_by_their_path_or_the_body_is_one(daemon, server):
    body = b'{"last_updated": 7, "data": {"stations": [ {"id":1} , {"id":2}]} }\n'
    server.route(PATH, Answer(body))
    daemon.configure(
        {
            "stations": {"url": server.url(PATH), "records": "data.stations"},
            "whole": {"url": server.url(PATH), "records": None},
        }
    )
    daemon.start()
    daemon.poll("stations")
    daemon.poll("whole")
    found = read_store(daemon)
    assert found.data("stations") == [b'{"id":1}', b'{"id":2}']
    assert found.data("whole") == [body.strip()]


def test_the_envelope_says_whence_and_when(daemon, server):
    server.route(PATH, Answer(b"[1]"))
    daemon.configure({"one": {"url": server.url(PATH)}})
    daemon.start()
    daemon.poll("one")
    status = daemon.status()
    (record,) = read_store(daemon).records()
    assert (record.source, record.device, record.boot) == ("one", "pi-test", status["boot"])
    assert (record.seq, record.fetch, record.clock) == (1, 1, "synced")
    assert status["started"] <= record.fetched_at <= status["now"]


def test_a_large_answer_is_cut_into_batches_by_its_bytes(daemon, server):
    records = [b'{"id":%d,"filler":"%s"}' % (i, b"x" * 900) for i in range(2000)]
    server.route(PATH, Answer(b"[" + b",\n".join(records) + b"]"))
    daemon.configure({"large": {"url": server.url(PATH)}}, batch={"max_bytes": "256K"})
    daemon.start()
    daemon.poll("large")
    found = read_store(daemon)
    assert found.data("large") == records
    assert len(found.objects) >= 7
    assert {r.fetch for r in found.records()} == {1}
