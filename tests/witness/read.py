"""Reads a disk image with a reader that isn't ours and prints the content's SHA-256.

read.py libvhdi LEAF [PARENT ... BASE]     the whole chain is named
read.py dissect LEAF                       parents are found by the image's own locator
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
    leaf = images[0]
    return leaf.get_media_size(), leaf.read_buffer_at_offset


def dissect(paths):
    from dissect.hypervisor.disk.vhdx import VHDX
    from pathlib import Path

    leaf = VHDX(Path(paths[0]))

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
