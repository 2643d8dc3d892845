"""Tars of layers, byte by byte: what each dialect says of a file in its own way, and what no tool would write.

Dialects: v7, ustar (POSIX 1988), gnu (long names, base-256, sparse), pax (POSIX 2001).
"""
import gzip
import struct
import zlib

BLOCK = 512
MAGIC = {"v7": b"", "ustar": b"ustar\x0000", "gnu": b"ustar  \x00", "pax": b"ustar\x0000"}
TYPES = {"f": b"0", "h": b"1", "l": b"2", "c": b"3", "b": b"4", "d": b"5", "p": b"6"}
MODES = {"f": 0o644, "h": 0o644, "l": 0o777, "c": 0o644, "b": 0o644, "d": 0o755, "p": 0o644}
END = bytes(2 * BLOCK)


def padded(data):
    return data + bytes(-len(data) % BLOCK)


def number(value, width):
    """Octal digits; where those are too few or the number is below zero, base 256 (GNU)."""
    if isinstance(value, bytes):
        return value.ljust(width, b"\0")[:width]
    digits = b"%0*o" % (width - 1, value) if value >= 0 else b"-"
    if value >= 0 and len(digits) < width:
        return digits + b"\0"
    return bytes([0x80 if value >= 0 else 0xff]) + (value % (1 << 8 * (width - 1))).to_bytes(width - 1, "big")


def header(name, type=b"0", size=0, mode=0o644, uid=0, gid=0, mtime=0, link=b"", magic=MAGIC["ustar"], prefix=b"", device=(0, 0), rest=None):
    """One block, with its checksum. `rest` is what stands in the place of the prefix."""
    block = bytearray(BLOCK)
    for at, text in ((0, name[:100]), (100, number(mode, 8)), (108, number(uid, 8)), (116, number(gid, 8)), (124, number(size, 12)),
                     (136, number(mtime, 12)), (148, b" " * 8), (156, type), (157, link[:100]), (257, magic), (329, number(device[0], 8)),
                     (337, number(device[1], 8)), (345, prefix[:155])):
        block[at:at + len(text)] = text
    if rest is not None:
        block[345:345 + len(rest)] = rest
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(records, type=b"x"):
    """The header in front of another with these records (key, value), both bytes."""
    text = b""
    for key, value in records:
        line = b" " + key + b"=" + value + b"\n"
        length = len(line) + 1
        while len(b"%d" % length) + len(line) != length:
            length += 1
        text += b"%d" % length + line
    return header(b"PaxHeaders/x", type, len(text)) + padded(text)


def gnu_long(type, text):
    return header(b"././@LongLink", type, len(text) + 1, magic=MAGIC["gnu"]) + padded(text + b"\0")


def as_bytes(text):
    return text.encode() if isinstance(text, str) else text


class Entry:
    """A file as a tar has it. mtime is a number or, of pax, the text of one; xattrs names to bytes."""

    def __init__(self, kind, name, data=b"", *, link=b"", mode=None, uid=0, gid=0, mtime=0, device=(0, 0), xattrs=None, dialect="pax",
                 records=(), type=None):
        self.kind, self.name, self.data, self.link = kind, as_bytes(name), as_bytes(data), as_bytes(link)
        self.mode = MODES[kind] if mode is None else mode
        self.uid, self.gid, self.mtime, self.device = uid, gid, mtime, device
        self.xattrs = {as_bytes(key): as_bytes(value) for key, value in (xattrs or {}).items()}
        self.dialect, self.records, self.type = dialect, list(records), type or TYPES[kind]

    def encoded(self):
        name, link, prefix, front = self.name, self.link, b"", b""
        if self.kind == "d" and not name.endswith(b"/"):
            name += b"/"
        mtime, uid, gid = self.mtime, self.uid, self.gid
        if self.dialect == "pax":
            records = list(self.records)
            plain = [(b"path", name, 100), (b"linkpath", link, 100)]
            records += [(key, value) for key, value, most in plain if len(value) > most or not value.isascii()]
            records += [(key, b"%d" % value) for key, value in ((b"uid", uid), (b"gid", gid)) if value >= 1 << 21]
            if isinstance(mtime, str) or not 0 <= mtime < 1 << 33:
                records.append((b"mtime", str(mtime).encode()))
                mtime = 0
            records += [(b"SCHILY.xattr." + key, value) for key, value in self.xattrs.items()]
            uid, gid = (value if value < 1 << 21 else 0 for value in (uid, gid))
            front = pax(records) if records else b""
        elif self.dialect == "gnu":
            front += gnu_long(b"K", link) if len(link) > 100 else b""
            front += gnu_long(b"L", name) if len(name) > 100 else b""
        elif len(name) > 100:
            cut = name.rindex(b"/", 0, 156)
            prefix, name = name[:cut], name[cut + 1:]
            assert self.dialect == "ustar" and len(name) <= 100
        size = len(self.data) if self.kind == "f" else 0
        return front + header(name, self.type, size, self.mode, uid, gid, mtime, link, MAGIC[self.dialect], prefix, self.device) + padded(self.data)


