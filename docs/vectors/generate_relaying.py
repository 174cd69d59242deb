#!/usr/bin/env python3
"""Writes the test vectors of section 14 of docs/protocol.md: asking for leave to use a relay, and the keys of relays.

It shares no code with the Rust crates; signatures, the arithmetic of ed25519 and encodings are those of generate.py beside
it, XChaCha20-Poly1305 is libsodium's.

    python3 -m venv venv && venv/bin/pip install blake3==1.0.11 pynacl==1.6.2
    venv/bin/python docs/vectors/generate_relaying.py            # writes the file beside itself
    venv/bin/python docs/vectors/generate_relaying.py --check    # fails if it would change
"""

import sys

import nacl.bindings as sodium

from generate import (
    BASE, DAY, L, NOW, add, byte_list, compress, decompress, derive, encode_addr, expand, flip, multiply, public_of,
    sequence_of, sign, small_order_points, u32, u64, write, wrong,
)

DOMAIN = b"keyferry relay v1\0"
SEAL_CONTEXT = "keyferry 2026 relay request v1"
ANONYMOUS, NODE = 0, 1
ISSUED, REFUSED = 0, 1
REFUSALS = ["policy", "busy"]
SKEW, DAY_LONG = 600, 86_400

RELAY, REQUESTER, STRANGER = bytes([1] * 32), bytes([2] * 32), bytes([3] * 32)
CHANNEL = {"relay": bytes([0xCA] * 32), "requester": bytes([0xCE] * 32)}
SEED = bytes(range(64))


def seal(claim, *, node=None, seed=SEED, ephemeral=None):
    node = node or public_of(RELAY)
    scalar = int.from_bytes(seed, "little") % L
    public = ephemeral or compress(multiply(scalar, BASE))
    shared = compress(multiply(8, multiply(scalar, decompress(node))))
    if node == public_of(RELAY) and not ephemeral:
        # The relay's way to the same point.
        assert shared == compress(multiply(expand(RELAY)[0] % L, multiply(8, decompress(public))))
    key = derive(SEAL_CONTEXT, public + node + shared)
    return public + sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(claim, b"", bytes(24), key)


def claim(*, seed=REQUESTER, key=None, time=NOW, signed_time=None, channel=None, domain=DOMAIN):
    channel = channel or CHANNEL
    signed = domain + channel["relay"] + channel["requester"] + u64(time if signed_time is None else signed_time)
    return (key or public_of(seed)) + u64(time) + sign(seed, signed)


def request(*, node=None, seal_seed=SEED, **changed):
    return u32(NODE) + seal(claim(**changed), node=node, seed=seal_seed)


def requests():
    plain = request()
    swapped = {"relay": CHANNEL["requester"], "requester": CHANNEL["relay"]}
    small = compress(small_order_points()[1])
    mixed = compress(add(decompress(public_of(RELAY)), small_order_points()[1]))
    # One whose seal is bound to another E than stands there.
    other_ephemeral = u32(NODE) + compress(multiply(7, BASE)) + plain[36:]
    return {
        "anonymous": u32(ANONYMOUS).hex(),
        "valid": [
            {"why": "made now", "time": NOW, "seed": SEED.hex(), "message": plain.hex()},
            {"why": "made by a clock that is ten minutes behind", "time": NOW - SKEW, "seed": SEED.hex(),
             "message": request(time=NOW - SKEW).hex()},
            {"why": "made by a clock that is ten minutes ahead", "time": NOW + SKEW, "seed": (bytes([255]) * 64).hex(),
             "message": request(time=NOW + SKEW, seal_seed=bytes([255]) * 64).hex()},
        ],
        "sealed_to_a_key_of_mixed_order": {"node": mixed.hex(), "message": request(node=mixed).hex()},
        "invalid": [
            wrong("nothing", b"", "RequestLength"),
            wrong("three bytes", bytes(3), "RequestLength"),
            wrong("a byte too few", plain[:-1], "RequestLength"),
            wrong("a byte too many", plain + b"\0", "RequestLength"),
            wrong("a byte behind an anonymous one", u32(ANONYMOUS) + b"\0", "RequestLength"),
            wrong("an unknown kind", u32(2), "Kind"),
            wrong("an unknown kind with a claim", u32(2) + plain[4:], "Kind"),
            wrong("an anonymous one with a claim", u32(ANONYMOUS) + plain[4:], "Kind"),
            wrong("a node without a claim", u32(NODE), "Kind"),
            wrong("an ephemeral key of small order", u32(NODE) + seal(claim(), ephemeral=small), "EphemeralKey"),
            wrong("an ephemeral key that is no point", u32(NODE) + bytes([2]) + bytes(31) + plain[36:], "EphemeralKey"),
            wrong("another ephemeral key", other_ephemeral, "Sealed"),
            wrong("sealed to another node", request(node=public_of(STRANGER)), "Sealed"),
            wrong("a flipped bit in the seal", flip(plain, 60), "Sealed"),
            wrong("a flipped bit in the tag", flip(plain, -1), "Sealed"),
            wrong("a node key of small order", request(key=small), "RequesterKey"),
            wrong("the relay's own key", request(seed=RELAY), "RequesterKey"),
            wrong("more than ten minutes old", request(time=NOW - SKEW - 1), "Time"),
            wrong("more than ten minutes ahead", request(time=NOW + SKEW + 1), "Time"),
            wrong("at the end of time", request(time=2**64 - 1), "Time"),
            wrong("for another connection", request(channel=swapped), "BadSignature"),
            wrong("another time than was signed", request(signed_time=NOW - 1), "BadSignature"),
            wrong("signed by another node", request(seed=STRANGER, key=public_of(REQUESTER)), "BadSignature"),
            wrong("another domain", request(domain=b"keyferry call v1\0"), "BadSignature"),
        ],
    }


