#!/usr/bin/env python3
"""Writes the test vectors of section 13 of docs/protocol.md: the messages of a call, valid ones and corrupted ones.

It shares no code with the Rust crates; signatures and encodings are those of generate.py beside it.

    python3 -m venv venv && venv/bin/pip install blake3==1.0.11 pynacl==1.6.2
    venv/bin/python docs/vectors/generate_signalling.py            # writes the file beside itself
    venv/bin/python docs/vectors/generate_signalling.py --check    # fails if it would change
"""

import sys

from generate import (
    KINDS, TCP_TYPES, byte_list, candidate, compress, encode_addr, encode_candidate, flip, public_of, sequence_of, sign,
    small_order_points, u32, u64, write, wrong,
)

DOMAIN = b"keyferry call v1\0"
MAPPINGS = ["unknown", "endpoint_independent", "endpoint_dependent"]
REFUSALS = ["policy", "busy", "no_common_stream"]
STREAMS = ["direct", "direct_and_relayed", "relayed"]
STREAM = ["direct", "relayed"]
CALL, ANSWER, REFUSED, HEARD, DESCRIBE, SIGNAL, LEFT = range(7)
FROM_CALLER, FROM_CALLEE = 0, 1

CALLER, CALLEE, STRANGER = bytes([1] * 32), bytes([2] * 32), bytes([3] * 32)
ID = bytes(range(16))
CHANNEL = {"caller": bytes([0xCA] * 32), "callee": bytes([0xCE] * 32)}


def context(id_=ID, caller=None, callee=None, channel=None):
    channel = channel or CHANNEL
    return (id_ + (caller or public_of(CALLER)) + (callee or public_of(CALLEE)) + channel["caller"] + channel["callee"])


def seal(seed, direction, number, body, *, domain=DOMAIN, **changed):
    return body + sign(seed, domain + context(**changed) + bytes([direction]) + u32(number) + body)


def first(body, *, seed=CALLER, id_=ID, caller=None, callee=None, **changed):
    caller, callee = caller or public_of(CALLER), callee or public_of(CALLEE)
    return id_ + caller + callee + seal(seed, FROM_CALLER, 0, body, id_=id_, caller=caller, callee=callee, **changed)


def description(**changed):
    return {
        "ufrag": "0a1b2c3d", "password": "00112233445566778899aabbccddeeff", "candidates": [candidate()],
        "complete": False, "mapping": "endpoint_independent", "opening": True,
    } | changed


def encode_description(it):
    return (
        byte_list(it["ufrag"].encode()) + byte_list(it["password"].encode())
        + sequence_of([encode_candidate(each) for each in it["candidates"]])
        + bytes([it["complete"]]) + u32(MAPPINGS.index(it["mapping"])) + bytes([it["opening"]])
    )


def encode_turn(it):
    return bytes([it["round"]]) + encode_addr(it["sender"]) + encode_addr(it["receiver"]) + bytes([it["ttl"]])


def encode_signal(it):
    match it["signal"]:
        case "candidates":
            listed = sequence_of([encode_candidate(each) for each in it["candidates"]])
            return u32(0) + listed + bytes([it["complete"]])
        case "opened":
            return u32(1) + encode_turn(it)
        case "cross":
            return u32(2) + encode_turn(it) + u64(it["after_s"]) + u32(it["after_ns"])
        case "exhausted":
            return u32(3)


def encode_streams(streams, it):
    return u32(STREAMS.index(streams)) + (b"" if streams == "relayed" else encode_description(it))


def call(it, streams="direct_and_relayed"):
    return u32(CALL) + encode_streams(streams, it)


def answer(it, streams="direct_and_relayed"):
    return u32(ANSWER) + encode_streams(streams, it)


def describe(it):
    return u32(DESCRIBE) + encode_description(it)


def left(stream):
    return u32(LEFT) + u32(STREAM.index(stream))


def refused(why):
    return u32(REFUSED) + u32(REFUSALS.index(why))


def signal(it, stream="direct"):
    return u32(SIGNAL) + u32(STREAM.index(it.get("stream", stream))) + encode_signal(it)


HEARD_BODY = u32(HEARD)
TURN = {"round": 1, "sender": "198.51.100.7:4600", "receiver": "[2001:db8::7]:65535", "ttl": 3}
FULL = description(
    ufrag="u" * 32, password="p" * 64, complete=True, mapping="endpoint_dependent", opening=False,
    candidates=[candidate(KINDS[n % 4], TCP_TYPES[n % 3], f"[2001:db8::{n + 1:x}]:{65535 - n}", n + 1) for n in range(32)],
)


