"""Usage: layers.py FOLDER LAYOUT: container images of the trees base, nginx, redis and postgres in FOLDER, or of base and large, as an OCI
layout. The same bytes of the same trees."""
import gzip
import hashlib
import io
import json
import os
import stat
import sys
import tarfile

LEFT_OUT = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/lintian", "usr/share/bug", "usr/lib/x86_64-linux-gnu/gconv",
            "usr/lib/systemd", "lib/systemd", "usr/share/postgresql/15/man", "etc/init.d", "etc/cron.d", "etc/logrotate.d", "usr/share/perl5")
APPLETS = ("sh", "cat", "ls", "id", "pwd", "env", "sleep", "grep", "mkdir", "rm", "chmod", "chown", "echo", "ps", "kill", "wget", "nc", "head",
           "mount", "df", "stat", "touch", "cp", "ln", "true", "false", "wc", "ip", "hostname", "expr", "sed", "awk", "test", "date", "dd", "sync", "httpd")
PASSWD = """root:x:0:0:root:/root:/bin/sh
www-data:x:33:33:www-data:/var/www:/bin/sh
redis:x:100:101::/var/lib/redis:/bin/sh
postgres:x:102:103::/var/lib/postgresql:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/bin/sh
"""
GROUP = "root:x:0:\nwww-data:x:33:\nredis:x:101:\npostgres:x:103:\nnogroup:x:65534:\n"
NGINX = """worker_processes 1;
error_log /dev/stderr warn;
pid /run/nginx.pid;
events { worker_connections 64; }
http {
  access_log off;
  server { listen 80; root /srv/www; }
}
"""
POSTGRES = """#!/bin/sh
# A folder of its own for the data, made when it is not there.
set -e
bin=$(echo /usr/lib/postgresql/*/bin)
if [ ! -e "$PGDATA/PG_VERSION" ]; then
  "$bin/initdb" -D "$PGDATA" -U postgres -A trust --no-sync --locale=C -E UTF8
  echo "host all all all trust" >>"$PGDATA/pg_hba.conf"
fi
exec "$bin/postgres" -D "$PGDATA" -c listen_addresses='*' -c unix_socket_directories=/tmp -c jit=off -c fsync=off "$@"
"""


ENV = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def file(name, text, mode=0o644, owner=(0, 0)):
    info = tarfile.TarInfo(name)
    data = text.encode()
    info.size, info.mode, (info.uid, info.gid) = len(data), mode, owner
    return info, data


def folder(name, mode=0o755, owner=(0, 0)):
    info = tarfile.TarInfo(name)
    info.type, info.mode, (info.uid, info.gid) = tarfile.DIRTYPE, mode, owner
    return info, b""


def link(name, target):
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.linkname = tarfile.SYMTYPE, 0o777, target
    return info, b""


def tree(top):
    """What packages have unpacked, root's."""
    for at, folders, names in os.walk(top):
        folders.sort()
        for name in sorted(folders + names):
            path = os.path.relpath(os.path.join(at, name), top)
            if path.startswith(LEFT_OUT):
                continue
            info = tarfile.TarInfo(path)
            status = os.lstat(os.path.join(at, name))
            info.mode, info.mtime = stat.S_IMODE(status.st_mode), int(status.st_mtime)
            data = b""
            if stat.S_ISLNK(status.st_mode):
                info.type, info.linkname = tarfile.SYMTYPE, os.readlink(os.path.join(at, name))
            elif stat.S_ISDIR(status.st_mode):
                # Times of folders are of now where several packages have them.
                info.type, info.mtime = tarfile.DIRTYPE, 0
            else:
                with open(os.path.join(at, name), "rb") as source:
                    data = source.read()
                info.size = len(data)
            yield info, data


