"""The file server of tools/lab --host intel, asked as Linux's client would, and as one would who may not."""
import errno
import socket
import struct
import sys

sys.path.insert(0, sys.path[0] + "/../support")
sys.path.insert(0, sys.path[0] + "/../../tools/lib/lab")
from harness import *  # noqa: E402,F403
import nine_p  # noqa: E402

KINDS = {name: number for number, name in nine_p.NAMES.items()}


class Client:
    def __init__(self, port):
        self.stream = socket.create_connection(("127.0.0.1", port), 60)
        most, spoken = struct.unpack("<IH", self.ask("version", struct.pack("<I", 65536) + nine_p.text(b"9P2000.L"))[:6])
        check((most, spoken) == (65536, 8), "another version")

    def ask(self, name, body):
        """The body of the answer, or the number of the error."""
        self.stream.sendall(struct.pack("<IBH", 7 + len(body), KINDS[name], 1) + body)
        size, kind, _ = struct.unpack("<IBH", self.receive(7))
        body = self.receive(size - 7)
        return struct.unpack("<I", body)[0] if kind == 7 else body

    def receive(self, size):
        data = b""
        while len(data) < size:
            piece = self.stream.recv(size - len(data))
            check(piece, "the server has hung up")
            data += piece
        return data

    def attach(self, fid, name):
        return self.ask("attach", struct.pack("<II", fid, 0xffffffff) + nine_p.text(b"root") + nine_p.text(name) + bytes(4))

    def walk(self, fid, new, *names):
        return self.ask("walk", struct.pack("<IIH", fid, new, len(names)) + b"".join(map(nine_p.text, names)))


def served(folder):
    for name in ("fixed", "shared"):
        os.makedirs(f"{folder}/{name}/deep")
        with open(f"{folder}/{name}/deep/file", "w") as file:
            file.write("what is in it")
    return Client(nine_p.start("secret", {"fixed": (folder + "/fixed", False), "shared": (folder + "/shared", True)}))


@test
def lab_files_only_with_the_secret():
    with tempfile.TemporaryDirectory() as folder:
        client = served(folder)
        for name in (b"fixed", b"/fixed", b"wrong/fixed", b"secret/", b"secret/other"):
            check(client.attach(1, name) == errno.EACCES, f"attached as {name}")
        check(client.walk(1, 2) == errno.EBADF, "walked without")
        check(isinstance(client.attach(1, b"secret/fixed"), bytes), "not attached")


@test
def lab_files_stay_inside_and_what_is_fixed_stays():
    with tempfile.TemporaryDirectory() as folder:
        client = served(folder)
        client.attach(1, b"secret/fixed")
        for names in ((b"..",), (b"deep", b"..", b"..", b".."), (b"deep/file",), (b"",)):
            answer = client.walk(1, 2, *names)
            check(answer == errno.EINVAL or struct.unpack("<H", answer[:2])[0] < len(names), f"walked {names}")
        check(struct.unpack("<H", client.walk(1, 2, b"deep", b"file")[:2])[0] == 2, "did not walk")
        check(client.ask("lopen", struct.pack("<II", 2, os.O_RDWR)) == errno.EROFS, "opened for writing")
        check(client.ask("lopen", struct.pack("<II", 2, os.O_TRUNC)) == errno.EROFS, "opened to be cut off")
        check(client.ask("setattr", struct.pack("<IIIIIQQQQQ", 2, 8, 0, 0, 0, 0, 0, 0, 0, 0)) == errno.EROFS, "cut off")
        check(client.ask("unlinkat", struct.pack("<I", 1) + nine_p.text(b"deep") + struct.pack("<I", 0x200)) == errno.EROFS, "removed")
        check(isinstance(client.ask("lopen", struct.pack("<II", 2, 0)), bytes), "not opened")
        check(client.ask("write", struct.pack("<IQI", 2, 0, 1) + b"x") == errno.EROFS, "written")
        check(client.ask("read", struct.pack("<IQI", 2, 8, 100))[4:] == b"in it", "read something else")


@test
def lab_files_written_and_renamed():
    with tempfile.TemporaryDirectory() as folder:
        client = served(folder)
        client.attach(1, b"secret/shared")
        client.walk(1, 2, b"deep")
        client.walk(1, 3, b"deep", b"file")
        client.ask("renameat", struct.pack("<I", 1) + nine_p.text(b"deep") + struct.pack("<I", 1) + nine_p.text(b"low"))
        check(isinstance(client.ask("lopen", struct.pack("<II", 3, os.O_RDWR)), bytes), "lost in a folder that was renamed")
        check(client.ask("write", struct.pack("<IQI", 3, 8, 3) + b"now") == struct.pack("<I", 3), "not written")
        client.ask("lcreate", struct.pack("<I", 2) + nine_p.text(b"new") + struct.pack("<III", os.O_WRONLY, 0o640, 0))
        client.ask("write", struct.pack("<IQI", 2, 0, 5) + b"fresh")
        with open(folder + "/shared/low/file") as file:
            check(file.read() == "what is nowit", "another content")
        with open(folder + "/shared/low/new") as file:
            check(file.read() == "fresh" and os.stat(file.fileno()).st_mode & 0o777 == 0o640, "not the new file")


@test
def lab_files_survive_nonsense():
    """A client that breaks the protocol gets an error or is hung up on; others are served as before."""
    with tempfile.TemporaryDirectory() as folder:
        client = served(folder)
        client.attach(1, b"secret/shared")
        client.walk(1, 3, b"deep", b"file")
        client.ask("lopen", struct.pack("<II", 3, os.O_RDWR))
        for name in ("read", "write"):
            check(isinstance(client.ask(name, b"\3\0\0\0" + b"\xff" * 12), int), f"an offset of 2^64 - 1 for {name}")
        for name in KINDS:
            for body in (b"", b"\xff" * 4, b"\1\0\0\0", b"\1\0\0\0" + b"\xff" * 40):
                if name not in ("version", "flush", "clunk", "remove"):
                    client.ask(name, body)
        rough = socket.create_connection(client.stream.getpeername(), 60)
        rough.sendall(b"\xff" * 100)
        try:
            check(rough.recv(1) == b"", "not hung up on")
        except ConnectionResetError:
            pass
        check(isinstance(client.walk(1, 2, b"deep"), bytes), "not served any more")