def calls():
    plain, other_channel = first(call(description())), {"caller": CHANNEL["callee"], "callee": CHANNEL["caller"]}
    bad = lambda why, error, **changed: wrong(why, first(call(description(**changed))), error)
    return {
        "valid": [
            {"why": "one candidate", "streams": "direct_and_relayed", "description": description(),
             "message": plain.hex()},
            {"why": "no relay is used", "streams": "direct", "description": description(),
             "message": first(call(description(), "direct")).hex()},
            {"why": "nothing but relays is used", "streams": "relayed", "message": first(call(None, "relayed")).hex()},
            {"why": "no candidate yet", "streams": "direct_and_relayed", "description": description(candidates=[]),
             "message": first(call(description(candidates=[]))).hex()},
            {"why": "as much as there may be: 1,366 bytes", "streams": "direct_and_relayed", "description": FULL,
             "message": first(call(FULL)).hex()},
        ],
        "invalid": [
            wrong("nothing", b"", "TooShort"),
            wrong("no more than keys", plain[:80], "TooShort"),
            wrong("one byte too many for any message", first(call(FULL)) + b"\0", "TooLong"),
            wrong("for another node", first(call(description()), callee=public_of(STRANGER)), "OtherNode"),
            wrong("a caller's key of small order", ID + compress(small_order_points()[1]) + plain[48:], "CallerKey"),
            wrong("signed by another node", first(call(description()), seed=STRANGER), "BadSignature"),
            wrong("another call id than was signed", flip(plain, 0), "BadSignature"),
            wrong("another body than was signed", flip(plain, 90), "BadSignature"),
            wrong("a flipped bit in the signature", flip(plain, -1), "BadSignature"),
            wrong("another domain", first(call(description()), domain=b"keyferry call v2\0"), "BadSignature"),
            wrong("another connection", first(call(description()), channel=other_channel), "BadSignature"),
            wrong("number 1 in place of 0", ID + public_of(CALLER) + public_of(CALLEE)
                  + seal(CALLER, FROM_CALLER, 1, call(description())), "BadSignature"),
            wrong("the callee's direction", ID + public_of(CALLER) + public_of(CALLEE)
                  + seal(CALLER, FROM_CALLEE, 0, call(description())), "BadSignature"),
            wrong("an answer in place of a call", first(answer(description())), "Unexpected"),
            wrong("an unknown kind of body", first(u32(7)), "Codec(Malformed"),
            wrong("an unknown choice of streams", first(u32(CALL) + u32(3)), "Codec(Malformed"),
            wrong("a description where none is told", first(call(None, "relayed") + encode_description(description())),
                  "Codec(TrailingBytes"),
            wrong("a byte behind the body", first(call(description()) + b"\0"), "Codec(TrailingBytes"),
            wrong("half a body", first(call(description())[:40]), "Codec(Malformed"),
            wrong("a bool of 2", first(call(description())[:-1] + b"\2"), "Codec(Malformed"),
            wrong("a list that claims 33 candidates", first(
                u32(CALL) + u32(1) + byte_list(b"0a1b2c3d") + byte_list(b"0" * 32) + u64(33)), "Codec(Malformed"),
            bad("a short username fragment", "Credential", ufrag="abc"),
            bad("a long username fragment", "Credential", ufrag="a" * 33),
            bad("a space in the username fragment", "Credential", ufrag="abc def"),
            bad("a short password", "Credential", password="a" * 21),
            bad("a long password", "Credential", password="a" * 65),
        ],
    }


def answers():
    accepted = seal(CALLEE, FROM_CALLEE, 0, answer(description(complete=True)))
    return {
        "accepted": {"streams": "direct_and_relayed", "description": description(complete=True),
                     "message": accepted.hex()},
        "refused": [{"why": why, "message": seal(CALLEE, FROM_CALLEE, 0, refused(why)).hex()} for why in REFUSALS],
        "not_this_node": "",
        "invalid": [
            wrong("one byte", b"\0", "TooShort"),
            wrong("to another call", seal(CALLEE, FROM_CALLEE, 0, answer(description()), id_=bytes(16)), "BadSignature"),
            wrong("of another node", seal(STRANGER, FROM_CALLEE, 0, answer(description())), "BadSignature"),
            wrong("of the caller itself", seal(CALLER, FROM_CALLER, 0, answer(description())), "BadSignature"),
            wrong("with a flipped bit", flip(accepted, 20), "BadSignature"),
            wrong("a call in its place", seal(CALLEE, FROM_CALLEE, 0, call(description())), "Unexpected"),
            wrong("a signal in its place", seal(CALLEE, FROM_CALLEE, 0, HEARD_BODY), "Unexpected"),
            wrong("an unknown refusal", seal(CALLEE, FROM_CALLEE, 0, u32(REFUSED) + u32(3)), "Codec(Malformed"),
        ],
    }


