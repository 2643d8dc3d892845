"""Small initrds: files and programs for a guest, loaded behind the one that it boots."""
import os
import re
import shutil
import subprocess


def write(path, files):
    """An archive in newc format (Linux, Documentation/driver-api/early-userspace/buffer-format.rst). `files`: name in
    the guest to a file here, or to (bytes, mode)."""
    folders = {parent for name in files for parent in _parents(name)}
    with open(path, "wb") as out:
        for number, name in enumerate(sorted(folders), 1):
            _entry(out, number, name, 0o40755, b"")
        for number, (name, source) in enumerate(sorted(files.items()), len(folders) + 1):
            if isinstance(source, tuple):
                content, mode = source
            else:
                with open(source, "rb") as file:
                    content, mode = file.read(), os.stat(source).st_mode & 0o777
            _entry(out, number, name, 0o100000 | mode, content)
        _entry(out, 0, "TRAILER!!!", 0, b"")
        out.write(bytes(-out.tell() % 512))


def _parents(name):
    words = name.split("/")[:-1]
    return ["/".join(words[:count]) for count in range(1, len(words) + 1)]


def _entry(out, number, name, mode, content):
    fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    out.write(b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0")
    out.write(bytes(-out.tell() % 4))
    out.write(content)
    out.write(bytes(-out.tell() % 4))


def joined(path, *archives):
    """One file of several, for monitors that load only one: each begins at a multiple of four bytes."""
    with open(path, "wb") as out:
        for archive in archives:
            with open(archive, "rb") as file:
                shutil.copyfileobj(file, out)
            out.write(bytes(-out.tell() % 4))
    return path


def program(name):
    """A program of this system with the libraries it needs, as write() takes them. FileNotFoundError without it."""
    path = shutil.which(name)
    if not path:
        raise FileNotFoundError(f"{name} is not on PATH")
    files = {f"bin/{name}": path}
    shown = subprocess.run(["ldd", path], stdout=subprocess.PIPE, check=True).stdout.decode()
    for library in re.findall(r"(/\S+) \(0x", shown):
        files[library.lstrip("/")] = os.path.realpath(library)
    return files
