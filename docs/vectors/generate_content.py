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
    marked = []
    for size, holes in ((2 * GROUP, [1]), (3 * GROUP + 5, [0, 1, 2]), (5 * GROUP + 777, [1, 2, 5])):
        blob = Blob(with_holes(sample(size), holes))
        for wanted in ([(0, OPEN_END)], [(1, 3)]):
            pieces = list(blob.pieces(wanted))
            encoded = b"".join(mark(kind, data) for kind, data, _ in pieces)
            marked.append({
                "size": size, "holes": holes, "hash": blob.root.hex(), "groups": wanted,
                "outboard": blob.outboard().hex(),
                "pieces": [{kind: offset, "len": len(data)} for kind, data, offset in pieces],
                "encoded_len": len(encoded), "encoded_hash": blake3.blake3(encoded).hexdigest(),
            })
    return {
        "about": "Encodings of groups. Byte i of a blob is i modulo 251. A refused stream is the encoding of all groups of "
                 "such a blob of `size` bytes, in which the byte at `at` is xored with `xor`, and zeros behind it; the "
                 "decoder believes `claimed`, takes `accepted` pieces and refuses the next (or the claim itself). "
                 "In `marked` the groups that are `holes` are zeros, and leaves have marks.",
        "valid": valid,
        "marked": marked,
        "refused": refused_groups(blobs),
    }


def with_holes(data, holes):
    data = bytearray(data)
    for group in holes:
        end = min(len(data), (group + 1) * GROUP)
        data[group * GROUP:end] = bytes(end - group * GROUP)
    return bytes(data)


def mark(kind, data):
    """A piece as it is sent with marks."""
    if kind == "parent":
        return data
    return bytes([1]) + data if any(data) else bytes([0])


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
MAGIC = b"keyferry-coll-2\n"


def fold(text):
    """D146 of the Unicode standard, by Python's own tables."""
    ignored = {0xAD, 0x34F, 0x200C, 0x200D, *range(0x180B, 0x1810), *range(0xFE00, 0xFE10)}
    text = "".join(c for c in text if ord(c) not in ignored)
    step = unicodedata.normalize("NFKD", unicodedata.normalize("NFD", text).casefold())
    return unicodedata.normalize("NFKD", step.casefold())


def i64(number):
    return struct.pack("<q", number)


def named(kind, depth, name):
    return bytes([kind, depth, len(name)]) + name


def folder(depth, name, modified=0, private=False):
    return named(32 if private else 0, depth, name) + i64(modified)


def file(depth, name, size, hash_, modified=0, executable=False, private=False):
    flags = (16 if executable else 0) + (32 if private else 0)
    return named(1 + flags, depth, name) + i64(modified) + u64(size) + hash_


def link(depth, name, target):
    return named(2, depth, name) + struct.pack("<H", len(target)) + target


def manifest(*entries, modified=0, private=False):
    return MAGIC + bytes([32 if private else 0]) + i64(modified) + u32(len(entries)) + b"".join(entries)


def described(kind, depth, name, **more):
    """An entry, and what it is in words."""
    made = {"folder": folder, "file": file, "link": link}[kind](depth, name, **more)
    words = {key.rstrip("_"): value.hex() if isinstance(value, bytes) else value for key, value in more.items()}
    return made, {"kind": kind, "depth": depth, "name": name.hex(), **words}


