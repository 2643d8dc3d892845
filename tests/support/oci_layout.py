"""Container images made by hand: an OCI layout of layers that are lists of entries (OCI image specification 1.1)."""
import gzip
import hashlib
import io
import json
import os
import tarfile


class File:
    """An entry of a layer: a folder by a name that ends in /, a link by its target, or a file."""

    def __init__(self, name, content=b"", mode=None, link=None, uid=0, gid=0):
        self.info = tarfile.TarInfo(name.rstrip("/"))
        self.content = content.encode() if isinstance(content, str) else content
        self.info.uid, self.info.gid = uid, gid
        if link is not None:
            self.info.type, self.info.linkname, self.info.mode = tarfile.SYMTYPE, link, 0o777
        elif name.endswith("/"):
            self.info.type, self.info.mode = tarfile.DIRTYPE, mode or 0o755
        else:
            self.info.size, self.info.mode = len(self.content), mode or 0o644


def layer(entries):
    """The bytes of a tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry in entries:
            archive.addfile(entry.info, io.BytesIO(entry.content))
    return out.getvalue()


def write_layout(folder, layers, config=None, tag="latest", platform=("linux", "amd64"), packing="gzip"):
    """A layout of one image, its layers (tars) in gzip or as they are; returns its manifest's digest."""
    blobs = folder + "/blobs/sha256"
    os.makedirs(blobs, exist_ok=True)

    def put(data, kind):
        digest = hashlib.sha256(data).hexdigest()
        with open(f"{blobs}/{digest}", "wb") as file:
            file.write(data)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": "sha256:" + digest, "size": len(data)}

    system, machine = platform
    body = {"os": system, "architecture": machine, "config": config or {},
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(data).hexdigest() for data in layers]}}
    packed = [put(gzip.compress(data, mtime=0), "layer.v1.tar+gzip") if packing else put(data, "layer.v1.tar") for data in layers]
    manifest = put(json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                               "config": put(json.dumps(body).encode(), "config.v1+json"), "layers": packed}).encode(), "manifest.v1+json")
    with open(folder + "/index.json", "w") as file:
        json.dump({"schemaVersion": 2, "manifests": [{**manifest, "annotations": {"org.opencontainers.image.ref.name": tag}}]}, file)
    with open(folder + "/oci-layout", "w") as file:
        file.write('{"imageLayoutVersion": "1.0.0"}')
    return manifest["digest"]
