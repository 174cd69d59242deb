#!/usr/bin/env python3
"""Writes the test vectors of section 11.1 of docs/protocol.md: what a dialler shows in its first flight.

It shares no code with the Rust crates.

    python3 -m venv venv && venv/bin/pip install blake3==1.0.11 pynacl==1.6.2
    venv/bin/python docs/vectors/generate_dialling.py            # writes the file beside itself
    venv/bin/python docs/vectors/generate_dialling.py --check    # fails if it would change
"""

import base64
import sys

from blake3 import blake3

from generate import DAY, derive, flip, public_of, u32, write

SHARE = bytes(range(100, 132))
RANDOM = bytes(range(16))


def proof(context, of, day, nonce, share=SHARE):
    return nonce + blake3(nonce + share, key=derive(context, of + u32(day))).digest()[:16]


def name(raw):
    return base64.b32encode(raw).decode().rstrip("=").lower()


def node(key, day):
    return proof("keyferry 2026 dial node v1", key, day, RANDOM)


def content(hash, day):
    tag = derive("keyferry 2026 dial tag v1", hash + u32(day))[:8]
    return proof("keyferry 2026 dial content v1", hash, day, tag + RANDOM[8:])


def case(kind, key, day, raw):
    return {kind: key.hex(), "day": day, "random": RANDOM.hex(), "key_share": SHARE.hex(), "name": name(raw)}


def vectors():
    alice, bob = public_of(bytes([1] * 32)), public_of(bytes([2] * 32))
    film = blake3(b"film").digest()
    right = node(alice, DAY)
    return {
        "proofs": [
            case("node", alice, DAY, right),
            case("node", alice, DAY + 1, node(alice, DAY + 1)),
            case("node", bob, 0, node(bob, 0)),
            case("content", film, DAY, content(film, DAY)),
            case("content", film, DAY + 1, content(film, DAY + 1)),
        ],
        "wrong": [
            {"why": "of another node", **case("node", bob, DAY, right)},
            {"why": "of another day", **case("node", alice, DAY + 1, right)},
            {"why": "of content, where a node is sought", **case("node", alice, DAY, content(film, DAY))},
            {"why": "a bit of the nonce is another", **case("node", alice, DAY, flip(right, 0))},
            {"why": "a bit of the mac is another", **case("node", alice, DAY, flip(right, 31))},
            {"why": "of another key share", **case("node", alice, DAY, right), "key_share": bytes(32).hex()},
        ],
        "no_proofs": ["", "keyferry.invalid", name(right).upper(), name(right)[:-1], name(right) + "a", name(right)[:-1] + "b"],
    }


if __name__ == "__main__":
    sys.exit(write({"dialling": vectors}))
