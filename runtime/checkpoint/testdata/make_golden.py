"""Writes golden.safetensors with the reference implementation (the safetensors
package), which safetensors_test.cc reads and must reproduce byte for byte.

Run: pip install safetensors==0.4.5 && python3 make_golden.py golden.safetensors
"""

import struct
import sys

import safetensors


def tensor(dtype, shape, data):
    return {"dtype": dtype, "shape": shape, "data": data}


def main():
    # In no particular order: the writer sorts by element size, then by name.
    tensors = {
        "mask": tensor("bool", [3], bytes([1, 0, 1])),
        "blocks.1.weight": tensor(
            "float32", [2, 3], struct.pack("<6f", 0, 1, 2, 3, 4, -5.5)
        ),
        "blocks.0.weight": tensor("float32", [2], struct.pack("<2f", 0.25, -1)),
        # The upper halves of the floats 1, -2 and 0.5.
        "half": tensor(
            "bfloat16", [1, 3], struct.pack("<3H", 0x3F80, 0xC000, 0x3F00)
        ),
        "ids": tensor("int64", [2], struct.pack("<2q", -1, 1 << 40)),
        "double": tensor("float64", [], struct.pack("<d", 0.1)),
        "index": tensor("int32", [1], struct.pack("<i", -7)),
        "bytes": tensor("uint8", [2, 1], bytes([0, 255])),
        "none": tensor("float32", [0, 4], b""),
    }
    with open(sys.argv[1], "wb") as out:
        out.write(safetensors.serialize(tensors, {"format": "pt"}))


if __name__ == "__main__":
    main()