def layer(entries):
    """Of entries of one name the last: podman takes no layer that has two."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in {info.name: (info, data) for info, data in entries}.values():
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


class Layout:
    def __init__(self, top):
        self.top, self.images = top, []
        os.makedirs(top + "/blobs/sha256")
        with open(top + "/oci-layout", "w") as out:
            out.write('{"imageLayoutVersion": "1.0.0"}')

    def put(self, data, kind):
        digest = hashlib.sha256(data).hexdigest()
        with open(f"{self.top}/blobs/sha256/{digest}", "wb") as out:
            out.write(data)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": "sha256:" + digest, "size": len(data)}

    def layer(self, entries):
        data = layer(entries)
        return self.put(gzip.compress(data, 6, mtime=0), "layer.v1.tar+gzip"), "sha256:" + hashlib.sha256(data).hexdigest()

    def image(self, tag, layers, **config):
        body = {"os": "linux", "architecture": "amd64", "config": config, "rootfs": {"type": "layers", "diff_ids": [each[1] for each in layers]}}
        manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "config": self.put(json.dumps(body).encode(), "config.v1+json"), "layers": [each[0] for each in layers]}
        self.images.append({**self.put(json.dumps(manifest).encode(), "manifest.v1+json"), "annotations": {"org.opencontainers.image.ref.name": tag}})

    def write(self):
        with open(self.top + "/index.json", "w") as out:
            json.dump({"schemaVersion": 2, "manifests": self.images}, out)


def accounts():
    return [folder("etc"), file("etc/passwd", PASSWD), file("etc/group", GROUP), folder("root", 0o700), folder("tmp", 0o1777), folder("run"),
            folder("var"), folder("var/tmp", 0o1777), folder("srv"), folder("proc"), folder("sys"), folder("dev")]


def main(work, top):
    layout = Layout(top)
    with open(work + "/base/bin/busybox", "rb") as source:
        program = source.read()
    box = tarfile.TarInfo("bin/busybox")
    box.size, box.mode = len(program), 0o755
    links = [link("bin/" + name, "busybox") for name in APPLETS]
    small = layout.layer([folder("bin"), (box, program), *links, *accounts()])
    if os.path.isdir(work + "/large"):
        layout.image("large", [small, layout.layer(tree(work + "/large"))], Cmd=["sh"], Env=[ENV])
    else:
        applications(layout, work, small, links)
    layout.write()


def applications(layout, work, small, links):
    layout.image("busybox", [small], Cmd=["sh"], Env=[ENV])
    one = layout.layer([folder("data"), file("data/kept", "kept\n"), file("data/hidden", "hidden\n"), folder("data/old"), file("data/old/file", "old\n"),
                        folder("opaque"), file("opaque/below", "x"), file("changed", "one\n")])
    two = layout.layer([file("data/.wh.hidden", ""), file("data/.wh.old", ""), file("opaque/.wh..wh..opq", ""), file("opaque/above", "y"),
                        file("changed", "two\n", 0o600, (33, 33))])
    three = layout.layer([folder("data/old"), file("data/old/new", "new\n"), link("data/link", "/changed")])
    layout.image("layered", [small, one, two, three], Entrypoint=["/bin/sh", "-c"], Cmd=["ls /data /data/old /opaque; stat -c '%a %u' /changed; id -u"],
                 Env=[ENV, "GREETING=from the image"], User="www-data", WorkingDir="/data", StopSignal="SIGUSR1", Labels={"of": "a test"})
    base = layout.layer([*tree(work + "/base"), *links, *accounts()])
    nginx = layout.layer(tree(work + "/nginx"))
    site = layout.layer([file("etc/nginx/nginx.conf", NGINX), folder("srv/www"), file("srv/www/index.html", "nginx in a machine\n"),
                         folder("var/lib/nginx", owner=(33, 33)), folder("var/log/nginx", owner=(33, 33)), file("etc/nginx/.wh.sites-available", "")])
    layout.image("nginx", [base, nginx, site], Entrypoint=["/usr/sbin/nginx"], Cmd=["-g", "daemon off;"], Env=[ENV], ExposedPorts={"80/tcp": {}},
                 StopSignal="SIGQUIT")
    redis = layout.layer([*tree(work + "/redis"), folder("var/lib/redis", 0o750, (100, 101))])
    layout.image("redis", [base, redis], Cmd=["redis-server", "--protected-mode", "no", "--save", "", "--bind", "0.0.0.0"], Env=[ENV], User="redis",
                 WorkingDir="/var/lib/redis", ExposedPorts={"6379/tcp": {}}, Volumes={"/var/lib/redis": {}})
    postgres = layout.layer([*tree(work + "/postgres"), folder("var/lib/postgresql", 0o700, (102, 103)), file("usr/bin/entrypoint", POSTGRES, 0o755)])
    layout.image("postgres", [base, postgres], Entrypoint=["entrypoint"], Env=[ENV, "PGDATA=/var/lib/postgresql/data"], User="postgres",
                 ExposedPorts={"5432/tcp": {}}, Volumes={"/var/lib/postgresql": {}}, StopSignal="SIGINT", WorkingDir="/var/lib/postgresql")


main(*sys.argv[1:])
