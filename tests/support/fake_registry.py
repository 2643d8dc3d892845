"""A registry of images on loopback (OCI distribution specification, the half that pulls) that can be told to misbehave."""
import base64
import contextlib
import http.server
import json
import os
import re
import socket
import threading


class Registry:
    """For a `with`. Serves layouts of OCI (oci_layout.py) by names; `home` is a HOME whose skopeo takes it, by HTTP.

    misbehave(PATTERN, WHAT, times): the next requests whose path matches get WHAT: a status, "hang", "cut" (half of it), "wrong" (other
    bytes of that length), "slow" (a piece now and then). `asked` are the paths of requests, `user` NAME:PASSWORD where it wants one."""

    def __init__(self, home, user=None):
        self.images, self.asked, self.faults, self.user = {}, [], [], user
        self.over, self.held = threading.Event(), threading.Event()
        registry = self

        class Handler(_Handler):
            pass

        Handler.registry = registry
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.host = f"127.0.0.1:{self.server.server_address[1]}"
        os.makedirs(home + "/.config/containers", exist_ok=True)
        with open(home + "/.config/containers/registries.conf", "w") as file:
            file.write(f'[[registry]]\nlocation = "{self.host}"\ninsecure = true\n')
        with open(home + "/.config/containers/policy.json", "w") as file:
            file.write('{"default": [{"type": "insecureAcceptAnything"}]}')

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.server.shutdown()
        self.server.server_close()

    def add(self, name, layout):
        """The image of that layout, whatever its tag, by NAME:latest."""
        with open(layout + "/index.json") as file:
            self.images[name] = layout + "/blobs/", json.load(file)["manifests"][0]["digest"]
        return f"{self.host}/{name}"

    def misbehave(self, pattern, what, times=1000):
        self.held.clear()
        self.faults.append([re.compile(pattern), what, times])

    def behave(self):
        self.faults.clear()

    def fault(self, path):
        for fault in self.faults:
            if fault[2] > 0 and fault[0].search(path):
                fault[2] -= 1
                return fault[1]
        return None


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    registry = None

    def handle(self):
        # Whoever tries TLS first is to know at once.
        with contextlib.suppress(OSError):
            if self.connection.recv(1, socket.MSG_PEEK) == b"\x16":
                return
            super().handle()

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def refuse(self, status, code, message):
        body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
        self.send_response(status)
        if status == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="test"')
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def found(self):
        """(bytes, media type) of what the path names, or None."""
        match = re.fullmatch(r"/v2/(.+)/(manifests|blobs)/(.+)", self.path)
        if not match or match[1] not in self.registry.images:
            return None
        blobs, manifest = self.registry.images[match[1]]
        digest = match[3] if ":" in match[3] else manifest if match[3] == "latest" else ""
        try:
            with open(blobs + digest.replace(":", "/"), "rb") as file:
                data = file.read()
        except OSError:
            return None
        return data, "application/vnd.oci.image.manifest.v1+json" if match[2] == "manifests" else "application/octet-stream", digest

    def refuse_unknown(self):
        self.refuse(404, "MANIFEST_UNKNOWN" if "/manifests/" in self.path else "BLOB_UNKNOWN", "not known here")

    def do_GET(self):
        registry = self.registry
        registry.asked.append(self.path)
        if registry.user and self.headers.get("Authorization") != "Basic " + base64.b64encode(registry.user.encode()).decode():
            self.refuse(401, "UNAUTHORIZED", "authentication required")
            return
        fault = registry.fault(self.path)
        if isinstance(fault, int):
            if fault == 404:
                self.refuse_unknown()
            else:
                self.refuse(fault, "DENIED", "not today")
            return
        if fault == "hang":
            registry.held.set()
            registry.over.wait()
            return
        found = (b"{}", "application/json", "") if self.path == "/v2/" else self.found()
        if found is None:
            self.refuse_unknown()
            return
        data, kind, digest = found
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        if digest:
            self.send_header("Docker-Content-Digest", digest)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.send(data, fault)

    def send(self, data, fault):
        registry = self.registry
        if fault == "cut":
            self.wfile.write(data[:len(data) // 2])
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif fault == "slow":
            self.wfile.write(data[:len(data) // 2])
            registry.held.set()
            registry.over.wait()
        else:
            self.wfile.write(data if fault != "wrong" else bytes(byte ^ 1 for byte in data))
