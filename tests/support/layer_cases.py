"""Layers by the hundred: each dialect's way to say something, each rule of whiteouts, each kind of file over each other, and what nobody
sends who means well."""
import itertools
import struct

from layer_tar import END, PACKINGS, SPARSE, Entry, header, MAGIC, gnu_long, padded, pax, tar, zstd

DIALECTS = ("v7", "ustar", "gnu", "pax")


class Case:
    """`layers`: lists of entries and bytes, or one bytes. `fault`: the name of what refuses it, `names` what the error has to say besides.
    `umoci`: a reason why umoci has it otherwise. `packing`: of PACKINGS, for all layers. `apart`: attributes that libarchive has otherwise."""

    def __init__(self, name, *layers, fault=None, names=(), limits="", packing="plain", umoci=None, apart=()):
        self.name, self.fault, self.names, self.limits, self.packing, self.umoci, self.apart = name, fault, names, limits, packing, umoci, apart
        self.layers = [layer if isinstance(layer, bytes) else tar(*layer) for layer in layers]

    def packed(self):
        return [PACKINGS[self.packing](layer) for layer in self.layers]


def f(name, data=b"x", **keywords):
    return Entry("f", name, data, **keywords)


def d(name, **keywords):
    return Entry("d", name, **keywords)


def l(name, target, **keywords):  # noqa: E743
    return Entry("l", name, link=target, **keywords)


def h(name, target, **keywords):
    return Entry("h", name, link=target, **keywords)


def wh(name, **keywords):
    return f(name, b"", **keywords)


def node(kind, name, dialect="pax"):
    """A file of each kind by the same name; what a hard link needs is made beside it."""
    return {"file": [f(name, b"contents", mode=0o640, dialect=dialect)], "folder": [d(name, mode=0o750, dialect=dialect)],
            "full": [d(name, dialect=dialect), f(name + "/in", b"inside", dialect=dialect), d(name + "/sub", dialect=dialect)],
            "link": [l(name, "elsewhere", dialect=dialect)],
            "hard": [f(name + "-first", b"two names", dialect=dialect), h(name, name + "-first", dialect=dialect)],
            "device": [Entry("c", name, device=(1, 3), dialect=dialect)], "fifo": [Entry("p", name, dialect=dialect)]}[kind]


KINDS = ("file", "folder", "full", "link", "hard", "device", "fifo")


def kinds_by_dialect():
    for dialect in DIALECTS:
        for kind in KINDS:
            if (dialect, kind) not in (("v7", "device"), ("v7", "fifo")):
                yield Case(f"kind-{kind}-{dialect}", node(kind, "name", dialect))
        yield Case(f"empty-file-{dialect}", [f("a", b"", dialect=dialect)])
    yield Case("block-device", [Entry("b", "vda", device=(254, 16))])
    yield Case("large-device", [Entry("b", "a", device=(259, 70000)), Entry("c", "b", device=(4095, 0o1777777))])
    yield Case("contiguous", [f("a", type=b"7")], umoci="Go passes over its contents")
    yield Case("old-regular", [f("a", type=b"\0", dialect="v7")])


