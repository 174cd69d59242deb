#!/usr/bin/env python3
"""Writes the test vectors of docs/protocol.md: valid cases and corrupted ones.

It shares no code with the Rust crates: BLAKE3 is the `blake3` package, plain signatures and XChaCha20-Poly1305 are
libsodium's (`pynacl`), the arithmetic of ed25519 that blinding needs is below, after RFC 8032 section 6.

    python3 -m venv venv && venv/bin/pip install blake3==1.0.11 pynacl==1.6.2
    venv/bin/python docs/vectors/generate.py            # writes the files beside itself
    venv/bin/python docs/vectors/generate.py --check    # fails if they would change
"""

import hashlib
import ipaddress
import json
import struct
import sys
from pathlib import Path

import blake3
import nacl.bindings as sodium

HERE = Path(__file__).parent
NOW = 1_800_000_000
HOUR = 3600
DAY = NOW // 86_400

# ---- ed25519, after RFC 8032 section 6 ------------------------------------------------------------------------------

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
SQRT_M1 = pow(2, (P - 1) // 4, P)


def recover_x(y, sign):
    x2 = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(x2, (P + 3) // 8, P)
    if (x * x - x2) % P:
        x = x * SQRT_M1 % P
    if (x * x - x2) % P or (x == 0 and sign):
        return None
    return P - x if x & 1 != sign else x


def add(one, two):
    (x1, y1), (x2, y2) = one, two
    k = D * x1 * x2 * y1 * y2
    return (
        (x1 * y2 + x2 * y1) * pow(1 + k, -1, P) % P,
        (y1 * y2 + x1 * x2) * pow(1 - k, -1, P) % P,
    )


def multiply(scalar, point):
    total = (0, 1)
    while scalar:
        if scalar & 1:
            total = add(total, point)
        point = add(point, point)
        scalar >>= 1
    return total


def compress(point):
    x, y = point
    return (y | (x & 1) << 255).to_bytes(32, "little")


def decompress(data):
    number = int.from_bytes(data, "little")
    y, sign = number & (2**255 - 1), number >> 255
    x = recover_x(y, sign)
    return None if y >= P or x is None else (x, y)


BASE = (recover_x(4 * pow(5, -1, P) % P, 0), 4 * pow(5, -1, P) % P)


def clamp(data):
    number = int.from_bytes(data, "little")
    return number & ((1 << 254) - 8) | (1 << 254)


def scalar_of(data):
    return int.from_bytes(hashlib.sha512(data).digest(), "little") % L


def expand(seed):
    digest = hashlib.sha512(seed).digest()
    return clamp(digest[:32]), digest[32:]


def public_of(seed):
    return compress(multiply(expand(seed)[0], BASE))


def sign_expanded(scalar, prefix, public, message):
    r = scalar_of(prefix + message)
    big_r = compress(multiply(r, BASE))
    s = (r + scalar_of(big_r + public + message) * scalar) % L
    return big_r + s.to_bytes(32, "little")


def sign(seed, message):
    signature = sign_expanded(*expand(seed), public_of(seed), message)
    public, secret = sodium.crypto_sign_seed_keypair(seed)
    assert public == public_of(seed)
    assert signature == sodium.crypto_sign(message, secret)[:64]
    return signature


# ---- BLAKE3, base58, bincode, multiaddr -----------------------------------------------------------------------------


def derive(context, material):
    return blake3.blake3(material, derive_key_context=context).digest()


def content_hash(data):
    return blake3.blake3(data).digest()


ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def base58(data):
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = ALPHABET[digit] + text
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + text


def peer_id(public):
    return base58(bytes.fromhex("0024 0801 1220") + public)


def u16(number):
    return struct.pack("<H", number)


def u32(number):
    return struct.pack("<I", number)


def u64(number):
    return struct.pack("<Q", number)


def byte_list(data):
    return u64(len(data)) + data


def sequence_of(items):
    return u64(len(items)) + b"".join(items)


def multiaddr(text):
    parts, out = text.split("/")[1:], b""
    while parts:
        name = parts.pop(0)
        if name == "ip4":
            out += b"\x04" + ipaddress.IPv4Address(parts.pop(0)).packed
        elif name == "ip6":
            out += b"\x29" + ipaddress.IPv6Address(parts.pop(0)).packed
        elif name == "tcp":
            out += b"\x06" + struct.pack(">H", int(parts.pop(0)))
        elif name == "p2p":
            number, digits = 0, parts.pop(0)
            for digit in digits:
                number = number * 58 + ALPHABET.index(digit)
            ones = len(digits) - len(digits.lstrip("1"))
            data = b"\0" * ones + number.to_bytes((number.bit_length() + 7) // 8, "big")
            out += b"\xa5\x03" + bytes([len(data)]) + data
        elif name == "p2p-circuit":
            out += b"\xa2\x02"
        elif name == "dns4":
            data = parts.pop(0).encode()
            out += b"\x36" + bytes([len(data)]) + data
        else:
            raise ValueError(name)
    return out


# ---- identity.json --------------------------------------------------------------------------------------------------

SEEDS = [bytes([number]) * 32 for number in (1, 2, 3)]
ALICE, BOB, CAROL = SEEDS


def small_order_points():
    """The eight points whose order divides the cofactor: those on which 8·(any point) · l lands, found by search."""
    number = 2
    while True:
        candidate = decompress(number.to_bytes(32, "little"))
        if candidate:
            torsion = multiply(L, candidate)
            if multiply(4, torsion) != (0, 1):
                return [multiply(factor, torsion) for factor in range(8)]
        number += 1


SMALL = small_order_points()


def identity():
    message = b"keyferry vectors"
    signature = sign(ALICE, message)
    big_r, s = signature[:32], int.from_bytes(signature[32:], "little")
    key = public_of(ALICE)
    text = peer_id(key)
    off_curve = next(
        data for data in (bytes([number]) + bytes(31) for number in range(2, 255)) if decompress(data) is None
    )
    not_canonical = [(P + 1).to_bytes(32, "little"), (P + 1 | 1 << 255).to_bytes(32, "little"),
                     (1 | 1 << 255).to_bytes(32, "little"), (2**255 - 1).to_bytes(32, "little")]
    mixed = compress(add(decompress(key), SMALL[1]))
    # A signature under a small-order R verifies by the lax equation and not by the strict one.
    lax_r = compress(SMALL[0])
    lax_s = scalar_of(lax_r + key + message) * expand(ALICE)[0] % L
    return {
        "about": "Node keys: 32 secret bytes, the ed25519 public key, its text form; and signatures over `message`.",
        "valid": [
            {"secret": seed.hex(), "public": public_of(seed).hex(), "text": peer_id(public_of(seed)),
             "message": message.hex(), "signature": sign(seed, message).hex()}
            for seed in SEEDS + [hashlib.sha256(b"another").digest()]
        ],
        "accepted_keys": [{"why": "a point of mixed order is a point of large order", "public": mixed.hex()}],
        "invalid_text": [
            {"why": "empty", "text": "", "error": "NotEd25519PeerId"},
            {"why": "short", "text": text[:-1], "error": "NotEd25519PeerId"},
            {"why": "long", "text": text + "1", "error": "NotEd25519PeerId"},
            {"why": "not of the alphabet (0)", "text": text[:-1] + "0", "error": "NotBase58"},
            {"why": "space in front", "text": " " + text, "error": "NotBase58"},
            {"why": "very long", "text": "1" * 1_000, "error": "NotBase58"},
            {"why": "an RSA peer id", "text": base58(bytes.fromhex("1220") + bytes(32)), "error": "NotEd25519PeerId"},
            {"why": "a secp256k1 key", "text": base58(bytes.fromhex("0025 0802 1221") + b"\x02" * 33),
             "error": "NotEd25519PeerId"},
            {"why": "the identity point", "text": peer_id(compress(SMALL[0])), "error": "InvalidPoint"},
        ],
        "invalid_public": [
            *({"why": f"of small order ({index})", "public": compress(point).hex()}
              for index, point in enumerate(SMALL)),
            *({"why": "not canonical", "public": data.hex()} for data in not_canonical),
            {"why": "not on the curve", "public": off_curve.hex()},
        ],
        "invalid_signature": [
            {"why": why, "public": public_of(seed).hex(), "message": signed.hex(), "signature": data.hex()}
            for why, seed, signed, data in [
                ("another key", BOB, message, signature),
                ("another message", ALICE, message + b"!", signature),
                ("a flipped bit in R", ALICE, message, bytes([signature[0] ^ 1]) + signature[1:]),
                ("a flipped bit in S", ALICE, message, signature[:32] + bytes([signature[32] ^ 1]) + signature[33:]),
                ("S not reduced", ALICE, message, big_r + (s + L).to_bytes(32, "little")),
                ("R of small order", ALICE, message, lax_r + lax_s.to_bytes(32, "little")),
                ("all zero", ALICE, message, bytes(64)),
            ]
        ],
    }


# ---- address.json ---------------------------------------------------------------------------------------------------


def address():
    node = peer_id(public_of(ALICE))
    digest = content_hash(b"content").hex()
    via4, via6 = "/ip4/192.0.2.1/tcp/4040", "/ip6/2001:db8::1/tcp/4040"
    circuit = f"/ip4/192.0.2.1/tcp/4040/p2p/{peer_id(public_of(BOB))}/p2p-circuit"

    def valid(text, node=None, name=None, content=None, hints=(), path=None):
        return {"text": text, "node": node, "name": name, "path": path and path.hex(), "content": content, "hints": list(hints)}

    def invalid(why, text, error):
        return {"why": why, "text": text, "error": error}

    return {
        "about": "Addresses: each valid text parses to these parts and is printed from them; no invalid one parses.",
        "valid": [
            valid(f"keyferry:{node}", node),
            valid(f"keyferry:{node}/holiday", node, "holiday"),
            valid(f"keyferry:{node}/a-b.c_d~e", node, "a-b.c_d~e"),
            valid(f"keyferry:{node}/My%20File%20%28%C3%BC%29%2B100%25.txt", node, "My File (ü)+100%.txt"),
            valid(f"keyferry:{node}/%E6%97%A5%E6%9C%AC", node, "日本"),
            valid(f"keyferry:{node}/{'a' * 255}", node, "a" * 255),
            valid(f"keyferry:{node}/{digest[:-1]}", node, digest[:-1]),
            valid(f"keyferry:{node}/a/b", node, "a", path=b"b"),
            valid(f"keyferry:{node}/a/b%20c/caf%E9/..d", node, "a", path=b"b c/caf\xe9/..d"),
            valid(f"keyferry:{node}/a/b?via={via4}", node, "a", hints=[via4], path=b"b"),
            valid(f"keyferry:{node}/a/" + "/".join(["x"] * 64), node, "a", path=b"/".join([b"x"] * 64)),
            valid(f"keyferry:{node}/{digest}", node, content=digest),
            valid(f"keyferry:{digest}", content=digest),
            valid(f"keyferry:{digest}?via={via4}", content=digest, hints=[via4]),
            valid(f"keyferry:{node}/holiday?via={via4}&via={via6}", node, "holiday", hints=[via4, via6]),
            valid(f"keyferry:{node}?via={circuit}", node, hints=[circuit]),
            valid(f"keyferry:{node}?via=" + "&via=".join([via4] * 8), node, hints=[via4] * 8),
        ],
        "invalid": [
            invalid("empty", "", "Scheme"),
            invalid("no scheme", node, "Scheme"),
            invalid("scheme in capitals", f"KEYFERRY:{node}", "Scheme"),
            invalid("another scheme", f"https://{node}", "Scheme"),
            invalid("space in front", f" keyferry:{node}", "Scheme"),
            invalid("nothing after the scheme", "keyferry:", "Node"),
            invalid("two slashes", f"keyferry://{node}", "Node"),
            invalid("a short key", f"keyferry:{node[:-1]}", "Node"),
            invalid("a key of small order", f"keyferry:{peer_id(compress(SMALL[0]))}", "Node"),
            invalid("a short hash", f"keyferry:{digest[:-2]}", "Node"),
            invalid("a hash in capitals", f"keyferry:{digest.upper()}", "Hash"),
            invalid("a hash in capitals at a node", f"keyferry:{node}/{digest.upper()}", "Hash"),
            invalid("a hash with an escape", f"keyferry:{node}/%{ord(digest[0]):X}{digest[1:]}", "Name(LikeHash"),
            invalid("a name after a hash", f"keyferry:{digest}/name", "Extra"),
            invalid("an empty name", f"keyferry:{node}/", "Name(Length"),
            invalid("a long name", f"keyferry:{node}/{'a' * 256}", "Name(Length"),
            invalid("a path in content by its hash", f"keyferry:{node}/{digest}/b", "Extra"),
            invalid("an empty path", f"keyferry:{node}/a/", "Path(Name(Empty"),
            invalid("an empty name in a path", f"keyferry:{node}/a/b//c", "Path(Name(Empty"),
            invalid("the parent folder in a path", f"keyferry:{node}/a/b/../c", "Path(Name(Traversal"),
            invalid("the parent folder in a path, escaped", f"keyferry:{node}/a/%2E%2E", "Path(Name(Traversal"),
            invalid("a NUL in a path", f"keyferry:{node}/a/b%00", "Path(Name(Byte"),
            invalid("a slash in a name of a path", f"keyferry:{node}/a/b%2Fc", "NotCanonical"),
            invalid("an unescaped space in a path", f"keyferry:{node}/a/b c", "NotCanonical"),
            invalid("a path of 65 names", f"keyferry:{node}/a/" + "/".join(["x"] * 65), "Path(TooDeep"),
            invalid("a path of 4,097 bytes", f"keyferry:{node}/a/" + "/".join(["x" * 241] * 17), "Path(TooLong"),
            invalid("a slash in the name", f"keyferry:{node}/a%2Fb", "Name(Slash"),
            invalid("a backslash in the name", f"keyferry:{node}/a%5Cb", "Name(Unsafe"),
            invalid("the parent folder", f"keyferry:{node}/..", "Name(Unsafe"),
            invalid("this folder", f"keyferry:{node}/.", "Name(Unsafe"),
            invalid("a drive", f"keyferry:{node}/C%3A", "Name(Unsafe"),
            invalid("a device", f"keyferry:{node}/COM1.txt", "Name(Unsafe"),
            invalid("a device with a superscript", f"keyferry:{node}/LPT%C2%B9", "Name(Unsafe"),
            invalid("a trailing space", f"keyferry:{node}/name%20", "Name(Unsafe"),
            invalid("a trailing dot", f"keyferry:{node}/name.", "Name(Unsafe"),
            invalid("a terminal escape", f"keyferry:{node}/%1B%5B2J", "Name(Unsafe"),
            invalid("a bidirectional override", f"keyferry:{node}/a%E2%80%AEtxt.exe", "Name(Unsafe"),
            invalid("a NUL", f"keyferry:{node}/a%00b", "Name(Unsafe"),
            invalid("not in NFC", f"keyferry:{node}/u%CC%88", "Name(NotNfc"),
            invalid("not UTF-8", f"keyferry:{node}/%FF", "Encoding"),
            invalid("an unescaped space", f"keyferry:{node}/a b", "NotCanonical"),
            invalid("an unescaped letter", f"keyferry:{node}/ü", "NotCanonical"),
            invalid("a needless escape", f"keyferry:{node}/%61", "NotCanonical"),
            invalid("lower-case escapes", f"keyferry:{node}/%c3%bc", "NotCanonical"),
            invalid("half an escape", f"keyferry:{node}/100%", "NotCanonical"),
            invalid("an empty query", f"keyferry:{node}?", "Parameter"),
            invalid("another parameter", f"keyferry:{node}?to={via4}", "Parameter"),
            invalid("an empty parameter", f"keyferry:{node}?via={via4}&", "Parameter"),
            invalid("an empty hint", f"keyferry:{node}?via=", "Hint"),
            invalid("a hint that is no multiaddr", f"keyferry:{node}?via=192.0.2.1:4040", "Hint"),
            invalid("a hint with a needless escape", f"keyferry:{node}?via=%2Fip4/192.0.2.1/tcp/4040", "NotCanonical"),
            invalid("a hint in a long form", f"keyferry:{node}?via=/ip6/2001:db8:0::1/tcp/4040", "NotCanonical"),
            invalid("a fragment", f"keyferry:{node}?via={via4}#x", "Hint"),
            invalid("nine hints", f"keyferry:{node}?via=" + "&via=".join([via4] * 9), "Hints"),
            invalid("thirty thousand characters", f"keyferry:{node}/" + "a" * 30_000, "TooLong"),
        ],
    }


# ---- offer.json -----------------------------------------------------------------------------------------------------

OFFER_DOMAIN = b"keyferry offer v2\0"
SEALED_DOMAIN = b"keyferry sealed offer v2\0"
VERSION = b"\2"
# How far from now an expiry or a day may be: a lifetime, what clocks differ by, and how wrong one may be.
WINDOW = (2 + 24) * HOUR + 600
PLAINTEXT_LEN, SEALED_LEN = 2304, 2461
KINDS = ["host", "server_reflexive", "port_mapped", "relayed"]
TCP_TYPES = ["active", "passive", "simultaneous_open"]


def candidate(kind="host", tcp_type="passive", addr="192.0.2.1:4040", priority=0x7E00_80FF):
    return {"kind": kind, "tcp_type": tcp_type, "addr": addr, "priority": priority}


def encode_addr(text):
    host, port = text.rsplit(":", 1)
    ip = ipaddress.ip_address(host.strip("[]"))
    return u32(0 if ip.version == 4 else 1) + ip.packed + u16(int(port))


def encode_candidate(it):
    kind, tcp_type = KINDS.index(it["kind"]), TCP_TYPES.index(it["tcp_type"])
    return u32(kind) + u32(tcp_type) + encode_addr(it["addr"]) + u32(it["priority"])


def offer(**changed):
    return {
        "candidates": [candidate()], "signalling": [], "sequence": 7, "expires": NOW + 2 * HOUR,
    } | changed


def encode_offer(it):
    return (
        sequence_of([encode_candidate(each) for each in it["candidates"]])
        + sequence_of([byte_list(multiaddr(each)) for each in it["signalling"]])
        + u64(it["sequence"]) + u64(it["expires"])
    )


def sign_body(seed, body, domain=OFFER_DOMAIN, version=VERSION):
    return version + public_of(seed) + body + sign(seed, domain + body)


def sign_offer(seed, it):
    return sign_body(seed, encode_offer(it))


def factor(public, day):
    return clamp(derive("keyferry 2026 blind v1", public + u32(day)))


def blind_public(public, day):
    return compress(multiply(factor(public, day), decompress(public)))


def blind_secret(seed, day):
    scalar, prefix = expand(seed)
    public = public_of(seed)
    blinded = blind_public(public, day)
    new_prefix = hashlib.sha512(b"keyferry blind prefix v1\0" + prefix + blinded).digest()[:32]
    new_scalar = factor(public, day) * scalar % L
    assert compress(multiply(new_scalar, BASE)) == blinded
    return new_scalar, new_prefix, blinded


def record_key(blinded):
    return derive("keyferry 2026 offer record v2", blinded)


def pad(message):
    return (u32(len(message)) + message).ljust(PLAINTEXT_LEN, b"\0")


def veil(public, day):
    """What is added to the sequence of an offer and taken from its expiry."""
    hasher = blake3.blake3(public + u32(day), derive_key_context="keyferry 2026 offer veil v2")
    added, early = struct.unpack("<QQ", hasher.digest(length=16))
    return added // 2, early % 1200


NONCE = bytes(range(24))


def seal(seed, signed, day, sequence=7, expires=NOW + 2 * HOUR, nonce=NONCE, *, plaintext=None, key_of=None,
         ciphertext=None, signer=None, header_blinded=None, domain=SEALED_DOMAIN, aad=None, said_day=None,
         version=VERSION, said_expires=None):
    """`sequence` and `expires` are those of the offer."""
    scalar, prefix, blinded = blind_secret(seed, day)
    added, early = veil(public_of(seed), day)
    expires = said_expires or expires - early
    header = version + (header_blinded or blinded) + u32(said_day or day) + u64(sequence + added) + u64(expires)
    key = derive("keyferry 2026 offer seal v2", (key_of or public_of(seed)) + u32(day))
    if ciphertext is None:
        ciphertext = sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(
            plaintext if plaintext is not None else pad(signed), aad if aad is not None else header, nonce, key)
    body = header + nonce + ciphertext
    if signer:
        signature = sign(signer, domain + body)
    else:
        signature = sign_expanded(scalar, prefix, blinded, domain + body)
        sodium.crypto_sign_open(signature + domain + body, blinded)
    return body + signature


def flip(data, at):
    at %= len(data)
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]


def wrong(why, message, error):
    return {"why": why, "message": message.hex(), "error": error}


def full_offer():
    """As much as an offer can hold."""
    return offer(
        sequence=2**63 - 1,
        candidates=[candidate(KINDS[n % 4], TCP_TYPES[n % 3], f"[2001:db8::{n + 1:x}]:{65535 - n}", n + 1) for n in range(32)],
        signalling=["/dns4/" + letter * 120 + "/tcp/4040" for letter in "abcd"],
    )


def signed_vectors():
    plain, full = offer(), full_offer()
    many_kinds = offer(
        candidates=[candidate(kind, tcp_type, f"198.51.100.{n}:{4000 + n}", n + 1)
                    for n, (kind, tcp_type) in enumerate((k, t) for k in KINDS for t in TCP_TYPES)]
        + [candidate(addr="[2001:db8::7]:4040")],
        signalling=["/ip4/192.0.2.1/tcp/4040", f"/ip4/192.0.2.9/tcp/1/p2p/{peer_id(public_of(BOB))}/p2p-circuit"])
    empty = offer(candidates=[])
    good = sign_offer(ALICE, plain)
    one = encode_candidate(candidate())
    tail = u64(7) + u64(NOW + 2 * HOUR)

    def invalid(why, data, error, now=NOW):
        return {"why": why, "now": now, "bytes": data.hex(), "error": error}

    return {
        "valid": [
            {"secret": seed.hex(), "node": public_of(seed).hex(), "now": NOW, "offer": it,
             "bytes": sign_offer(seed, it).hex()}
            for seed, it in [(ALICE, plain), (BOB, many_kinds), (CAROL, full), (ALICE, empty)]
        ],
        "valid_at": [
            {"why": "in its last second", "now": NOW + 2 * HOUR - 1, "bytes": good.hex()},
            {"why": "in the second of its expiry", "now": NOW + 2 * HOUR, "bytes": good.hex()},
            {"why": "made by a clock that is a day slow", "now": NOW + 24 * HOUR, "bytes": good.hex()},
            {"why": "in the last second in which a slow clock can have made it", "now": NOW + 2 * HOUR + WINDOW - 1, "bytes": good.hex()},
            {"why": "made by a clock that is a day fast", "now": NOW - 24 * HOUR, "bytes": good.hex()},
            {"why": "in the first second in which a fast clock can have made it", "now": NOW + 2 * HOUR - WINDOW, "bytes": good.hex()},
        ],
        "invalid": [
            invalid("empty", b"", "TooShort"),
            invalid("a version alone", good[:1], "TooShort"),
            invalid("a key and half a signature", good[:65], "TooShort"),
            invalid("of the next version", b"\3" + good[1:], "Version { got: 3 }"),
            invalid("of the next version, and signed as such", sign_body(ALICE, encode_offer(plain), b"keyferry offer v3\0",
                    b"\3"), "Version { got: 3 }"),
            invalid("over-long", good + bytes(3000), "TooLong"),
            invalid("cut by one byte", good[:-1], "BadSignature"),
            invalid("one byte more", good + b"\0", "BadSignature"),
            invalid("a flipped bit in the key", VERSION + public_of(BOB) + good[33:], "BadSignature"),
            invalid("a key of small order", VERSION + compress(SMALL[2]) + good[33:], "NodeKey"),
            invalid("a flipped bit in the offer", flip(good, 60), "BadSignature"),
            invalid("a flipped bit in the signature", flip(good, -10), "BadSignature"),
            invalid("signed by another", VERSION + public_of(ALICE) + sign_offer(BOB, plain)[33:], "BadSignature"),
            invalid("signed without the domain", sign_body(ALICE, encode_offer(plain), b""), "BadSignature"),
            invalid("signed under another domain", sign_body(ALICE, encode_offer(plain), SEALED_DOMAIN), "BadSignature"),
            invalid("expired by any clock", good, "Expired", NOW + 2 * HOUR + WINDOW),
            invalid("long expired", good, "Expired", NOW + 48 * HOUR),
            invalid("from the future", good, "FromTheFuture", NOW + 2 * HOUR - WINDOW - 1),
            invalid("for ever", sign_offer(ALICE, offer(expires=2**64 - 1)), "FromTheFuture"),
            invalid("33 candidates", sign_offer(ALICE, offer(candidates=[candidate()] * 33)), "Malformed"),
            invalid("10,000 candidates claimed", sign_body(ALICE, u64(10_000) + one + u64(0) + tail), "Malformed"),
            invalid("2^64-1 candidates claimed", sign_body(ALICE, b"\xff" * 8 + one + tail), "Malformed"),
            invalid("5 signalling addresses", sign_offer(ALICE, offer(signalling=["/ip4/192.0.2.1/tcp/1"] * 5)),
                    "Malformed"),
            invalid("a signalling address that is none", sign_body(ALICE, sequence_of([one])
                    + sequence_of([byte_list(b"\xff\xff\xff")]) + tail), "SignallingAddr"),
            invalid("an empty signalling address", sign_body(ALICE, sequence_of([one])
                    + sequence_of([byte_list(b"")]) + tail), "SignallingAddr"),
            invalid("a terminal escape in a host name", sign_body(ALICE, sequence_of([one])
                    + sequence_of([byte_list(b"\x36\x03\x1b[H")]) + tail), "SignallingAddr"),
            invalid("a slash in a host name", sign_body(ALICE, sequence_of([one])
                    + sequence_of([byte_list(b"\x36\x03a/b")]) + tail), "SignallingAddr"),
            invalid("a signalling address of 300 bytes", sign_body(ALICE, sequence_of([one])
                    + sequence_of([byte_list(multiaddr("/ip4/192.0.2.1/tcp/1") * 38)]) + tail), "SignallingAddr"),
            invalid("an unknown kind of candidate", sign_body(ALICE, sequence_of([u32(4) + one[4:]])
                    + u64(0) + tail), "Malformed"),
            invalid("an unknown family of addresses", sign_body(ALICE, sequence_of([one[:8] + u32(2) + one[12:]])
                    + u64(0) + tail), "Malformed"),
            invalid("a priority of 0", sign_offer(ALICE, offer(candidates=[candidate(priority=0)])), "Malformed"),
            invalid("a priority of 2^31", sign_offer(ALICE, offer(candidates=[candidate(priority=1 << 31)])), "Malformed"),
            invalid("bytes left over", sign_body(ALICE, encode_offer(plain) + b"\0"), "Malformed"),
            invalid("cut short", sign_body(ALICE, encode_offer(plain)[:-1]), "Malformed"),
            invalid("no offer at all", sign_body(ALICE, b""), "Malformed"),
            invalid("a sequence that no veil fits over", sign_offer(ALICE, offer(sequence=2**63)), "Sequence"),
        ],
    }


def sealed_vectors():
    plain, full = offer(), full_offer()
    signed, signed_full = sign_offer(ALICE, plain), sign_offer(CAROL, full)
    blinded = blind_public(public_of(ALICE), DAY)
    key = record_key(blinded)
    good = seal(ALICE, signed, DAY)
    other_key = record_key(blind_public(public_of(BOB), DAY))
    midnight = (DAY + 1) * 86_400
    late = offer(expires=midnight + HOUR)

    def early_of(seed, day):
        return veil(public_of(seed), day)[1]

    expires = NOW + 2 * HOUR - early_of(ALICE, DAY)

    def valid(seed, signed, day, now, nonce=NONCE, **header):
        return {"secret": seed.hex(), "node": public_of(seed).hex(), "day": day, "nonce": nonce.hex(), "now": now,
                "key": record_key(blind_public(public_of(seed), day)).hex(), "signed": signed.hex(),
                "bytes": seal(seed, signed, day, nonce=nonce, **header).hex()}

    def refused(why, data, error, now=NOW, key=key):
        return {"why": why, "key": key.hex(), "now": now, "bytes": data.hex(), "error": error}

    def unopened(why, data, error, node=ALICE, now=NOW, key=key):
        return {"why": why, "key": key.hex(), "node": public_of(node).hex(), "now": now, "bytes": data.hex(),
                "error": error}

    weak = compress(SMALL[3])
    days_off = {n: record_key(blind_public(public_of(ALICE), DAY + n)) for n in (-2, 2)}
    return {
        "valid": [
            valid(ALICE, signed, DAY, NOW),
            valid(CAROL, signed_full, DAY, NOW, hashlib.sha256(b"nonce").digest()[:24], sequence=2**63 - 1),
            # Published for tomorrow, an hour before midnight.
            valid(BOB, sign_offer(BOB, late), DAY + 1, midnight - HOUR, expires=midnight + HOUR),
            # Published for today, still valid after midnight.
            valid(BOB, sign_offer(BOB, late), DAY, midnight + HOUR - early_of(BOB, DAY) - 1, expires=midnight + HOUR),
            # By a clock that is a day slow, and by one that is a day fast.
            valid(ALICE, signed, DAY, NOW + 24 * HOUR),
            valid(ALICE, signed, DAY, NOW - 24 * HOUR),
            valid(ALICE, signed, DAY, expires + WINDOW - 1),
            valid(ALICE, signed, DAY, NOW + 2 * HOUR - WINDOW),
        ],
        "refused_by_anyone": [
            refused("empty", b"", "Length"),
            refused("a version alone", good[:1], "Length"),
            refused("cut by one byte", good[:-1], "Length"),
            refused("one byte more", good + b"\0", "Length"),
            refused("of the version before", b"\1" + good[1:], "Version { got: 1 }"),
            refused("of the next version", seal(ALICE, signed, DAY, version=b"\3"), "Version { got: 3 }"),
            refused("of the next version, and longer", b"\3" + bytes(9999), "Version { got: 3 }"),
            refused("under another key", good, "WrongKey", key=other_key),
            refused("another blinded key", flip(good, 1), "WrongKey"),
            refused("a flipped bit in the sequence", flip(good, 37), "BadSignature"),
            refused("a flipped bit in the nonce", flip(good, 60), "BadSignature"),
            refused("a flipped bit in the ciphertext", flip(good, 200), "BadSignature"),
            refused("a flipped bit in the signature", flip(good, -1), "BadSignature"),
            refused("signed by the node key itself", seal(ALICE, signed, DAY, signer=ALICE), "BadSignature"),
            refused("signed by another", seal(ALICE, signed, DAY, signer=BOB), "BadSignature"),
            refused("signed under another domain", seal(ALICE, signed, DAY, domain=OFFER_DOMAIN), "BadSignature"),
            refused("a blinded key of small order", seal(ALICE, signed, DAY, header_blinded=weak, signer=BOB),
                    "BadSignature", key=record_key(weak)),
            refused("expired by any clock", good, "Expired", now=expires + WINDOW),
            refused("expired two days ago", good, "Expired", now=NOW + 50 * HOUR),
            refused("from the future", good, "FromTheFuture", now=expires - WINDOW - 1),
            refused("for ever", seal(ALICE, signed, DAY, said_expires=2**64 - 1), "FromTheFuture"),
            refused("of the day before yesterday", seal(ALICE, signed, DAY - 2), "WrongDay", key=days_off[-2]),
            refused("of the day after tomorrow", seal(ALICE, signed, DAY + 2), "WrongDay", key=days_off[2]),
        ],
        "refused_on_opening": [
            unopened("asked for another node", good, "AnotherNode", node=BOB),
            unopened("expired since it was stored", good, "Offer(Expired", now=NOW + 2 * HOUR + WINDOW),
            unopened("another's offer", seal(ALICE, sign_offer(BOB, plain), DAY), "SignedByAnother"),
            unopened("an offer with a bad signature", seal(ALICE, flip(signed, 60), DAY), "Offer(BadSignature"),
            unopened("not encrypted to this node", seal(ALICE, signed, DAY, key_of=public_of(BOB)), "Undecryptable"),
            unopened("other associated data", seal(ALICE, signed, DAY, aad=b""), "Undecryptable"),
            unopened("a ciphertext of zeros", seal(ALICE, signed, DAY, ciphertext=bytes(PLAINTEXT_LEN + 16)), "Undecryptable"),
            unopened("an empty plaintext", seal(ALICE, signed, DAY, plaintext=pad(b"")), "Offer(TooShort"),
            unopened("padding that is not zero", seal(ALICE, signed, DAY, plaintext=pad(signed)[:-1] + b"\1"), "Padding"),
            unopened("a length beyond the end", seal(ALICE, signed, DAY, plaintext=b"\xff" * PLAINTEXT_LEN), "Padding"),
            unopened("an offer of the next version", seal(ALICE, b"\3" + signed[1:], DAY), "Offer(Version { got: 3 }"),
            unopened("another sequence outside", seal(ALICE, signed, DAY, sequence=8), "HeaderMismatch"),
            unopened("another expiry outside", seal(ALICE, signed, DAY, expires=NOW + HOUR), "HeaderMismatch"),
            unopened("the expiry of the offer outside, not veiled",
                     seal(ALICE, signed, DAY, said_expires=NOW + 2 * HOUR), "HeaderMismatch"),
            unopened("33 candidates", seal(ALICE, sign_offer(ALICE, offer(candidates=[candidate()] * 33)), DAY),
                     "Offer(Malformed"),
            unopened("of another day than it says", seal(ALICE, sign_offer(ALICE, late), DAY, expires=midnight + HOUR,
                                                         said_day=DAY + 1), "AnotherNode", now=midnight - HOUR),
        ],
        "order": [
            {"why": why, "new": seal(ALICE, sign_offer(ALICE, offer(sequence=new)), DAY, sequence=new,
                                     nonce=nonce).hex(), "old": good.hex(), "key": key.hex(), "now": NOW,
             "supersedes": supersedes}
            for why, new, nonce, supersedes in [
                ("newer", 8, NONCE, True), ("much newer", 2**63 - 1, NONCE, True), ("the same once more", 7, NONCE, False),
                ("equal sequence, other bytes", 7, bytes(24), False), ("older", 6, NONCE, False),
                ("the first", 0, NONCE, False),
            ]
        ],
    }


def offers():
    return {
        "about": "Blinding, record keys, signed offers and sealed offers. Times are seconds since 1970, days are UTC.",
        "blinding": [
            {"secret": seed.hex(), "node": public_of(seed).hex(), "day": day,
             "factor": factor(public_of(seed), day).to_bytes(32, "little").hex(),
             "blinded": blind_secret(seed, day)[2].hex(),
             "blinded_scalar": blind_secret(seed, day)[0].to_bytes(32, "little").hex(),
             "blinded_prefix": blind_secret(seed, day)[1].hex(),
             "key": record_key(blind_secret(seed, day)[2]).hex()}
            for seed in SEEDS for day in (0, DAY, DAY + 1, 2**32 - 1)
        ],
        "blinding_of_mixed_order": [
            {"why": "the factor is a multiple of the cofactor, and is not reduced", "node": mixed.hex(), "day": DAY,
             "blinded": blind_public(mixed, DAY).hex(), "key": record_key(blind_public(mixed, DAY)).hex()}
            for mixed in [compress(add(decompress(public_of(ALICE)), SMALL[n])) for n in (1, 2, 4)]
        ],
        "veils": [
            {"node": public_of(seed).hex(), "day": day, "sequence": 7, "record_sequence": 7 + veil(public_of(seed), day)[0],
             "expires": NOW + 2 * HOUR, "record_expires": NOW + 2 * HOUR - veil(public_of(seed), day)[1]}
            for seed in SEEDS for day in (0, DAY, DAY + 1, 2**32 - 1)
        ],
        "content_keys": [
            {"hash": digest.hex(), "key": derive("keyferry 2026 provider record v1", digest).hex()}
            for digest in (content_hash(b""), content_hash(b"content"))
        ],
        "signed": signed_vectors(),
        "sealed": sealed_vectors(),
    }


# ---- catalogue.json -------------------------------------------------------------------------------------------------

ENTRY_DOMAIN = b"keyferry catalogue entry v2\0"
FORMATS = ["blob", "collection"]


def entry(**changed):
    return {"name": "holiday", "hash": content_hash(b"content").hex(), "format": "blob", "size": 7, "files": 1,
            "attributes": None} | changed


def encode_entry(it):
    return (byte_list(it["name"].encode()) + bytes.fromhex(it["hash"]) + u32(FORMATS.index(it["format"]))
            + u64(it["size"]) + u64(it["files"]) + encode_attributes(it["attributes"]))


def encode_attributes(it):
    if it is None:
        return b"\0"
    return b"\1" + struct.pack("<q", it["modified"]) + bytes([it["executable"], it["private"]])


def catalogue():
    def signed(seed, body, domain=ENTRY_DOMAIN):
        return body + sign(seed, domain + body)

    body = encode_entry(entry())
    good = signed(ALICE, body)

    def invalid(why, data, error, node=ALICE):
        return {"why": why, "node": public_of(node).hex(), "bytes": data.hex(), "error": error}

    def misnamed(why, name):
        return invalid(why, signed(ALICE, encode_entry(entry(name=name))), "Malformed")

    valid = [entry(), entry(format="collection", size=2**64 - 1, files=2**64 - 1), entry(name="日本 ü.txt"),
             entry(attributes={"modified": 1_700_000_000_123_456_789, "executable": True, "private": False}),
             entry(name="a" * 255, attributes={"modified": -(1 << 63), "executable": False, "private": True}), entry(size=0, hash=content_hash(b"").hex())]
    return {
        "about": "Signed catalogue entries.",
        "valid": [{"secret": ALICE.hex(), "node": public_of(ALICE).hex(), "entry": it,
                   "bytes": signed(ALICE, encode_entry(it)).hex()} for it in valid],
        "invalid": [
            invalid("empty", b"", "Length"),
            invalid("63 bytes", good[:63], "Length"),
            invalid("400 bytes", good + bytes(400 - len(good)), "Length"),
            invalid("of another node", good, "BadSignature", node=BOB),
            invalid("signed by another", signed(BOB, body), "BadSignature"),
            invalid("signed under another domain", signed(ALICE, body, OFFER_DOMAIN), "BadSignature"),
            invalid("a flipped bit in the name", flip(good, 8), "BadSignature"),
            invalid("a flipped bit in the hash", flip(good, 20), "BadSignature"),
            invalid("a flipped bit in the signature", flip(good, -1), "BadSignature"),
            invalid("cut by one byte", good[:-1], "BadSignature"),
            invalid("one byte more", good + b"\0", "BadSignature"),
            invalid("nothing but a signature", signed(ALICE, b""), "Malformed"),
            invalid("bytes left over", signed(ALICE, body + b"\0"), "Malformed"),
            invalid("cut short", signed(ALICE, body[:-1]), "Malformed"),
            invalid("attributes of 2", signed(ALICE, body[:-1] + b"\2"), "Malformed"),
            invalid("attributes that are cut short", signed(ALICE, body[:-1] + b"\1" + bytes(9)), "Malformed"),
            invalid("an unknown format", signed(ALICE, body[:47] + u32(2) + body[51:]), "Malformed"),
            invalid("a name of a tebibyte", signed(ALICE, u64(1 << 40) + body[8:]), "Malformed"),
            invalid("a name that is not UTF-8", signed(ALICE, byte_list(b"\xff" * 7) + body[15:]), "Malformed"),
            misnamed("no name", ""),
            misnamed("the parent folder", ".."),
            misnamed("a path", "a/b"),
            misnamed("a Windows path", "a\\b"),
            misnamed("an absolute path", "/etc"),
            misnamed("a drive", "C:"),
            misnamed("a device", "com1"),
            misnamed("a terminal escape", "\x1b[2J"),
            misnamed("a bidirectional override", "a\u202etxt.exe"),
            misnamed("a name like a hash", "0" * 64),
            misnamed("a name like a hash, in capitals", "A" * 64),
            misnamed("a name not in NFC", "u\u0308"),
            misnamed("a trailing space", "name "),
        ],
    }


# ---- writing --------------------------------------------------------------------------------------------------------


def write(files):
    """Writes the files of vectors beside this one, given what makes each; with --check it only says which would change."""
    check, changed = "--check" in sys.argv[1:], []
    for name, make in files.items():
        path = HERE / f"{name}.json"
        text = json.dumps(make(), indent=1, ensure_ascii=False) + "\n"
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        changed.append(path.name)
        if not check:
            path.write_text(text, encoding="utf-8")
    print("changed:", ", ".join(changed) or "nothing")
    return 1 if check and changed else 0


if __name__ == "__main__":
    sys.exit(write({"identity": identity, "address": address, "offer": offers, "catalogue": catalogue}))
