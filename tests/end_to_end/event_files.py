"""Reads TensorBoard's event files without TensorFlow and without the code that
wrote them: records with their checksums, and of protobuf's wire format what the
messages need."""

import glob
import struct


def after_bits(crc, bits):
    """The remainder once so many more bits have gone through it."""
    for _ in range(bits):
        crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc


OF_BYTE = [after_bits(byte, 8) for byte in range(256)]


def crc32c(data):
    """Castagnoli's."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ OF_BYTE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def records(path):
    """The data of each record."""
    with open(path, "rb") as file:
        content = file.read()
    at = 0
    while at < len(content):
        header = content[at:at + 8]
        (size,) = struct.unpack("<Q", header)
        (of_size,) = struct.unpack_from("<I", content, at + 8)
        assert of_size == masked(header), (path, at)
        data = content[at + 12:at + 12 + size]
        assert len(data) == size, (path, at)
        (of_data,) = struct.unpack_from("<I", content, at + 12 + size)
        assert of_data == masked(data), (path, at)
        yield data
        at += size + 16


def fields(message):
    """{field: [values]}; bytes for what is length-delimited."""
    found = {}
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        key = varint()
        kind = key & 7
        if kind == 0:
            value = varint()
        else:
            size = {1: 8, 2: None, 5: 4}[kind]
            size = varint() if size is None else size
            value = message[at:at + size]
            assert len(value) == size
            at += size
        found.setdefault(key >> 3, []).append(value)
    return found


def tensor(message):
    """(shape, numbers) of a TensorProto."""
    of = fields(message)
    shape = [fields(dim)[1][0] for dim in fields(of[2][0]).get(2, [])]
    letter = {1: "f", 2: "d", 3: "i"}[of[1][0]]
    content = of[4][0]
    return shape, struct.unpack(
        "<%d%s" % (len(content) // struct.calcsize(letter), letter), content)


def tensors(folder):
    """[(step, plugin, tag, shape, numbers)] of histograms and meshes."""
    found = []
    for path in sorted(glob.glob(folder + "/events.out.tfevents.*")):
        for record in records(path):
            event = fields(record)
            for summary in event.get(5, []):
                for value in fields(summary).get(1, []):
                    of = fields(value)
                    if 9 not in of:
                        continue
                    plugin = fields(fields(of[9][0])[1][0])[1][0].decode()
                    if plugin in ("histograms", "mesh"):
                        found.append((event[2][0], plugin, of[1][0].decode(),
                                      *tensor(of[8][0])))
    return found