def manifest_vectors():
    assert all(fold(one) == fold(other) for one, other in SAME)
    one, two = digest("one"), digest("two")
    early, late = -(1 << 63), (1 << 63) - 1
    lists = [
        ([], {}), ([], {"modified": 1_700_000_000_123_456_789, "private": True}),
        ([described("file", 0, b"a", size=0, hash_=EMPTY)], {}),
        ([described("file", 0, b"run.sh", size=3, hash_=one, modified=-1, executable=True, private=True)], {}),
        ([described("folder", 0, b"B", modified=early), described("file", 1, b"x", size=1, hash_=one),
          described("file", 0, b"a.txt", size=5, hash_=two, modified=late),
          described("folder", 0, b"b", private=True), described("folder", 1, b"c"),
          described("link", 2, b"up", target=b"../../B/x"), described("file", 1, b"c.x", size=1, hash_=one),
          described("link", 0, b"l", target=b"./nowhere//to be found/"), described("file", 0, "é".encode(), size=0, hash_=EMPTY)], {}),
        ([described("file", 0, name, size=0, hash_=EMPTY)
          for name in sorted([b"%3A", b"...", b"12:30\r\n", b"AUX", b"\x01\x1b[2J", b"a\\b", b"caf\xe9", b"con.txt ", b"x" * 255])], {}),
        ([described("file", 0, b"big", size=MAX_BLOB_SIZE, hash_=two)], {}),
    ]
    valid = []
    for entries, root in lists:
        data = manifest(*(made for made, _ in entries), **root)
        valid.append({
            "root": {"modified": 0, "private": False, **root}, "entries": [words for _, words in entries],
            "total_size": sum(words.get("size", 0) for _, words in entries), "bytes": data.hex(),
            "hash": blake3.blake3(data).hexdigest(),
        })
    good = manifest(file(0, b"a", 3, one))
    deep = [folder(at, b"d") for at in range(65)]
    refused = [("nothing at all", b"", "Magic"), ("another mark", b"x" + good[1:], "Magic"),
               ("the version before", good.replace(b"-2\n", b"-1\n"), "Former"), ("another version", good.replace(b"-2\n", b"-3\n"), "Magic"),
               ("cut short", good[:-1], "Truncated"), ("nothing behind the mark", MAGIC, "Truncated"),
               ("a byte too many", good + b"\0", "TrailingBytes"), ("2^32 - 1 entries", good[:25] + u32(0xFFFFFFFF) + good[29:], "Truncated"),
               ("a shared folder that is executable", good[:16] + b"\x10" + good[17:], "Kind"),
               ("a kind that is none", manifest(named(3, 0, b"a") + i64(0)), "Kind"),
               ("a folder that is executable", manifest(named(16, 0, b"a") + i64(0)), "Kind"),
               ("a link that is private", manifest(named(34, 0, b"a") + struct.pack("<H", 1) + b"b"), "Kind"),
               ("not sorted", manifest(file(0, b"b", 3, one), file(0, b"a", 3, one)), "Unsorted"),
               ("sorted without regard to case", manifest(file(0, b"a", 3, one), file(0, b"B", 3, one)), "Unsorted"),
               ("not sorted in a folder", manifest(folder(0, b"d"), file(1, b"b", 3, one), file(1, b"a", 3, one)), "Unsorted"),
               ("the same name twice", manifest(file(0, b"a", 3, one), file(0, b"a", 3, one)), "Duplicate"),
               ("a file and a folder of one name", manifest(file(0, b"a", 3, one), folder(0, b"a")), "Duplicate"),
               ("a link and a folder of one name", manifest(link(0, b"a", b"b"), folder(0, b"a")), "Duplicate"),
               ("something in a file", manifest(file(0, b"a", 3, one), file(1, b"b", 3, one)), "NoFolder"),
               ("something in a link", manifest(link(0, b"a", b"b"), file(1, b"b", 3, one)), "NoFolder"),
               ("something in no folder", manifest(file(1, b"a", 3, one)), "NoFolder"),
               ("something two folders deeper", manifest(folder(0, b"a"), file(2, b"b", 3, one)), "NoFolder"),
               ("65 folders, one in the other", manifest(*deep), "TooDeep"),
               ("no bytes with a hash of some", manifest(file(0, b"a", 0, one)), "Emptiness"),
               ("some bytes with the hash of none", manifest(file(0, b"a", 1, EMPTY)), "Emptiness"),
               ("one hash with two sizes", manifest(file(0, b"a", 1, one), file(0, b"b", 2, one)), "TwoSizes"),
               ("a file larger than any", manifest(file(0, b"a", MAX_BLOB_SIZE + 1, one)), "FileTooLarge"),
               ("a file of 2^64 - 1 bytes", manifest(file(0, b"a", OPEN_END, one)), "FileTooLarge"),
               ("more bytes in all than allowed", manifest(*(file(0, b"%02d" % at, MAX_BLOB_SIZE, one) for at in range(65))), "TotalTooLarge")]
    refused += [(f"the name {name}", manifest(folder(0, name)), f"Name {{ at: 29, error: {error}")
                for name, error in [(b"", "Empty"), (b".", "Traversal"), (b"..", "Traversal"), (b"a/b", "Byte"), (b"/", "Byte"), (b"a\0", "Byte")]]
    refused += [(f"a link to {target} in {depth} folders", manifest(*deep[:depth], link(depth, b"l", target)), "Link")
                for target, depth in [(b"", 0), (b"..", 0), (b"/etc/passwd", 0), (b"a\0", 0), (b"a/..", 3), (b"../..", 1),
                                      (b"../a/..", 3), (b"x" * 4096, 0)]]
    return {
        "about": "Paths that are safe in the name of a share, and manifests of folders, whose names are hexadecimal. `same` are pairs of "
                 "names that fold to one.",
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
    hello = struct.pack("<H", 5) + u64(5) + string("keyferry/0.1.0")
    hello_fields = {"version": 5, "features": 5, "agent": "keyferry/0.1.0"}
    root = digest("root")
    # A signed entry is a string of bytes in a message; its inside is section 5's business.
    signed = bytes(range(100))
    entry_value = u64(len(signed)) + signed

    def content(pairs, part=0):
        return u32(3) + root + ranges(pairs) + u32(part)

    valid = [
        ("Request", {"Control": hello_fields}, u32(0) + hello),
        ("Request", {"Resolve": "holiday"}, u32(1) + string("holiday")),
        ("Request", "Catalogue", u32(2)),
        ("Request", {"Content": {"root": root.hex(), "ranges": [[0, OPEN_END]], "part": "Groups"}}, content([(0, OPEN_END)])),
        ("Request", {"Content": {"root": root.hex(), "ranges": [[1, 2], [3, 10]], "part": "Groups"}}, content([(1, 2), (3, 10)])),
        ("Request", {"Content": {"root": root.hex(), "ranges": [[0, OPEN_END]], "part": "Root"}}, content([(0, OPEN_END)], 1)),
        ("Request", {"Content": {"root": root.hex(), "ranges": [[4, 5]], "part": "Parents"}}, content([(4, 5)], 2)),
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
    bad_hello = struct.pack("<H", 5) + u64(0)
    refused = [
        ("Request", "no bytes", b"", "Codec"),
        ("Request", "a variant that is none", u32(4), "Codec"),
        ("Request", "a byte too many", u32(2) + b"\0", "Codec(TrailingBytes"),
        ("Request", "more bytes than allowed", bytes(65_537), "Codec(TooLong"),
        ("Request", "a name that is no safe path", u32(1) + string("../x"), "Codec"),
        ("Request", "no ranges", content([]), "NoRanges"),
        ("Request", "a part that is none", content([(0, 1)], 3), "Codec"),
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
              "7": "Sparse", "8": None, "255": None}
    return {
        "about": "Bodies of frames, frames, and the status bytes of items. `zeros` stands for so many zero bytes.",
        "valid": [{"type": kind, "message": fields, "bytes": data.hex()} for kind, fields, data in valid],
        "refused": [{"type": kind, "why": why, **written(data), "error": error} for kind, why, data, error in refused],
        "frames": frames,
        "status": status,
    }


if __name__ == "__main__":
    sys.exit(write({"manifest": manifest_vectors, "message": message_vectors, "groups": groups_vectors}))
