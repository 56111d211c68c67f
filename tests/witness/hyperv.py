"""Reads a configuration of Hyper-V with dissect.hypervisor and prints what it says, a value on a line.

hyperv.py FILE
"""

import json
import sys

from dissect.hypervisor.descriptor.hyperv import HyperVFile


def show(path, value):
    if isinstance(value, dict):
        print(json.dumps([path, "node", None]))
        for name, child in value.items():
            show(path + "/" + name, child)
    elif isinstance(value, bytes):
        print(json.dumps([path, "bytes", value.hex()]))
    else:
        print(json.dumps([path, type(value).__name__, value]))


with open(sys.argv[1], "rb") as file:
    show("", HyperVFile(file).as_dict())
