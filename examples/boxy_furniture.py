#!/usr/bin/python3
"""Writes meshes of tables, chairs and shelves, made of boxes.

usage: examples/boxy_furniture.py FOLDER [COUNT]

FOLDER/table and so on get COUNT (160) OBJ files each, of 48 to 84 triangles: furniture
of few faces, as a model of meshes' tokens learns in minutes.
"""
import pathlib
import random
import sys

COUNT = 160
CORNERS = [(x, y, z) for y in (0, 1) for z in (0, 1) for x in (0, 1)]
# Counter-clockwise seen from outside.
SIDES = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4),
         (1, 5, 7, 3)]


def legs(width, depth, height, thick):
    return [(x, 0, z, thick, height, thick)
            for x in (0, width - thick) for z in (0, depth - thick)]


def table(draw):
    width, depth = draw.uniform(1, 2), draw.uniform(0.7, 1.1)
    height, thick = draw.uniform(0.5, 1.2), draw.uniform(0.08, 0.15)
    return legs(width, depth, height, thick) + [(0, height, 0, width, thick,
                                                 depth)]


def chair(draw):
    side, height = draw.uniform(0.5, 0.8), draw.uniform(0.4, 0.8)
    thick, back = draw.uniform(0.07, 0.12), draw.uniform(0.4, 1)
    return legs(side, side, height, thick) + [
        (0, height, 0, side, thick, side),
        (0, height + thick, 0, side, back, thick)]


def shelf(draw):
    width, depth = draw.uniform(0.8, 1.6), draw.uniform(0.3, 0.6)
    thick, boards = draw.uniform(0.08, 0.12), draw.randint(2, 5)
    height = boards * draw.uniform(0.35, 0.5)
    inside = width - 2 * thick
    return [(0, 0, 0, thick, height, depth),
            (width - thick, 0, 0, thick, height, depth)] + [
                (thick, i * (height - thick) / (boards - 1), 0, inside, thick,
                 depth) for i in range(boards)]


def write(path, boxes):
    with open(path, "w") as out:
        for x, y, z, width, height, depth in boxes:
            for i, j, k in CORNERS:
                out.write(f"v {x + i * width} {y + j * height} "
                          f"{z + k * depth}\n")
        for box in range(len(boxes)):
            for side in SIDES:
                out.write("f " + " ".join(str(8 * box + corner + 1)
                                          for corner in side) + "\n")


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    count = int(sys.argv[2]) if len(sys.argv) == 3 else COUNT
    draw = random.Random(1)
    for make in (chair, shelf, table):
        folder = pathlib.Path(sys.argv[1]) / make.__name__
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            write(folder / f"{make.__name__}_{i:03}.obj", make(draw))


if __name__ == "__main__":
    main()
