"""Meshes for the tests here, which have nothing but Python: vertices and faces."""

import math

BOX_FACES = [(0, 2, 3, 1), (4, 5, 7, 6), (0, 1, 5, 4), (2, 6, 7, 3),
             (0, 4, 6, 2), (1, 3, 7, 5)]


def write_obj(path, vertices, faces):
    with open(path, "w") as out:
        for vertex in vertices:
            out.write("v %r %r %r\n" % tuple(vertex))
        for face in faces:
            out.write("f " + " ".join(str(i + 1) for i in face) + "\n")


def box(height=1, width=1):
    """Of sides 1 or `width`, and `height` along y."""
    return [(width * x, height * y, width * z) for z in (0, 1) for y in (0, 1)
            for x in (0, 1)], BOX_FACES


def torus(tube):
    """A ring of radius 1 about y."""
    n, m = 24, 12

    def ring(j):
        return 1 + tube * math.cos(2 * math.pi * j / m)

    return ([(ring(j) * math.cos(2 * math.pi * i / n),
              tube * math.sin(2 * math.pi * j / m),
              ring(j) * math.sin(2 * math.pi * i / n))
             for i in range(n) for j in range(m)],
            [(i * m + j, i * m + (j + 1) % m, (i + 1) % n * m + (j + 1) % m,
              (i + 1) % n * m + j) for i in range(n) for j in range(m)])
