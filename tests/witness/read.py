"""Reads a disk image with a reader that isn't ours and prints the content's SHA-256.

read.py libvhdi LEAF [PARENT ... BASE]     the whole chain is named
read.py dissect LEAF                       parents of a VHDX are found by its own locator
"""

import hashlib
import sys

STEP = 1 << 20


def libvhdi(paths):
    import pyvhdi

    images = []
    for path in paths:
        image = pyvhdi.file()
        image.open(path)
        images.append(image)
    for child, parent in zip(images, images[1:]):
        child.set_parent(parent)

    def read(length, offset):
        # The parents live as long as this does: older versions of the library don't keep them by themselves.
        return images[0].read_buffer_at_offset(length, offset)

    return images[0].get_media_size(), read


def dissect(paths):
    from dissect.hypervisor.disk.vhd import VHD
    from dissect.hypervisor.disk.vhdx import VHDX
    from pathlib import Path

    with open(paths[0], "rb") as file:
        is_vhdx = file.read(8) == b"vhdxfile"
    leaf = VHDX(Path(paths[0])) if is_vhdx else VHD(open(paths[0], "rb"))

    def read(length, offset):
        leaf.seek(offset)
        return leaf.read(length)

    return leaf.size, read


def main():
    size, read = {"libvhdi": libvhdi, "dissect": dissect}[sys.argv[1]](sys.argv[2:])
    digest = hashlib.sha256()
    for offset in range(0, size, STEP):
        length = min(STEP, size - offset)
        data = read(length, offset)
        if len(data) != length:
            sys.exit(f"{len(data)} of {length} bytes at {offset}")
        digest.update(data)
    print(digest.hexdigest())


main()