def tar(*entries):
    """A whole one, of entries and of bytes as they are."""
    return b"".join(entry if isinstance(entry, bytes) else entry.encoded() for entry in entries) + END


# --- Sparse files: `parts` are (offset, data), `size` is that of the file. ------------------------------------
def sparse_gnu(name, size, parts, **keywords):
    """GNU's old format: four parts in the header, 21 in each block behind it."""
    kept = [number(at, 12) + number(len(data), 12) for at, data in parts]
    stored = b"".join(data for _, data in parts)
    rest = bytearray(BLOCK - 345)
    rest[41:41 + 96] = b"".join(kept[:4]).ljust(96, b"\0")
    rest[137] = len(kept) > 4
    rest[138:150] = number(size, 12)
    out = header(as_bytes(name), b"S", len(stored), magic=MAGIC["gnu"], rest=bytes(rest), **keywords)
    kept = kept[4:]
    while kept:
        out += b"".join(kept[:21]).ljust(504, b"\0") + bytes([len(kept) > 21]) + bytes(7)
        kept = kept[21:]
    return out + padded(stored)


def sparse_pax(version, name, size, parts, **keywords):
    """GNU's formats by PAX: 0.0 a record for each number, 0.1 one record for all, 1.0 in front of the contents."""
    name, stored = as_bytes(name), b"".join(data for _, data in parts)
    if version == "1.0":
        front = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", name), (b"GNU.sparse.realsize", b"%d" % size)]
        stored = padded(b"%d\n" % len(parts) + b"".join(b"%d\n%d\n" % (at, len(data)) for at, data in parts)) + stored
    else:
        front = [(b"GNU.sparse.size", b"%d" % size), (b"GNU.sparse.numblocks", b"%d" % len(parts))]
        if version == "0.1":
            front += [(b"GNU.sparse.name", name), (b"GNU.sparse.map", b",".join(b"%d,%d" % (at, len(data)) for at, data in parts))]
        else:
            for at, data in parts:
                front += [(b"GNU.sparse.offset", b"%d" % at), (b"GNU.sparse.numbytes", b"%d" % len(data))]
    shown = name if version == "0.0" else b"GNUSparseFile.0/" + name
    return pax(front) + header(shown, b"0", len(stored), **keywords) + padded(stored)


SPARSE = {"gnu": sparse_gnu, **{version: lambda *words, version=version, **keywords: sparse_pax(version, *words, **keywords)
                                for version in ("0.0", "0.1", "1.0")}}


# --- Packed -----------------------------------------------------------------------------------------------------
def zstd(data):
    """A frame of blocks that are not compressed (RFC 8878, 3.1.1)."""
    out = b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", len(data))
    blocks = [data[at:at + 65536] for at in range(0, len(data), 65536)] or [b""]
    for i, block in enumerate(blocks):
        out += struct.pack("<I", len(block) << 3 | (i + 1 == len(blocks)))[:3] + block
    return out


def halves(data):
    return data[:len(data) // 2 | 1], data[len(data) // 2 | 1:]


def gzip_with_everything(data):
    """A header with a name, a comment, more, and its own checksum (RFC 1952)."""
    front = b"\x1f\x8b\x08\x1e\0\0\0\0\0\x03" + b"\x03\0abc" + b"layer.tar\0" + b"a comment\0"
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (front + struct.pack("<H", zlib.crc32(front) & 0xffff) + packer.compress(data) + packer.flush() +
            struct.pack("<II", zlib.crc32(data), len(data) & 0xffffffff))


PACKINGS = {
    "plain": lambda data: data,
    "gzip": lambda data: gzip.compress(data, 6, mtime=0),
    "gzip-stored": lambda data: gzip.compress(data, 0, mtime=0),
    "gzip-members": lambda data: b"".join(gzip.compress(half, mtime=1) for half in halves(data)),
    "gzip-empty-members": lambda data: gzip.compress(b"") + gzip.compress(data) + gzip.compress(b""),
    "gzip-everything": gzip_with_everything,
    "gzip-zeros-behind": lambda data: gzip.compress(data) + bytes(3000),
    "zstd": zstd,
    "zstd-frames": lambda data: b"".join(zstd(half) for half in halves(data)),
    "zstd-skipped": lambda data: b"\x53\x2a\x4d\x18\x04\0\0\0skip" + zstd(data) + b"\x50\x2a\x4d\x18\0\0\0\0",
}
