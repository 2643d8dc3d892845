"""A file server for the Intel lab: folders of this machine by 9P2000.L over TCP, as Linux's own client speaks it.

Whoever attaches names an export, and the secret that only the lab has been told: any user of this machine can reach a
port of its loopback. A fid is a path. Nothing follows a symbolic link here; that is the client's business, as is who
may do what: files belong to whoever runs the lab. Messages are named as in Linux's net/9p and in the protocol's
description (diod, protocol.md).
"""
import errno
import hmac
import os
import socket
import stat
import struct
import threading
import time

MOST = 1 << 20  # bytes in a message, whatever the client proposes
WRITING = {"lcreate", "symlink", "mknod", "setattr", "write", "link", "mkdir", "renameat", "rename", "unlinkat", "remove"}
NAMES = {8: "statfs", 12: "lopen", 14: "lcreate", 16: "symlink", 18: "mknod", 20: "rename", 22: "readlink", 24: "getattr",
         26: "setattr", 40: "readdir", 50: "fsync", 52: "lock", 54: "getlock", 70: "link", 72: "mkdir", 74: "renameat",
         76: "unlinkat", 100: "version", 104: "attach", 108: "flush", 110: "walk", 116: "read", 118: "write", 120: "clunk",
         122: "remove"}
FLAGS_KEPT = os.O_ACCMODE | os.O_TRUNC | os.O_EXCL


class Refused(OSError):
    def __init__(self, number):
        super().__init__(number, os.strerror(number))


class Message:
    """The body of a request, read from its start on."""

    def __init__(self, body):
        self.body = body
        self.at = 0

    def take(self, layout):
        layout = struct.Struct("<" + layout)
        values = layout.unpack_from(self.body, self.at)
        self.at += layout.size
        return values if len(values) > 1 else values[0]

    def text(self):
        size = self.take("H")
        data = bytes(self.body[self.at:self.at + size])
        if len(data) != size:
            raise Refused(errno.EPROTO)
        self.at += size
        return data

    def name(self):
        """One component of a path."""
        name = self.text()
        if not name or b"/" in name or b"\0" in name or name in (b".", b".."):
            raise Refused(errno.EINVAL)
        return name

    def rest(self, size):
        return self.body[self.at:self.at + size]


class Fid:
    def __init__(self, path, writable):
        self.path = path
        self.writable = writable
        self.file = None  # descriptor once opened
        self.entries = None  # of a folder, once read

    def close(self):
        if self.file is not None:
            os.close(self.file)
            self.file = None


def text(data):
    return struct.pack("<H", len(data)) + data