def long_names():
    for count, dialect in itertools.product((99, 100, 101, 155, 200, 255), ("gnu", "pax")):
        yield Case(f"name-{count}-{dialect}", [f("n" * count, dialect=dialect)])
    for count, dialect in itertools.product((99, 100, 101, 250), DIALECTS):
        if count > 100 and dialect == "v7":
            continue
        path = ("p" * 24 + "/") * 12
        yield Case(f"path-{count}-{dialect}", [f(path[:count - 1].rstrip("/").ljust(count, "e"), dialect=dialect)])
    for count, dialect in itertools.product((1000, 4000), ("gnu", "pax")):
        yield Case(f"path-{count}-{dialect}", [f(("q" * 199 + "/") * (count // 200 - 1) + "end", dialect=dialect)])
    for count, dialect in itertools.product((99, 100, 101, 1000, 4095), ("gnu", "pax")):
        yield Case(f"target-{count}-{dialect}", [l("a", "t" * count, dialect=dialect)])
    for dialect in ("gnu", "pax"):
        name = "d" * 120 + "/" + "f" * 120
        yield Case(f"long-hard-link-{dialect}", [d("d" * 120, dialect=dialect), f(name, b"long", dialect=dialect),
                                                h("e" * 150, name, dialect=dialect), h("short", name, dialect=dialect)])
        yield Case(f"long-folder-{dialect}", [d("f" * 130, mode=0o711, dialect=dialect)])
    for name in ("\u00fc", "\u65e5\u672c/\u8a9e", "a b", " a", "a ", "a\nb", "a\tb", "-rf", "a\\b", "*?[", "..a", "a..", "a.wh.b", "wh.a", ".w", "CON"):
        yield Case(f"name-{name.encode().hex()}", [f(name)])
    for name in (b"\xff", b"caf\xe9", b"\x01\x7f", b"\xc3\x28"):
        yield Case(f"bytes-{name.hex()}", [f(name, dialect="gnu"), l(b"l" + name, name, dialect="gnu")])


def numbers():
    for dialect, value in itertools.product(("ustar", "gnu", "pax"), (1, 33, 65534, 65535, 65536, 2097151)):
        yield Case(f"owner-{value}-{dialect}", [f("a", uid=value, gid=2097151 - value, dialect=dialect)])
    for dialect, value in itertools.product(("gnu", "pax"), (2097152, 1 << 31, (1 << 32) - 2)):
        yield Case(f"owner-{value}-{dialect}", [d("a", uid=value, gid=value - 1, dialect=dialect), l("b", "a", gid=value, dialect=dialect)])
    for mode in (0, 0o1, 0o400, 0o4711, 0o2755, 0o6555, 0o1777, 0o7777):
        yield Case(f"mode-{mode:o}", [f("a", mode=mode), d("b", mode=mode | 0o700), Entry("p", "c", mode=mode)])
    for dialect, value in itertools.product(("ustar", "gnu", "pax"), (1, 1000000000, (1 << 31) - 1, 1 << 31, (1 << 33) - 1)):
        yield Case(f"time-{value}-{dialect}", [f("a", mtime=value, dialect=dialect)])
    for dialect, value in itertools.product(("gnu", "pax"), (-1, -86400, -(1 << 31), 1 << 33)):
        yield Case(f"time-{value}-{dialect}", [f("a", mtime=value, dialect=dialect), l("b", "a", mtime=value, dialect=dialect)])
    for text in ("0.1", "0.000000001", "1700000000.999999999", "1.5", "7.", "8.0", "9.100", "1.1234567891234", "-0.5", "-1.25", "-2.000000001"):
        # libarchive reads -1.25 as it writes it: as a quarter of a second after -1.
        yield Case(f"time-{text}", [f("a", mtime=text), d("b", mtime=text), l("c", "a", mtime=text)], apart=("mtime",) if text.startswith("-") else ())
    size = header(b"a", size=b"\x80" + (5).to_bytes(11, "big"), magic=MAGIC["gnu"]) + padded(b"hello")
    yield Case("size-base256", [size])
    yield Case("size-pax", [pax([(b"size", b"5")]) + header(b"a", size=5) + padded(b"hello")])
    yield Case("size-pax-alone", [pax([(b"size", b"5")]) + header(b"a", size=0) + padded(b"hello"), f("b")])
    for count in (1, 511, 512, 513, 4095, 4096, 4097, 65536, 200000):
        yield Case(f"contents-{count}", [f("a", bytes(i * 7 % 251 for i in range(count)))])
    yield Case("contents-zeros", [f("a", bytes(300000))])


CAPABILITY2 = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
CAPABILITY3 = struct.pack("<IIIIII", 0x03000001, 1 << 13, 0, 0, 0, 1000)


def acl(*entries):
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, permissions, who) for tag, permissions, who in entries)


ACCESS = acl((1, 6, 0xffffffff), (2, 4, 1000), (4, 4, 0xffffffff), (16, 4, 0xffffffff), (32, 4, 0xffffffff))
DEFAULT = acl((1, 7, 0xffffffff), (4, 5, 0xffffffff), (8, 7, 33), (16, 7, 0xffffffff), (32, 5, 0xffffffff))


NO_EMPTY = "Go takes an empty record for none"


def xattrs():
    for name, value in (("user.a", "value"), ("user.empty", ""), ("user.bytes", bytes(range(256))), ("user.eq", "a=b\n=c"), ("user.long", "v" * 3000),
                        ("user." + "n" * 250, "v"), ("user.\u00fc", "\u00fc"), ("user.with space", "1"), ("trusted.a", "t"),
                        ("security.capability", CAPABILITY2), ("security.selinux", b"system_u:object_r:etc_t:s0\0")):
        for kind in "fd":
            yield Case(f"xattr-{name[:20]}-{kind}", [Entry(kind, "a", xattrs={name: value})],
                       umoci="it leaves labels to the host" if name == "security.selinux" else NO_EMPTY if value == "" else None)
    yield Case("capability-3", [f("a", xattrs={"security.capability": CAPABILITY3})],
               umoci="the host's kernel may show it as another version")
    yield Case("acl-file", [f("a", mode=0o644, xattrs={"system.posix_acl_access": ACCESS})])
    yield Case("acl-folder", [d("a", mode=0o755, xattrs={"system.posix_acl_default": DEFAULT})])
    yield Case("xattr-many", [f("a", xattrs={f"user.{i}": "v" * i for i in range(1, 60)})])
    yield Case("xattr-link", [l("a", "b", xattrs={"trusted.a": "1"})])
    yield Case("xattr-device", [Entry("c", "a", device=(1, 5), xattrs={"trusted.a": "1"})])
    yield Case("xattr-hard-link", [f("a", xattrs={"user.a": "1"}), h("b", "a")])
    yield Case("xattr-of-a-driver", [d("a", xattrs={"trusted.overlay.opaque": "y", "user.b": "1"})], umoci="it keeps what overlayfs would take for its own")
    yield Case("xattr-of-another-system", [f("a", xattrs={"com.apple.x": "1", "user.b": "2"})], umoci="it fails")
    yield Case("xattr-replaced-above", [f("a", xattrs={"user.a": "1", "user.b": "1"})], [f("a", xattrs={"user.b": "2"})])
    yield Case("xattr-of-a-folder-above", [d("a", xattrs={"user.a": "1"}), f("a/b")], [d("a", xattrs={"user.b": "2"})],
               umoci="it adds to what the folder had")
    yield Case("xattr-removed-of-a-folder", [d("a", xattrs={"user.a": "1"})], [d("a")], umoci="it leaves what the folder had")
    yield Case("pax-vendor-keys", [f("a", records=[(b"VENDOR.x", b"y"), (b"comment", b"z"), (b"ctime", b"1.5"), (b"atime", b"-3")])])
    yield Case("pax-global-comment", [pax([(b"comment", b"0123456789abcdef")], b"g"), f("a")], umoci="it fails")


def sparse():
    big = 1 << 30
    shapes = {"front": (9000, [(8192, b"end" * 100)]), "end": (200000, [(0, b"start")]), "none": (1000, [(0, b"y" * 1000)]),
              "all": (300000, [(300000, b"")]), "middle": (100000, [(0, b"a" * 4096), (90112, b"b" * 9888)]),
              "odd": (70001, [(13, b"c" * 7), (513, b"d"), (4097, b"e" * 5000), (70000, b"f")]),
              "many": (400000, [(i * 8192, b"%05d" % i) for i in range(30)]), "more": (1000000, [(i * 10000 + i, b"g" * (i + 1)) for i in range(80)]),
              "zero-part": (50000, [(0, b"h"), (50000, b"")]), "gigabyte": (big, [(big - 10, b"0123456789")]), "touching": (20, [(0, b"i" * 10), (10, b"j" * 10)])}
    for (shape, (size, parts)), version in itertools.product(shapes.items(), SPARSE):
        # A reader of one dialect has these in its own way: the map may end in a part of nothing.
        yield Case(f"sparse-{shape}-{version}", [f("before"), SPARSE[version]("a", size, parts, mtime=5), f("c")],
                   umoci="it does not know GNU's old format" if version == "gnu" else "it would write gigabytes" if size == big else None)
    yield Case("sparse-long-name-1.0", [SPARSE["1.0"]("s" * 200, 10000, [(5000, b"x")])])
    yield Case("sparse-long-name-gnu", [gnu_long(b"L", b"s" * 200) + SPARSE["gnu"]("cut", 10000, [(5000, b"x")])],
               umoci="it does not know GNU's old format")


def packings():
    entries = [d("a"), f("a/b", b"contents " * 5000), l("c", "a/b"), h("d", "a/b")]
    for packing in PACKINGS:
        yield Case(f"packed-{packing}", entries, [wh("c"), f("e")], packing=packing)
    yield Case("no-end", tar(f("a"))[:-len(END)])
    yield Case("one-block-at-the-end", tar(f("a"))[:-512])
    yield Case("ends-with-its-contents", tar(f("a", b"hello"))[:517])
    yield Case("ends-with-its-contents-packed", tar(f("a", b"hello"))[:517], tar(f("b"), f("c", b"y" * 5000))[:1536 + 5000], packing="gzip")
    yield Case("behind-the-end", [f("a")], tar(f("b")) + b"\1" * 5000)
    yield Case("padded-to-ten-kilobytes", tar(f("a")).ljust(10240, b"\0"))


def whiteouts():
    for kind in KINDS:
        low = [d("top"), *node(kind, "top/x"), f("top/stays")]
        new = f("top/x", b"new", mode=0o600)
        yield Case(f"hidden-{kind}", low, [wh("top/.wh.x")])
        yield Case(f"hidden-{kind}-then-new", low, [wh("top/.wh.x"), new])
        yield Case(f"new-then-hidden-{kind}", low, [new, wh("top/.wh.x")], umoci="it takes what stood before for the layer's own, type and all" if kind == "full" else None)
        yield Case(f"hidden-{kind}-with-its-folder", low, [wh(".wh.top")])
        yield Case(f"opaque-over-{kind}", low, [d("top", mode=0o711), wh("top/.wh..wh..opq"), f("top/new")])
        yield Case(f"opaque-behind-over-{kind}", low, [d("top", mode=0o711), f("top/new"), wh("top/.wh..wh..opq")])
        yield Case(f"hidden-{kind}-then-back", low, [wh("top/.wh.x")], [d("top/x"), f("top/x/again")])
        yield Case(f"opaque-keeps-new-{kind}", low, [*node(kind, "top/mine"), wh("top/.wh..wh..opq")])
    deep = [d("a"), d("a/b"), d("a/b/c"), f("a/b/c/d"), f("a/b/e"), f("a/f")]
    yield Case("deep-hidden", deep, [wh("a/b/c/.wh.d")])
    yield Case("deep-opaque", deep, [wh("a/b/.wh..wh..opq"), f("a/b/new")])
    yield Case("deep-opaque-twice", deep, [wh("a/b/.wh..wh..opq"), f("a/b/c/new"), wh("a/b/.wh..wh..opq")])
    yield Case("opaque-below-and-above", deep, [wh("a/b/c/.wh..wh..opq"), wh("a/.wh..wh..opq"), f("a/b/c/n")])
    yield Case("opaque-root", deep, [wh(".wh..wh..opq"), f("n")])
    yield Case("hidden-in-three-layers", deep, [wh("a/b/.wh.c")], [d("a/b/c", mode=0o700)], [wh("a/.wh.b"), f("a/g")])
    yield Case("hides-nothing", deep, [wh("a/.wh.none"), wh("none/.wh.x"), wh("a/f/.wh.x"), wh("none/.wh..wh..opq")])
    yield Case("hides-in-the-lowest", [wh(".wh.a"), f("a"), wh("d/.wh..wh..opq"), f("d/x")])
    yield Case("marker-is-a-folder", deep, [d("a/.wh.b")])
    yield Case("marker-is-a-link", deep, [l("a/.wh.b", "x")])
    yield Case("marker-with-contents", deep, [f("a/.wh.b", b"contents")])
    yield Case("marker-gnu", deep, [wh("a/.wh.b", dialect="gnu")])
    yield Case("marker-long", [f("n" * 250)], [wh(".wh." + "n" * 250)])
    yield Case("hidden-dots", [f(".profile"), f("..."), f("..x")], [wh(".wh..profile"), wh(".wh...x")])
    yield Case("hidden-one-name-of-two", [f("a", b"two"), h("b", "a")], [wh(".wh.a")])
    yield Case("hidden-with-dot-path", deep, [wh("./a/./.wh.f"), wh("a//b/.wh.e")])
    yield Case("device-0-0-stays-a-device", [f("a")], [Entry("c", "a", device=(0, 0))])
    for order in itertools.permutations(range(3)):
        parts = [wh("a/.wh.b"), d("a/b", mode=0o700), f("a/b/new")]
        yield Case(f"order-{''.join(map(str, order))}", deep, [parts[i] for i in order],
                   umoci="a folder of the lower layer that has been written into stays" if order[0] == 2 else None)


def merges():
    for low, up in itertools.product(KINDS, KINDS):
        yield Case(f"{up}-over-{low}", node(low, "name"), node(up, "name"))
    for low, up in itertools.product(("file", "full", "link", "device", "hard"), ("file", "full", "link", "hard")):
        yield Case(f"{up}-behind-{low}", [*node(low, "name"), *node(up, "name")])
    for low in ("file", "device", "fifo"):
        yield Case(f"below-a-{low}", node(low, "name"), [f("name/below")], umoci="it fails")
    yield Case("folder-attributes", [d("a", mode=0o700, uid=3), f("a/x")], [d("a", mode=0o711, gid=4, mtime=9)])
    yield Case("root-attributes", [d(".", mode=0o700, uid=5, mtime=7), f("a")], [d("./", mode=0o750)])
    yield Case("parents-stay", [d("a", mode=0o700, uid=3, mtime=5)], [f("a/x")])
    yield Case("parents-late", [f("a/b/c"), d("a/b", mode=0o700, mtime=4), d("a", uid=9, mtime=3)])
    yield Case("hard-link-over-layers", [f("a", b"low", uid=3, mtime=4)], [h("b", "a")], [h("c", "b"), f("a", b"new")])
    yield Case("hard-link-to-a-link", [l("a", "t"), h("b", "a")])
    yield Case("hard-link-to-a-device", [Entry("c", "a", device=(1, 3)), h("b", "a")])
    yield Case("hard-link-from-the-root", [d("d"), f("d/a"), h("./d/b", "/d/a")])
    yield Case("hard-link-three", [f("a"), h("b", "a"), h("c", "a"), f("b", b"else")])
    yield Case("twenty-layers", *[[f(f"n{i % 7}", b"%d" % i), wh(f".wh.n{(i + 3) % 7}")] for i in range(20)])
    usr = [d("usr"), d("usr/lib"), l("lib", "usr/lib"), l("abs", "/usr"), l("up", "../../usr/lib"), d("d"), l("d/l", "../lib")]
    for name in ("lib", "abs/lib", "up", "d/l"):
        yield Case(f"through-{name.replace('/', '-')}", usr, [f(name + "/x", b"through"), h("hard", name + "/x")])
    yield Case("through-hidden", [*usr, f("usr/lib/gone")], [wh("lib/.wh.gone")])
    yield Case("through-opaque", [*usr, f("usr/lib/gone")], [wh("lib/.wh..wh..opq"), f("lib/new")])
    yield Case("through-nowhere", [l("a", "b/c"), f("a/x")])
    yield Case("through-out", [l("a", "../../../../etc"), f("a/passwd", b"inside")])
    yield Case("through-absolute", [l("a", "/etc"), f("a/passwd", b"inside")])
    yield Case("folder-over-a-link-then-below", [d("t"), l("a", "t")], [d("a"), f("a/x")])
    yield Case("link-over-a-folder-then-below", [d("a"), f("a/old"), d("t")], [l("a", "t"), f("a/x")])


def hostile():
    for name in ("../a", "a/../../b", "/../a", "a/..", "./../a", "a/b/../c", ".."):
        yield Case(f"escape-{name.replace('/', '_')}", [d("a"), f("good"), f(name)], fault="path-escapes", names=[name])
    yield Case("escape-in-the-second-layer", [f("good")], [f("../a")], fault="path-escapes", names=["layer 2", "../a"])
    yield Case("escape-by-pax", [pax([(b"path", b"../../pax")]) + header(b"good", size=1) + padded(b"x")], fault="path-escapes", names=["../../pax"])
    yield Case("escape-by-gnu", [gnu_long(b"L", b"x/../../gnu") + header(b"good", size=1, magic=MAGIC["gnu"]) + padded(b"x")], fault="path-escapes",
               names=["x/../../gnu"])
    yield Case("escape-by-prefix", [header(b"c", prefix=b"../..")], fault="path-escapes", names=["../../c"])
    yield Case("escape-by-a-whiteout", [wh("../.wh.x")], fault="path-escapes", names=["../.wh.x"])
    yield Case("escape-by-a-hard-link", [f("a"), h("b", "../../etc/passwd")], fault="path-escapes", names=["b"])
    yield Case("absolute", [f("/etc/passwd"), f("//x")])
    yield Case("hard-link-out-of-the-host", [h("b", "/etc/passwd")], fault="bad-link", names=["b"])
    yield Case("hard-link-forward", [h("b", "a"), f("a")], fault="bad-link", names=["b"])
    yield Case("hard-link-to-a-folder", [d("a"), h("b", "a")], fault="bad-link", names=["b"])
    yield Case("hard-link-to-itself", [h("a", "a")], fault="bad-link", names=["a"])
    yield Case("hard-link-through-a-circle", [l("a", "b"), l("b", "a"), h("c", "a/x")], fault="too-many-links", names=["c"])
    yield Case("circle", [l("a", "b"), l("b", "a"), f("a/x")], fault="too-many-links", names=["a/x"])
    yield Case("circle-in-two-layers", [l("a", "a/b")], [f("a/x")], fault="too-many-links", names=["layer 2", "a/x"])
    yield Case("hides-a-folder-itself", [d("a"), wh("a/.wh..")], fault="bad-whiteout", names=["a/.wh.."])
    yield Case("hides-nothing-by-name", [wh(".wh.")], fault="bad-whiteout", names=[".wh."])
    yield Case("below-a-marker", [f(".wh.a/x")], fault="reserved-name", names=[".wh.a/x"])
    yield Case("name-of-256", [f("n" * 256)], fault="name-too-long", names=["nnn"])
    yield Case("path-of-5000", [f(("p" * 99 + "/") * 50 + "x")], fault="path-too-long", names=["ppp"])
    yield Case("target-of-4096", [l("a", "t" * 4096)], fault="path-too-long", names=['"a"'])
    yield Case("deep-513", [f("d/" * 513 + "x")], fault="too-deep", names=["d/d/"])
    yield Case("deep-512", [f("d/" * 511 + "x")], umoci="one case of depth is enough")
    yield Case("deep-100000", [f("d/" * 100000 + "x")], fault="path-too-long", names=["d/d/"])
    # By links each step is short, and the tree deep all the same.
    chain = [entry for i in range(1, 60) for entry in (d("a/" * 9 + "b") if i == 1 else l(f"l{i}", f"l{i - 1}/" + "a/" * 9 + "b") if i > 2
                                                        else l("l2", "a/" * 9 + "b"), )]
    yield Case("deep-by-links", [*chain, f("l59/x")], fault="too-many-links", names=["l59/x"])
    yield Case("owner-beyond-32-bits", [f("a", uid=1 << 32, dialect="gnu")], fault="bad-owner", names=['"a"'])
    yield Case("owner-of-all-bits", [f("a", gid=(1 << 32) - 1)], fault="bad-owner", names=['"a"'])
    yield Case("device-beyond-linux", [Entry("c", "a", device=(4096, 0))], fault="bad-device", names=['"a"'])
    yield Case("xattr-of-70000", [f("a", xattrs={"user.a": "v" * 70000})], fault="xattr-too-large", names=['"a"'])
    yield Case("entries", *[[f(f"d{i // 100}/{i}", b"") for i in range(k, k + 600)] for k in (0, 600)], limits="entries=1000", fault="too-many-entries",
               names=["layer 2"])
    yield Case("entries-of-one-layer-again-and-again", *[[f("same", b"%d" % i)] * 300 for i in range(4)], limits="entries=1000", fault="too-many-entries",
               names=["layer 4"])
    yield Case("folders-by-paths", [f("/".join(f"{i}x{j}" for j in range(40)), b"") for i in range(60)], limits="entries=1000", fault="too-many-entries")
    yield Case("entries-just-enough", [f(str(i), b"") for i in range(1000)], limits="entries=1000", umoci="one case of many files is enough")
    yield Case("sparse-of-16-terabytes", [SPARSE["1.0"]("a", 1 << 44, [((1 << 44) - 4, b"data")])], umoci="no host has room for it")
    yield Case("sparse-of-an-exabyte", [SPARSE["1.0"]("a", 1 << 60, [(0, b"data")])], fault="too-many-bytes", names=['"a"'])
    yield Case("sparse-beyond-its-size", [SPARSE["1.0"]("a", 100, [(200, b"data")])], fault="bad-sparse-map", names=['"a"'])
    yield Case("sparse-over-itself", [SPARSE["0.1"]("a", 100, [(0, b"data"), (2, b"data")])], fault="bad-sparse-map", names=['"a"'])
    yield Case("sparse-backwards", [SPARSE["gnu"]("a", 100, [(50, b"data"), (2, b"data")])], fault="bad-sparse-map", names=['"a"'])
    yield Case("sparse-map-without-end", [SPARSE["1.0"]("a", 1 << 20, [(i, b"") for i in range(60000)])], limits="header=65536", fault="header-too-large")
    low = [f(f"a/{i}", b"") for i in range(3000)]
    yield Case("whiteouts-by-whiteouts", low, [wh(f"a/.wh.{i}") for i in range(3000)] + [wh("a/.wh..wh..opq")] * 3000)
    yield Case("opaque-again-and-again", low, *[[wh("a/.wh..wh..opq"), f("a/x")] * 500 for _ in range(5)])
    yield Case("not-a-tar", b"hello" * 1000, fault="broken-archive", names=["layer 1"])
    yield Case("no-bytes", b"", fault="broken-archive", names=["layer 1"])
    whole = tar(f("a", b"y" * 3000), f("b"))
    for at in (1, 100, 511, 513, 1500, 3511, 3585, 3600, 4095):
        yield Case(f"cut-at-{at}", [f("good")], whole[:at], fault="broken-archive", names=["layer 2"])
    for at in (0, 99, 124, 148, 156, 265):
        broken = bytearray(whole)
        broken[at] ^= 0x55
        yield Case(f"checksum-{at}", bytes(broken), fault="broken-archive", names=["layer 1"])
    second = bytearray(whole)
    second[3584 + 30] ^= 1
    yield Case("checksum-of-the-second", bytes(second), fault="broken-archive", names=["layer 1"])
    yield Case("size-below-zero", header(b"a", size=b"\xff" * 12) + END, fault="broken-archive")
    yield Case("size-of-petabytes", header(b"a", size=b"\x80" + (1 << 52).to_bytes(11, "big")) + END, fault="too-many-bytes", names=['"a"'])
    yield Case("size-that-is-no-number", header(b"a", size=b"12x45678901") + padded(b"12345678") + END, fault="broken-archive")
    yield Case("pax-of-a-wrong-length", header(b"x", b"x", 10) + padded(b"99 path=a\n") + tar(f("a")), fault="broken-archive")
    yield Case("pax-twice", [pax([(b"path", b"first")]) + pax([(b"mtime", b"5")]) + header(b"second", size=1) + padded(b"x")], fault="broken-archive")
    yield Case("pax-without-a-file", pax([(b"path", b"a")]) + END, fault="broken-archive")
    yield Case("gnu-name-without-a-file", gnu_long(b"L", b"name") + END, fault="broken-archive")
    yield Case("link-to-nothing", [l("a", "")], fault="bad-link", names=['"a"'])
    packed = {name: PACKINGS[name](whole) for name in ("gzip", "zstd")}
    for name, data in packed.items():
        for at in (10, len(data) // 2, len(data) - 1):
            yield Case(f"{name}-cut-at-{at}", data[:at], fault="broken-compression", names=["layer 1"])
    flipped = bytearray(packed["gzip"])
    flipped[-6] ^= 1
    yield Case("gzip-checksum", bytes(flipped), fault="broken-compression", names=["layer 1"])
    yield Case("gzip-of-gzip", PACKINGS["gzip"](packed["gzip"]), fault="broken-archive", names=["layer 1"])
    yield Case("zstd-and-more", zstd(whole) + b"more", fault="broken-compression", names=["layer 1"])
    for name, start in (("bzip2", b"BZh91AY&SY"), ("xz", b"\xfd7zXZ\0"), ("lz4", b"\x04\x22\x4d\x18"), ("zip", b"PK\3\4")):
        yield Case(f"packed-by-{name}", start + bytes(200), fault="unknown-compression", names=["layer 1"])


def all_cases():
    cases = [case for make in (kinds_by_dialect, long_names, numbers, xattrs, sparse, packings, whiteouts, merges, hostile) for case in make()]
    unique = {}
    for case in cases:
        unique.setdefault(case.name, case)
    return list(unique.values())
