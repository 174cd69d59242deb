#!/usr/bin/env python3
"""Writes the test vectors of sections 6 to 10 of docs/protocol.md: paths, manifests, frames, messages, groups.

It shares no code with the Rust crates. Whole hashes are those of the `blake3` package; the tree below (chunks, parents,
groups) is written after the BLAKE3 paper, section 2, in plain Python, and checked against the package.
Numbers are encoded and files written by generate.py beside it.

    python3 -m venv venv && venv/bin/pip install blake3==1.0.11 pynacl==1.6.2
    venv/bin/python docs/vectors/generate_content.py            # writes the files beside itself
    venv/bin/python docs/vectors/generate_content.py --check    # fails if they would change
"""

import struct
import sys
import unicodedata

import blake3

from generate import u32, u64, write

GROUP = 65_536
CHUNK = 1024
MAX_BLOB_SIZE = 1 << 50
OPEN_END = (1 << 64) - 1

# ---- BLAKE3, after section 2 of the paper ---------------------------------------------------------------------------

IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8
MASK = 0xFFFFFFFF
MIXED = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
         (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))


def rotated(x, by):
    return (x >> by | x << 32 - by) & MASK


def compress(value, block, counter, length, flags):
    m = struct.unpack("<16I", block.ljust(64, b"\0"))
    v = [*value, *IV[:4], counter & MASK, counter >> 32, length, flags]
    for _ in range(7):
        for (a, b, c, d), x, y in zip(MIXED, m[::2], m[1::2]):
            v[a] = v[a] + v[b] + x & MASK
            v[d] = rotated(v[d] ^ v[a], 16)
            v[c] = v[c] + v[d] & MASK
            v[b] = rotated(v[b] ^ v[c], 12)
            v[a] = v[a] + v[b] + y & MASK
            v[d] = rotated(v[d] ^ v[a], 8)
            v[c] = v[c] + v[d] & MASK
            v[b] = rotated(v[b] ^ v[c], 7)
        m = [m[at] for at in PERMUTATION]
    return tuple(low ^ high for low, high in zip(v[:8], v[8:]))


def chunk_value(data, number, root):
    value = IV
    blocks = [data[at:at + 64] for at in range(0, len(data), 64)] or [b""]
    for at, block in enumerate(blocks):
        last = at == len(blocks) - 1
        flags = (CHUNK_START if at == 0 else 0) | (CHUNK_END | (ROOT if root else 0) if last else 0)
        value = compress(value, block, number, len(block), flags)
    return struct.pack("<8I", *value)


def parent_value(left, right, root):
    return struct.pack("<8I", *compress(IV, left + right, 0, 64, PARENT | (ROOT if root else 0)))


def left_units(count):
    """The greatest power of two below `count`: how many of the leaves are in the left subtree."""
    return 1 << (count - 1).bit_length() - 1


