"""Reads EROFS images of our kind (not compressed) by the description of the format, and folders of a file system, into the same form:
{path: Seen}. Paths are bytes, the root's is empty."""
import collections
import hashlib
import os
import stat
import struct

BLOCK = 4096
HOLE = 0xffffffff
PREFIXES = {1: b"user.", 2: b"system.posix_acl_access", 3: b"system.posix_acl_default", 4: b"trusted.", 6: b"security."}

# mtime: (seconds, nanoseconds); device: (major, minor); content: see digest(); names: all names of the file, where it has more than one.
Seen = collections.namedtuple("Seen", "kind mode uid gid mtime xattrs target device content names")
KINDS = {stat.S_IFREG: "f", stat.S_IFDIR: "d", stat.S_IFLNK: "l", stat.S_IFCHR: "c", stat.S_IFBLK: "b", stat.S_IFIFO: "p", stat.S_IFSOCK: "s"}


def digest(size, parts):
    """Contents, holes or zeros alike: the size, and a hash of all blocks that are not zero. `parts` are (offset, bytes) in order."""
    total, block, at = hashlib.sha256(), bytearray(), 0

    def note():
        if any(block):
            total.update(struct.pack("<Q", at) + bytes(block.ljust(BLOCK, b"\0")))

    for offset, data in parts:
        while data:
            if offset // BLOCK * BLOCK != at:
                note()
                block, at = bytearray(), offset // BLOCK * BLOCK
            room = at + BLOCK - offset
            block.extend(bytes(offset - at - len(block)) + data[:room])
            offset, data = offset + len(data[:room]), data[room:]
    note()
    return size, total.hexdigest()


def with_names(files):
    """`files`: {path: (inode, Seen)}."""
    names = collections.defaultdict(list)
    for path, (inode, _) in files.items():
        names[inode].append(path)
    return {path: seen._replace(names=tuple(sorted(names[inode])) if len(names[inode]) > 1 and seen.kind != "d" else ())
            for path, (inode, seen) in files.items()}


class _Image:
    def __init__(self, path):
        self.file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.files = {}

    def take(self, offset, count):
        data = os.pread(self.file, count, offset)
        assert len(data) == count, f"nothing at {offset}+{count} of the image"
        return data

    def parts(self, size, layout, where, behind):
        """Of contents: (offset, bytes), without holes."""
        if layout == 4:
            table = (behind + 3) // 4 * 4
            chunk = BLOCK << where
            count = (size + chunk - 1) // chunk
            for number, block in enumerate(struct.unpack(f"<{count}I", self.take(table, count * 4))):
                if block != HOLE:
                    yield number * chunk, self.take(block * BLOCK, min(chunk, size - number * chunk))
            return
        inside = size % BLOCK if layout == 2 else 0
        if size > inside:
            yield 0, self.take(where * BLOCK, size - inside)
        if inside:
            yield size - inside, self.take(behind, inside)

    def xattrs(self, at, count):
        found, end = {}, at + 12 + (count - 1) * 4
        at += 12
        while at < end:
            name, prefix, value = struct.unpack("<BBH", self.take(at, 4))
            data = self.take(at + 4, name + value)
            found[PREFIXES[prefix] + data[:name]] = data[name:]
            at += (4 + name + value + 3) // 4 * 4
        return found

    def walk(self, root):
        folders = self.note(b"", root)
        while folders:
            path, listing = folders.pop()
            for start in range(0, len(listing), BLOCK):
                for name, nid in names_in(listing[start:start + BLOCK]):
                    folders += self.note(path + b"/" + name if path else name, nid)

    def note(self, path, nid):
        """Notes the file; of a folder comes back what is to be done: its path and its contents."""
        at = nid * 32
        form, xattr_count, mode, _, size, where, _, uid, gid, seconds, nanoseconds, _ = struct.unpack("<HHHHQIIIIQII", self.take(at, 64 - 16))
        assert form & 1, "not an inode of 64 bytes"
        seconds -= (1 << 64) if seconds >> 63 else 0
        layout, behind = form >> 1, at + 64 + (12 + (xattr_count - 1) * 4 if xattr_count else 0)
        kind = KINDS[stat.S_IFMT(mode)]
        contents = self.parts(size, layout, where, behind) if kind in "fdl" else ()
        text = b"".join(data for _, data in contents) if kind in "dl" else b""
        self.files[path] = nid, Seen(
            kind, stat.S_IMODE(mode), uid, gid, (seconds, nanoseconds), self.xattrs(at + 64, xattr_count) if xattr_count else {},
            text if kind == "l" else b"", (where >> 8 & 0xfff, where & 0xff | where >> 12 & 0xfff00) if kind in "cb" else None,
            digest(size, contents) if kind == "f" else None, ())
        return [(path, text)] if kind == "d" else []


def names_in(block):
    """Of a block of a folder: (name, number of the inode)."""
    rows = [struct.unpack_from("<QHBB", block, at) for at in range(0, struct.unpack_from("<H", block, 8)[0], 12)]
    for (nid, start, _, _), end in zip(rows, [row[1] for row in rows[1:]] + [len(block)]):
        name = block[start:end].rstrip(b"\0")
        if name not in (b".", b".."):
            yield name, nid


def read_image(path):
    image = _Image(path)
    try:
        image.walk(struct.unpack("<H", image.take(1024 + 14, 2))[0])
    finally:
        os.close(image.file)
    return with_names(image.files)


def read_folder(top, contents_up_to=1 << 26):
    """As the host shows it. Contents of larger files are left out."""
    top = os.fsencode(top)
    files, left = {}, [b""]
    while left:
        path = left.pop()
        full = top + b"/" + path if path else top
        status = os.lstat(full)
        kind = KINDS[stat.S_IFMT(status.st_mode)]
        content = None
        if kind == "f":
            content = status.st_size, None
            if status.st_size <= contents_up_to:
                with open(full, "rb") as file:
                    content = digest(status.st_size, [(0, file.read())])
        files[path] = status.st_ino, Seen(
            kind, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, divmod(status.st_mtime_ns, 10 ** 9),
            {os.fsencode(name): os.getxattr(full, name, follow_symlinks=False) for name in os.listxattr(full, follow_symlinks=False)},
            os.readlink(full) if kind == "l" else b"", (os.major(status.st_rdev), os.minor(status.st_rdev)) if kind in "cb" else None, content, ())
        if kind == "d":
            left += [path + b"/" + name if path else name for name in os.listdir(full)]
    return with_names(files)