def signals():
    all_of_them = [
        {"signal": "candidates", "candidates": [candidate("server_reflexive", "simultaneous_open")], "complete": True},
        {"signal": "candidates", "candidates": [], "complete": True},
        {"signal": "opened"} | TURN,
        {"signal": "cross", "after_s": 0, "after_ns": 20_000_000} | TURN | {"ttl": 0},
        {"signal": "cross", "after_s": 10, "after_ns": 0} | TURN | {"ttl": 0},
        {"signal": "exhausted"},
    ]
    in_relayed = [
        {"signal": "candidates", "candidates": [candidate("relayed", "passive")], "complete": True},
        {"signal": "exhausted"},
    ]
    all_of_them = [{"stream": "direct"} | it for it in all_of_them] + [{"stream": "relayed"} | it for it in in_relayed]
    relayed = description(ufrag="relayed0", mapping="unknown", opening=False, candidates=[candidate("relayed", "active")])

    def from_side(seed, direction, number):
        """What one side says after call and answer, from that number on."""
        bodies = [describe(relayed)] + [signal(it) for it in all_of_them] + [left(stream) for stream in STREAM]
        sealed = [seal(seed, direction, number + at, body).hex() for at, body in enumerate(bodies)]
        return {
            "describe": {"description": relayed, "message": sealed[0]},
            "signals": [it | {"message": message} for it, message in zip(all_of_them, sealed[1:])],
            "left": [{"stream": stream, "message": message} for stream, message in zip(STREAM, sealed[-2:])],
        }

    late = lambda s, ns: signal({"signal": "cross", "after_s": s, "after_ns": ns} | TURN)
    many = {"signal": "candidates", "candidates": [candidate()] * 32, "complete": False}
    next_of_caller = lambda body, **changed: seal(CALLER, FROM_CALLER, 2, body, **changed)
    return {
        "from_caller": {"heard": seal(CALLER, FROM_CALLER, 1, HEARD_BODY).hex()} | from_side(CALLER, FROM_CALLER, 2),
        "from_callee": from_side(CALLEE, FROM_CALLEE, 1),
        "invalid_after_heard": [
            wrong("the second message before the first", seal(CALLER, FROM_CALLER, 3, signal(all_of_them[0])),
                  "BadSignature"),
            wrong("the callee's own signal", seal(CALLEE, FROM_CALLEE, 2, signal(all_of_them[0])), "BadSignature"),
            wrong("a signal of another call", next_of_caller(signal(all_of_them[0]), id_=bytes(16)), "BadSignature"),
            wrong("a second acknowledgement", next_of_caller(HEARD_BODY), "Unexpected"),
            wrong("a second call", next_of_caller(call(description())), "Unexpected"),
            wrong("a crossing too far ahead", next_of_caller(late(10, 1)), "Delay"),
            wrong("a second in nanoseconds", next_of_caller(late(0, 1_000_000_000)), "NotCanonical"),
            wrong("33 candidates in all", next_of_caller(signal(many)), "Candidates"),
            wrong("a signal of the relayed stream before its description", next_of_caller(signal(many, "relayed")),
                  "NotUnderWay"),
            wrong("a short password in the description", next_of_caller(describe(description(password="a" * 21))),
                  "Credential"),
            wrong("an unknown stream", next_of_caller(u32(LEFT) + u32(2)), "Codec(Malformed"),
        ],
        # Of a call in which one side takes part in the direct stream only.
        "invalid_without_relayed": [
            wrong("a description of the relayed stream", next_of_caller(describe(relayed)), "NotUnderWay"),
            wrong("the end of the relayed stream", next_of_caller(left("relayed")), "NotUnderWay"),
        ],
    }


def vectors():
    return {
        "caller_secret": CALLER.hex(), "callee_secret": CALLEE.hex(), "id": ID.hex(),
        "caller_rendezvous": CHANNEL["caller"].hex(), "callee_rendezvous": CHANNEL["callee"].hex(),
        "calls": calls(), "answers": answers(), "signals": signals(),
    }


if __name__ == "__main__":
    sys.exit(write({"signalling": vectors}))