def subtree_value(data, first_chunk, root):
    if len(data) <= CHUNK:
        return chunk_value(data, first_chunk, root)
    left = left_units(-(-len(data) // CHUNK))
    return parent_value(subtree_value(data[:left * CHUNK], first_chunk, False),
                        subtree_value(data[left * CHUNK:], first_chunk + left, False), root)


# ---- groups (section 10) --------------------------------------------------------------------------------------------

class Blob:
    def __init__(self, data):
        self.data, self.count, self.parents = data, -(-len(data) // GROUP), {}
        self.root = self.value(0, self.count, True)
        assert self.root == blake3.blake3(data).digest()

    def group(self, at):
        return self.data[at * GROUP:(at + 1) * GROUP]

    def value(self, first, count, root):
        if count <= 1:
            return subtree_value(self.group(first), first * (GROUP // CHUNK), root)
        left = left_units(count)
        pair = self.value(first, left, False) + self.value(first + left, count - left, False)
        self.parents[first, count] = pair
        return parent_value(pair[:32], pair[32:], root)

    def outboard(self):
        return b"".join(piece[1] for piece in self.pieces([(0, OPEN_END)]) if piece[0] == "parent")

    def pieces(self, wanted):
        """The pieces of the wanted groups, in the order on the wire: (kind, bytes, offset)."""

        def walk(first, count, outboard):
            if not any(start < first + count and first < end for start, end in wanted):
                return
            if count == 1:
                yield "leaf", self.group(first), first * GROUP
                return
            yield "parent", self.parents[first, count], outboard * 64
            left = left_units(count)
            yield from walk(first, left, outboard + 1)
            yield from walk(first + left, count - left, outboard + left)

        if self.count:
            yield from walk(0, self.count, 0)


def sample(size):
    """Byte i is i modulo 251, as in the vectors of BLAKE3 itself."""
    return bytes(range(251)) * (size // 251) + bytes(range(size % 251))


def groups_vectors():
    sizes = [1, 1024, 1025, GROUP - 1, GROUP, GROUP + 1, 2 * GROUP, 3 * GROUP, 5 * GROUP + 777]
    blobs = {size: Blob(sample(size)) for size in sizes}
    valid = []
    for size, blob in blobs.items():
        last = blob.count - 1
        requests = [[(0, OPEN_END)], [(0, 1)], [(last, last + 1)], [(last + 1, last + 9)]]
        requests += [[(1, 2), (3, 4)], [(0, 1), (last, OPEN_END)]] if blob.count > 2 else []
        for wanted in requests:
            pieces = list(blob.pieces(wanted))
            encoded = b"".join(piece[1] for piece in pieces)
            valid.append({
                "size": size, "hash": blob.root.hex(), "groups": wanted, "outboard": blob.outboard().hex(),
                "pieces": [{kind: offset, "len": len(data)} for kind, data, offset in pieces],
                "encoded_len": len(encoded), "encoded_hash": blake3.blake3(encoded).hexdigest(),
            })
    return {
        "about": "Encodings of groups. Byte i of a blob is i modulo 251. A refused stream is the encoding of all groups of "
                 "such a blob of `size` bytes, in which the byte at `at` is xored with `xor`, and zeros behind it; the "
                 "decoder believes `claimed`, takes `accepted` pieces and refuses the next (or the claim itself).",
        "valid": valid,
        "refused": refused_groups(blobs),
    }


def refused_groups(blobs):
    cases = []

    def case(why, size, claimed, accepted, error, at=None, xor=0):
        cases.append({"why": why, "size": size, "hash": blobs[size].root.hex(), "claimed": claimed, "at": at, "xor": xor,
                      "accepted": accepted, "error": error})

    five = 5 * GROUP + 777
    lens = [len(data) for _, data, _ in blobs[five].pieces([(0, OPEN_END)])]
    kinds = [kind for kind, _, _ in blobs[five].pieces([(0, OPEN_END)])]
    for at, kind in enumerate(kinds):
        error = "WrongParent" if kind == "parent" else "WrongLeaf"
        start = sum(lens[:at])
        case(f"the first bit of piece {at} is changed", five, five, at, error, start, 1)
        case(f"the last bit of piece {at} is changed", five, five, at, error, start + lens[at] - 1, 128)
    case("one byte too many is claimed of one group", GROUP - 1, GROUP, 0, "WrongLeaf")
    case("one byte too few is claimed of one group", GROUP, GROUP - 1, 0, "WrongLeaf")
    case("two groups are claimed of one", GROUP, GROUP + 1, 0, "WrongParent")
    case("one group is claimed of two", GROUP + 1, GROUP, 0, "WrongLeaf")
    case("eight groups are claimed of six, of which the first four have the same tree", five, 8 * GROUP, 9, "WrongParent")
    for claimed in (1 << 40, 3 << 40, MAX_BLOB_SIZE):
        # The left edge of the true tree has three parents (six, four and two groups); below them come leaves.
        case(f"{claimed} bytes are claimed", five, claimed, 3, "WrongParent")
    case("more is claimed than any blob has", five, MAX_BLOB_SIZE + 1, 0, "TooLarge")
    case("no bytes are claimed", 1, 0, 0, "NotEmpty")
    return cases


# ---- values of section 1 --------------------------------------------------------------------------------------------

def string(text):
    data = text if isinstance(text, bytes) else text.encode()
    return u64(len(data)) + data


def ranges(pairs):
    return u64(len(pairs)) + b"".join(u64(start) + u64(end) for start, end in pairs)


def digest(text):
    return blake3.blake3(text.encode()).digest()


EMPTY = digest("")

# ---- paths and manifests (sections 6 and 7) -------------------------------------------------------------------------

SAFE = ["a", "a/b/c.txt", ".hidden", "...and more", "cont/ent", "console", "com10", "COM", "nulls.txt", " leading",
        "What? <x> \"y\" | *", "日本語/ファイル.txt", "straße", "é", "👩\u200d👩\u200d👧 ❤\ufe0f.png", "~", "x" * 255,
        "x/" * 2047 + "xx"]
UNSAFE = [
    ("", "Empty"), ("x/" * 2048 + "x", "TooLong"), ("/etc/passwd", "Absolute"), ("//server/share", "Absolute"),
    ("a//b", "EmptyComponent"), ("a/", "EmptyComponent"), ("x" * 256, "ComponentTooLong"),
    ("é" * 128, "ComponentTooLong"), ("..", "Traversal"), ("../x", "Traversal"), ("a/../b", "Traversal"),
    (".", "Traversal"), ("./a", "Traversal"), ("C:", "Character"), ("C:/x", "Character"), ("a:b", "Character"),
    ("..\\x", "Character"), ("\\\\server\\x", "Character"), ("a\0b", "Character"), ("a\x1b[2J", "Character"),
    ("a\nb", "Character"), ("a\x7f", "Character"), ("a\x9b2J", "Character"), ("a\u202egpj.exe", "Character"),
    ("a\u2066b", "Character"), ("a\u061cb", "Character"), ("a\u200bb", "Character"), ("\ufeffa", "Character"),
    ("a\u2028b", "Character"), ("a\U000e0041b", "Character"), ("CON", "Reserved"), ("con.txt", "Reserved"),
    ("a/NUL", "Reserved"), ("aux/b", "Reserved"), ("COM1", "Reserved"), ("com1.log", "Reserved"), ("COM0", "Reserved"),
    ("LPT9", "Reserved"), ("com¹", "Reserved"), ("LPT³.x", "Reserved"), ("CONIN$", "Reserved"), ("nul .x", "Reserved"),
    ("a.", "TrailingDotOrSpace"), ("a /b", "TrailingDotOrSpace"), ("e\u0301", "NotNormalized"),
]
SAME = [("README", "readme"), ("STRASSE", "straße"), ("ﬁle", "file"), ("Ａ", "a"), ("a\u200db", "ab"), ("É", "é"),
        ("x²", "x2"), ("\u212a", "k")]
MAGIC = b"keyferry-coll-1\n"


def fold(text):
    """D146 of the Unicode standard, by Python's own tables."""
    ignored = {0xAD, 0x34F, 0x200C, 0x200D, *range(0x180B, 0x1810), *range(0xFE00, 0xFE10)}
    text = "".join(c for c in text if ord(c) not in ignored)
    step = unicodedata.normalize("NFKD", unicodedata.normalize("NFD", text).casefold())
    return unicodedata.normalize("NFKD", step.casefold())


def entry(path, size, hash_, executable=False):
    return string(path) + u64(size) + hash_ + bytes([executable])


def manifest(*entries):
    return MAGIC + u64(len(entries)) + b"".join(entries)


def manifest_vectors():
    assert all(fold(one) == fold(other) for one, other in SAME)
    one, two = digest("one"), digest("two")
    lists = [
        [], [("a", 0, EMPTY, False)], [("run.sh", 3, one, True)],
        [("B", 1, one, False), ("a.txt", 5, two, False), ("a/b/c", 1, one, True), ("é", 0, EMPTY, False)],
        [("big", MAX_BLOB_SIZE, two, False)],
    ]
    valid = []
    for files in lists:
        data = manifest(*(entry(*file) for file in files))
        valid.append({
            "entries": [{"path": path, "size": size, "hash": hash_.hex(), "executable": executable}
                        for path, size, hash_, executable in files],
            "total_size": sum(size for _, size, _, _ in files), "bytes": data.hex(),
            "hash": blake3.blake3(data).hexdigest(),
        })
    good = manifest(entry("a", 3, one))
    refused = [("nothing at all", b"", "Magic"), ("another mark", b"x" + good[1:], "Magic"),
               ("another version", good.replace(b"-1\n", b"-2\n"), "Magic"), ("cut short", good[:-1], "Codec"),
               ("no count", MAGIC, "Codec"), ("a byte too many", good + b"\0", "Codec(TrailingBytes"),
               ("a bool of 2", good[:-1] + b"\2", "Codec"), ("a path that is not UTF-8", manifest(entry(b"\xff", 3, one)), "Codec"),
               ("2^40 entries", MAGIC + u64(1 << 40) + good[24:], "Codec"),
               ("2^64 - 1 entries", MAGIC + u64(OPEN_END), "Codec"),
               ("a path of 2^40 bytes", MAGIC + u64(1) + u64(1 << 40) + b"x", "Codec"),
               ("not sorted", manifest(entry("b", 3, one), entry("a", 3, one)), "Unsorted"),
               ("sorted without regard to case", manifest(entry("a", 3, one), entry("B", 3, one)), "Unsorted"),
               ("the same path twice", manifest(entry("a", 3, one), entry("a", 3, one)), "Duplicate"),
               ("a file that is a folder too", manifest(entry("a", 3, one), entry("a!", 3, one), entry("a/b", 3, one)), "FileAndFolder"),
               ("folders that differ in case", manifest(entry("A/x", 3, one), entry("a/y", 3, one)), "Clash"),
               ("a file and a folder that differ in case", manifest(entry("A", 3, one), entry("a/y", 3, one)), "Clash"),
               ("no bytes with a hash of some", manifest(entry("a", 0, one)), "Emptiness"),
               ("some bytes with the hash of none", manifest(entry("a", 1, EMPTY)), "Emptiness"),
               ("one hash with two sizes", manifest(entry("a", 1, one), entry("b", 2, one)), "TwoSizes"),
               ("a file larger than any", manifest(entry("a", MAX_BLOB_SIZE + 1, one)), "FileTooLarge"),
               ("a file of 2^64 - 1 bytes", manifest(entry("a", OPEN_END, one)), "FileTooLarge"),
               ("more bytes in all than allowed", manifest(*(entry(f"{at:02}", MAX_BLOB_SIZE, one) for at in range(65))), "TotalTooLarge")]
    refused += [(f"the path is not safe: {error}", manifest(entry(path, 3, one)), "Path") for path, error in UNSAFE]
    refused += [("two names that fold to one", manifest(*(entry(path, 3, one) for path in sorted(pair, key=str.encode))), "Clash")
                for pair in SAME if all(unicodedata.is_normalized("NFC", path) for path in pair)]
    return {
        "about": "Paths and manifests. `same` are pairs of names that fold to one.",
        "safe_paths": SAFE,
        "unsafe_paths": [{"path": path, "error": error} for path, error in UNSAFE],
        "same": SAME,
        "valid": valid,
        "refused": [{"why": why, "bytes": data.hex(), "error": error} for why, data, error in refused],
    }


# ---- frames and messages (sections 8 and 9) -------------------------------------------------------------------------

def written(data):
    return {"bytes": data.hex()} if any(data) or not data else {"zeros": len(data)}


def message_vectors():
    hello = struct.pack("<H", 2) + u64(5) + string("keyferry/0.1.0")
    hello_fields = {"version": 2, "features": 5, "agent": "keyferry/0.1.0"}
    root = digest("root")
    # A signed entry is a string of bytes in a message; its inside is section 5's business.
    signed = bytes(range(100))
    entry_value = u64(len(signed)) + signed

    def content(pairs):
        return u32(3) + root + ranges(pairs)

    valid = [
        ("Request", {"Control": hello_fields}, u32(0) + hello),
        ("Request", {"Resolve": "holiday"}, u32(1) + string("holiday")),
        ("Request", "Catalogue", u32(2)),
        ("Request", {"Content": {"root": root.hex(), "ranges": [[0, OPEN_END]]}}, content([(0, OPEN_END)])),
        ("Request", {"Content": {"root": root.hex(), "ranges": [[1, 2], [3, 10]]}}, content([(1, 2), (3, 10)])),
        ("ControlMessage", {"Hello": hello_fields}, u32(0) + hello),
        ("ControlMessage", {"Ping": 7}, u32(1) + u64(7)),
        ("ControlMessage", {"Pong": 1 << 63}, u32(2) + u64(1 << 63)),
        *(("ControlMessage", {"Goodbye": reason}, u32(3) + u32(at))
          for at, reason in enumerate(["Finished", "Stopping", "Busy", "Protocol", "Idle"])),
        ("ResolveReply", {"Found": signed.hex()}, u32(0) + entry_value),
        ("ResolveReply", "NotFound", u32(1)),
        ("ResolveReply", {"Refused": "Busy"}, u32(2) + u32(1)),
        ("CatalogueReply", {"Entry": signed.hex()}, u32(0) + entry_value),
        ("CatalogueReply", {"End": 12}, u32(1) + u64(12)),
        ("CatalogueReply", {"Refused": "Policy"}, u32(2) + u32(3)),
        ("ContentReply", {"Header": {"format": "blob", "size": 9}}, u32(0) + u32(0) + u64(9)),
        ("ContentReply", {"Header": {"format": "collection", "size": MAX_BLOB_SIZE}}, u32(0) + u32(1) + u64(MAX_BLOB_SIZE)),
        *(("ContentReply", {"Refused": reason}, u32(1) + u32(at))
          for at, reason in enumerate(["NotFound", "Busy", "Changed", "Policy", "Gone", "Unreadable"])),
    ]
    bad_hello = struct.pack("<H", 2) + u64(0)
    refused = [
        ("Request", "no bytes", b"", "Codec"),
        ("Request", "a variant that is none", u32(4), "Codec"),
        ("Request", "a byte too many", u32(2) + b"\0", "Codec(TrailingBytes"),
        ("Request", "more bytes than allowed", bytes(65_537), "Codec(TooLong"),
        ("Request", "a name that is no safe path", u32(1) + string("../x"), "Codec"),
        ("Request", "no ranges", content([]), "NoRanges"),
        ("Request", "an empty range", content([(5, 5)]), "Codec"),
        ("Request", "a range that ends before it starts", content([(6, 5)]), "Codec"),
        ("Request", "ranges that are not sorted", content([(6, 8), (0, 5)]), "Codec"),
        ("Request", "ranges that overlap", content([(0, 5), (4, 6)]), "Codec"),
        ("Request", "ranges that touch", content([(0, 5), (5, 6)]), "Codec"),
        ("Request", "2049 ranges", content([(at * 2, at * 2 + 1) for at in range(2049)]), "Codec"),
        ("Request", "2^40 ranges", u32(3) + root + u64(1 << 40), "Codec"),
        ("Request", "a program name with an escape character", u32(0) + bad_hello + string("\x1b[2J"), "Agent"),
        ("Request", "a program name of 129 bytes", u32(0) + bad_hello + string("x" * 129), "Agent"),
        ("Request", "a program name that is not ASCII", u32(0) + bad_hello + string("é"), "Agent"),
        ("ControlMessage", "a reason that is none", u32(3) + u32(5), "Codec"),
        ("ControlMessage", "a program name of 129 bytes", u32(0) + bad_hello + string("x" * 129), "Agent"),
        ("ControlMessage", "more bytes than allowed", bytes(4097), "Codec(TooLong"),
        ("ResolveReply", "an entry that is too short for a signature", u32(0) + string("x" * 63), "Codec"),
        ("ResolveReply", "an entry of 2^40 bytes", u32(0) + u64(1 << 40), "Codec"),
        ("CatalogueReply", "more bytes than allowed", bytes(5000), "Codec(TooLong"),
        ("ContentReply", "a size above 2^50", u32(0) + u32(0) + u64(MAX_BLOB_SIZE + 1), "Size"),
        ("ContentReply", "a size of 2^64 - 1", u32(0) + u32(0) + u64(OPEN_END), "Size"),
        ("ContentReply", "a format that is none", u32(0) + u32(2) + u64(1), "Codec"),
        ("ContentReply", "a refusal that is none", u32(1) + u32(6), "Codec"),
    ]
    frames = [
        {"why": "none", "stream": "", "limit": 10, "bodies": [], "error": None},
        {"why": "one", "stream": (u32(3) + b"abc").hex(), "limit": 3, "bodies": [b"abc".hex()], "error": None},
        {"why": "an empty one and another", "stream": (u32(0) + u32(1) + b"x").hex(), "limit": 3,
         "bodies": ["", b"x".hex()], "error": None},
        {"why": "one above the limit", "stream": (u32(4) + b"abcd").hex(), "limit": 3, "bodies": [], "error": "TooLong"},
        {"why": "4 GiB", "stream": u32(0xFFFFFFFF).hex(), "limit": 1 << 16, "bodies": [], "error": "TooLong"},
        {"why": "the end within a length", "stream": u32(3)[:2].hex(), "limit": 3, "bodies": [], "error": "Truncated"},
        {"why": "the end within a body", "stream": (u32(1) + b"x" + u32(3) + b"ab").hex(), "limit": 3,
         "bodies": [b"x".hex()], "error": "Truncated"},
    ]
    status = {"0": "Data", "1": "NotFound", "2": "Busy", "3": "Changed", "4": "Policy", "5": "Gone", "6": "Unreadable",
              "7": None, "255": None}
    return {
        "about": "Bodies of frames, frames, and the status bytes of items. `zeros` stands for so many zero bytes.",
        "valid": [{"type": kind, "message": fields, "bytes": data.hex()} for kind, fields, data in valid],
        "refused": [{"type": kind, "why": why, **written(data), "error": error} for kind, why, data, error in refused],
        "frames": frames,
        "status": status,
    }


if __name__ == "__main__":
    sys.exit(write({"manifest": manifest_vectors, "message": message_vectors, "groups": groups_vectors}))