class Client:
    """One connection: one mounted file system."""

    devices = {}  # number of a device: a small one of ours, so that inodes of several stay apart

    def __init__(self, stream, secret, exports):
        self.stream = stream
        self.secret = secret
        self.exports = exports
        self.fids = {}

    def serve(self):
        try:
            while True:
                size = struct.unpack("<I", self.receive(4))[0]
                if not 7 <= size <= MOST + 64:
                    return
                body = self.receive(size - 4)
                kind, tag = struct.unpack_from("<BH", body)
                self.send(*self.answer(kind, memoryview(body)[3:]), tag)
        except (EOFError, OSError):
            pass
        finally:
            for fid in self.fids.values():
                fid.close()
            self.stream.close()

    def receive(self, size):
        data = bytearray(size)
        view = memoryview(data)
        while view:
            count = self.stream.recv_into(view)
            if not count:
                raise EOFError
            view = view[count:]
        return data

    def send(self, kind, body, tag):
        self.stream.sendall(struct.pack("<IBH", 7 + len(body), kind, tag) + body)

    def answer(self, kind, body):
        try:
            name = NAMES.get(kind)
            if name is None:
                raise Refused(errno.EOPNOTSUPP)
            message = Message(body)
            if name in WRITING:
                fid = self.fids.get(struct.unpack_from("<I", body)[0])
                if fid is not None and not fid.writable:
                    raise Refused(errno.EROFS)
            return kind + 1, getattr(self, name)(message) or b""
        except KeyError:
            number = errno.EBADF  # no such fid
        except (struct.error, ValueError, OverflowError):
            number = errno.EPROTO
        except OSError as problem:
            number = problem.errno or errno.EIO
        return 7, struct.pack("<I", number)

    def qid(self, status):
        device = self.devices.setdefault(status.st_dev, len(self.devices))
        kind = 0x80 if stat.S_ISDIR(status.st_mode) else 0x02 if stat.S_ISLNK(status.st_mode) else 0
        return struct.pack("<BIQ", kind, 0, (status.st_ino ^ device << 48) & (1 << 64) - 1)

    def qid_of(self, path):
        return self.qid(os.lstat(path))

    def child(self, message):
        return os.path.join(self.fids[message.take("I")].path, message.name())

    # --- sessions and paths -----------------------------------------------------------------------------------------

    def version(self, message):
        most = message.take("I")
        spoken = message.text()
        return struct.pack("<I", min(most, MOST)) + text(spoken if spoken == b"9P2000.L" else b"unknown")

    def attach(self, message):
        fid, _ = message.take("II")
        message.text()
        secret, _, export = message.text().decode().partition("/")
        if not hmac.compare_digest(secret, self.secret) or export not in self.exports:
            raise Refused(errno.EACCES)
        path, writable = self.exports[export]
        self.fids[fid] = Fid(os.fsencode(path), writable)
        return self.qid_of(self.fids[fid].path)

    def flush(self, _):
        """What was asked before has been answered already."""

    def walk(self, message):
        fid, new, count = message.take("IIH")
        start = self.fids[fid]
        path, qids = start.path, []
        for _ in range(count):
            try:
                path = os.path.join(path, message.name())
                qids.append(self.qid_of(path))
            except OSError:
                if not qids:
                    raise
                break
        if len(qids) == count:
            self.fids[new] = Fid(path, start.writable)
        return struct.pack("<H", len(qids)) + b"".join(qids)

    def clunk(self, message):
        self.fids.pop(message.take("I")).close()

    # --- files ------------------------------------------------------------------------------------------------------

    def lopen(self, message):
        number, flags = message.take("II")
        fid = self.fids[number]
        if not fid.writable and flags & (os.O_ACCMODE | os.O_TRUNC):
            raise Refused(errno.EROFS)
        status = os.lstat(fid.path)
        if stat.S_ISDIR(status.st_mode):
            fid.entries = None
        elif stat.S_ISREG(status.st_mode):
            fid.close()
            fid.file = os.open(fid.path, flags & FLAGS_KEPT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        else:
            raise Refused(errno.ENXIO)
        return self.qid(status) + struct.pack("<I", 0)

    def lcreate(self, message):
        number = message.take("I")
        fid = self.fids[number]
        path = os.path.join(fid.path, message.name())
        flags, mode, _ = message.take("III")
        fid.file = os.open(path, flags & FLAGS_KEPT | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, mode & 0o7777)
        fid.path = path
        return self.qid(os.fstat(fid.file)) + struct.pack("<I", 0)

    def read(self, message):
        number, offset, count = message.take("IQI")
        data = os.pread(self.opened(number), min(count, MOST), offset)
        return struct.pack("<I", len(data)) + data

    def write(self, message):
        number, offset, count = message.take("IQI")
        return struct.pack("<I", os.pwrite(self.opened(number), message.rest(count), offset))

    def fsync(self, message):
        fid = self.fids[message.take("I")]
        if fid.file is not None:
            os.fsync(fid.file)

    def opened(self, number):
        file = self.fids[number].file
        if file is None:
            raise Refused(errno.EBADF)
        return file

    def lock(self, message):
        return struct.pack("<B", 0)  # the lab is the only client; its kernel keeps its own locks

    def getlock(self, message):
        message.take("I")
        _, start, length, process = message.take("BQQI")
        return struct.pack("<BQQI", 2, start, length, process) + text(message.text())  # 2: nobody's

    # --- what is known of files -------------------------------------------------------------------------------------

    def getattr(self, message):
        number, _ = message.take("IQ")
        fid = self.fids[number]
        status = os.lstat(fid.path) if fid.file is None else os.fstat(fid.file)
        times = [part for at in (status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns, 0)
                 for part in divmod(at, 1_000_000_000)]
        return struct.pack("<Q", 0x7ff) + self.qid(status) + struct.pack(
            "<III15Q", status.st_mode, status.st_uid, status.st_gid, status.st_nlink, status.st_rdev, status.st_size,
            max(status.st_blksize, 4096), status.st_blocks, *times, 0, 0)

    def setattr(self, message):
        number, valid, mode, owner, group, size, *times = message.take("IIIIIQQQQQ")
        fid = self.fids[number]
        path = fid.path
        if valid & 0x1:
            os.chmod(path, mode & 0o7777)
        if valid & 0x6:
            os.lchown(path, owner if valid & 0x2 else -1, group if valid & 0x4 else -1)
        if valid & 0x8:
            os.truncate(path if fid.file is None else fid.file, size)
        if valid & 0x30:
            now = os.lstat(path)
            set_times = [now.st_atime_ns, now.st_mtime_ns]
            for which, (wanted, given) in enumerate(((0x10, 0x80), (0x20, 0x100))):
                if valid & wanted:
                    set_times[which] = (times[2 * which] * 1_000_000_000 + times[2 * which + 1] if valid & given
                                        else time.time_ns())
            os.utime(path, ns=tuple(set_times), follow_symlinks=False)

    def statfs(self, message):
        found = os.statvfs(self.fids[message.take("I")].path)
        return struct.pack("<IIQQQQQQI", 0x01021997, found.f_bsize, found.f_blocks, found.f_bfree, found.f_bavail,
                           found.f_files, found.f_ffree, 0, found.f_namemax)

    def readlink(self, message):
        return text(os.readlink(self.fids[message.take("I")].path))

    # --- folders ----------------------------------------------------------------------------------------------------

    def readdir(self, message):
        number, offset, count = message.take("IQI")
        fid = self.fids[number]
        if fid.entries is None or offset == 0:
            fid.entries = [b".", b"..", *sorted(os.listdir(fid.path))]
        data = bytearray()
        for at, name in enumerate(fid.entries[offset:], offset + 1):
            try:
                status = os.lstat(fid.path if name == b"." else os.path.join(fid.path, name))
            except OSError:
                continue  # gone since
            entry = self.qid(status) + struct.pack("<QB", at, status.st_mode >> 12 & 15) + text(name)
            if len(data) + len(entry) > count:
                break
            data += entry
        return struct.pack("<I", len(data)) + bytes(data)

    def mkdir(self, message):
        path = self.child(message)
        os.mkdir(path, message.take("I") & 0o7777)
        return self.qid_of(path)

    def symlink(self, message):
        path = self.child(message)
        os.symlink(message.text(), path)
        return self.qid_of(path)

    def link(self, message):
        folder, target = self.fids[message.take("I")].path, self.fids[message.take("I")].path
        os.link(target, os.path.join(folder, message.name()), follow_symlinks=False)

    def mknod(self, message):
        path = self.child(message)
        mode, major, minor, _ = message.take("IIII")
        os.mknod(path, mode, os.makedev(major, minor))
        return self.qid_of(path)

    def unlinkat(self, message):
        path = self.child(message)
        (os.rmdir if message.take("I") & 0x200 else os.unlink)(path)

    def remove(self, message):
        fid = self.fids.pop(message.take("I"))
        fid.close()
        (os.rmdir if stat.S_ISDIR(os.lstat(fid.path).st_mode) else os.unlink)(fid.path)

    def renameat(self, message):
        self.move(self.child(message), self.child(message))

    def rename(self, message):
        old = self.fids[message.take("I")].path
        self.move(old, self.child(message))

    def move(self, old, new):
        os.rename(old, new)
        for fid in self.fids.values():
            if fid.path == old or fid.path.startswith(old + b"/"):
                fid.path = new + fid.path[len(old):]


def start(secret, exports):
    """Serves exports (name: (path, writable)) on a port of the loopback, in the background; returns the port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept():
        while True:
            stream, _ = listener.accept()
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=Client(stream, secret, exports).serve, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]
