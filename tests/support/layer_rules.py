"""What layers make, by the OCI image specification ("Applying Changesets") and Python's tarfile: the reading that snug's is held against.

Whiteouts of a layer are looked at first, by themselves, since they are about lower layers only; then its entries, in their order.
"""
import os
import tarfile

from erofs_image import Seen, digest, with_names

WHITEOUT, OPAQUE = b".wh.", b".wh..wh..opq"
XATTRS = (b"user.", b"trusted.", b"security.", b"system.posix_acl_access", b"system.posix_acl_default")
KINDS = {tarfile.DIRTYPE: "d", tarfile.SYMTYPE: "l", tarfile.CHRTYPE: "c", tarfile.BLKTYPE: "b", tarfile.FIFOTYPE: "p"}


class Node:
    def __init__(self, kind="d", mode=0o755):
        self.kind, self.mode, self.uid, self.gid, self.mtime, self.xattrs = kind, mode, 0, 0, (0, 0), {}
        self.target, self.device, self.content = b"", None, None
        self.children = {}  # of a folder: name -> Node
        self.parent = None
        self.described = False  # not only asked for by a path


def seconds(text):
    """(seconds, nanoseconds) of a decimal number, towards the past."""
    whole, _, fraction = text.partition(".")
    nanoseconds = int(fraction.ljust(9, "0")[:9] or 0)
    if whole.startswith("-") and nanoseconds:
        return int(whole or 0) - 1, 10 ** 9 - nanoseconds
    return int(whole or 0), nanoseconds


def parts_of(path):
    return [part for part in path.split(b"/") if part not in (b"", b".")]


class Tree:
    def __init__(self):
        self.root = Node()
        self.root.parent = self.root

    def folder(self, parts, make):
        """Where parts lead: links are followed within the tree; what is missing is made, or the answer is None."""
        left, at = list(parts), self.root
        while left:
            part = left.pop(0)
            if part == b"..":
                at = at.parent
                continue
            child = at.children.get(part)
            if child is not None and child.kind == "l":
                left = parts_of(child.target) + left
                at = self.root if child.target.startswith(b"/") else at
                continue
            if child is None or child.kind != "d":
                if not make:
                    return None
                child = self.put(at, part, Node())
            at = child
        return at

    @staticmethod
    def put(folder, name, node):
        folder.children[name] = node
        if node.kind == "d":
            node.parent = folder
        return node

    def apply(self, layer):
        with tarfile.open(fileobj=layer, mode="r:", errors="surrogateescape") as archive:
            entries = [(os.fsencode(entry.name), entry) for entry in archive]
            for path, _ in entries:
                *parts, name = parts_of(path) or [b""]
                folder = self.folder(parts, False) if name.startswith(WHITEOUT) else None
                if folder is not None and name == OPAQUE:
                    folder.children.clear()
                elif folder is not None:
                    folder.children.pop(name[len(WHITEOUT):], None)
            for path, entry in entries:
                self.add(parts_of(path), entry, archive)

    def add(self, parts, entry, archive):
        if parts and parts[-1].startswith(WHITEOUT):
            return
        folder = self.folder(parts[:-1], True)
        if entry.islnk():
            *way, name = parts_of(os.fsencode(entry.linkname))
            self.put(folder, parts[-1], self.folder(way, False).children[name])
            return
        node = node_of(entry, archive)
        if not parts:
            old = self.root
        else:
            old = folder.children.get(parts[-1])
        if node.kind == "d" and old is not None and old.kind == "d":
            node.children, node.parent = old.children, old.parent
            for child in node.children.values():
                if child.kind == "d":
                    child.parent = node
            if not parts:
                self.root = node.parent = node
                for child in node.children.values():
                    if child.kind == "d":
                        child.parent = node
                return
        self.put(folder, parts[-1], node)

    def seen(self):
        """({path: Seen}, paths of folders that no entry describes)."""
        files, implied = {}, set()
        stack = [(b"", self.root)]
        while stack:
            path, node = stack.pop()
            files[path] = id(node), Seen(node.kind, node.mode, node.uid, node.gid, node.mtime, node.xattrs, node.target, node.device,
                                         node.content, ())
            if not node.described:
                implied.add(path)
            if node.kind == "d":
                stack.extend((path + b"/" + name if path else name, child) for name, child in node.children.items())
        return with_names(files), implied


def node_of(entry, archive):
    node = Node(KINDS.get(entry.type, "f"), entry.mode & 0o7777)
    node.described = True
    node.uid, node.gid = entry.uid, entry.gid
    node.mtime = seconds(entry.pax_headers["mtime"]) if "mtime" in entry.pax_headers else (int(entry.mtime), 0)
    for key, value in entry.pax_headers.items():
        name = os.fsencode(key.removeprefix("SCHILY.xattr."))
        if key.startswith("SCHILY.xattr.") and name.startswith(XATTRS) and not name.startswith((b"trusted.overlay.", b"user.overlay.")):
            node.xattrs[name] = os.fsencode(value)
    if node.kind == "l":
        node.target = os.fsencode(entry.linkname)
    elif node.kind in "cb":
        node.device = entry.devmajor, entry.devminor
    elif node.kind == "f":
        node.content = digest(entry.size, pieces(entry, archive))
    return node


def pieces(entry, archive):
    with archive.extractfile(entry) as file:
        for offset, size in entry.sparse if entry.sparse is not None else [(0, entry.size)]:
            file.seek(offset)
            yield offset, file.read(size)


def made_of(layers):
    """Of the tars of layers (files), from the lowest on."""
    tree = Tree()
    for layer in layers:
        tree.apply(layer)
    return tree.seen()