def issued(**changed):
    return {
        "realm": "keyferry", "username": f"{NOW + 3600}:someone", "password": "c2VjcmV0", "expires": NOW + 3600,
        "addrs": ["192.0.2.1:4600", "[2001:db8::1]:65535"], "tls_pin": bytes(range(32)).hex(),
    } | changed


def encode_issued(it):
    pin = b"\0" if it["tls_pin"] is None else b"\1" + bytes.fromhex(it["tls_pin"])
    texts = b"".join(byte_list(it[field].encode()) for field in ("realm", "username", "password"))
    return u32(ISSUED) + texts + u64(it["expires"]) + sequence_of([encode_addr(addr) for addr in it["addrs"]]) + pin


FULL = issued(
    realm="r" * 128, username="u" * 256, password="p" * 128, expires=NOW + DAY_LONG + SKEW,
    addrs=[f"[2001:db8::{n + 1:x}]:{65535 - n}" for n in range(8)],
)


def replies():
    plain = encode_issued(issued())
    bad = lambda why, error, **changed: wrong(why, encode_issued(issued(**changed)), error)
    count_at = plain.index(u64(NOW + 3600)) + 8
    return {
        "issued": [
            {"why": "two addresses and a pin"} | issued() | {"message": plain.hex()},
            {"why": "as little as there may be"} | (it := issued(
                realm="r", username="u", password="p", expires=NOW + 1, addrs=[], tls_pin=None
            )) | {"message": encode_issued(it).hex()},
            {"why": "as much as there may be: 765 bytes"} | FULL | {"message": encode_issued(FULL).hex()},
        ],
        "refused": [{"why": why, "message": (u32(REFUSED) + u32(REFUSALS.index(why))).hex()} for why in REFUSALS],
        "invalid": [
            wrong("nothing", b"", "Codec(Malformed"),
            wrong("one byte too many for any reply", encode_issued(FULL) + b"\0", "Codec(TooLong"),
            wrong("a byte behind it", plain + b"\0", "Codec(TrailingBytes"),
            wrong("half of it", plain[: len(plain) // 2], "Codec(Malformed"),
            wrong("an unknown kind", u32(2), "Codec(Malformed"),
            wrong("an unknown refusal", u32(REFUSED) + u32(2), "Codec(Malformed"),
            wrong("an option of 2", plain[:-33] + b"\2" + plain[-32:], "Codec(Malformed"),
            wrong("a list that claims nine addresses", plain[:count_at] + u64(9) + plain[count_at + 8:], "Codec(Malformed"),
            wrong("a realm that is not UTF-8", u32(ISSUED) + byte_list(b"\xff") + plain[20:], "Codec(Malformed"),
            bad("an empty realm", "Credential", realm=""),
            bad("a long realm", "Credential", realm="r" * 129),
            bad("a space in the realm", "Credential", realm="key ferry"),
            bad("an empty username", "Credential", username=""),
            bad("a long username", "Credential", username="u" * 257),
            bad("a line end in the username", "Credential", username="a\nb"),
            bad("an empty password", "Credential", password=""),
            bad("a long password", "Credential", password="p" * 129),
            bad("a quotation mark in the password", "Credential", password='a"b'),
            bad("a backslash in the password", "Credential", password="a\\b"),
            bad("a letter beyond ASCII in the password", "Credential", password="ü"),
            bad("port 0", "Addr { index: 1 }", addrs=["192.0.2.1:1", "192.0.2.1:0"]),
            bad("an address twice", "Addr { index: 2 }", addrs=["192.0.2.1:1", "192.0.2.1:2", "192.0.2.1:1"]),
            bad("an IPv4-mapped address", "Addr { index: 0 }", addrs=["[::ffff:192.0.2.1]:1"]),
            bad("expired", "Expired", expires=NOW),
            bad("expired long ago", "Expired", expires=0),
            bad("good for too long", "FromTheFuture", expires=NOW + DAY_LONG + SKEW + 1),
        ],
    }


def record_keys():
    of_node = lambda seed, day: {
        "node": public_of(seed).hex(), "day": day,
        "key": derive("keyferry 2026 relay of node record v1", public_of(seed) + u32(day)).hex(),
    }
    return {
        "everyone": derive("keyferry 2026 relay record v1", b"everyone").hex(),
        "of_nodes": [of_node(RELAY, DAY), of_node(RELAY, DAY + 1), of_node(STRANGER, 0)],
    }


def vectors():
    return {
        "relay_secret": RELAY.hex(), "requester_secret": REQUESTER.hex(), "now": NOW,
        "relay_rendezvous": CHANNEL["relay"].hex(), "requester_rendezvous": CHANNEL["requester"].hex(),
        "requests": requests(), "replies": replies(), "record_keys": record_keys(),
    }


if __name__ == "__main__":
    sys.exit(write({"relaying": vectors}))
