#!/usr/bin/python3
"""Writes emoji as pictures with their names as captions.

usage: examples/emoji.py FOLDER

FOLDER/train gets a PNG and a .txt for each emoji of one character,
FOLDER/held_out those whose names no model is to see in training. Needs
Debian's fonts-noto-color-emoji, unicode-data and python3-pil.
"""
import pathlib
import re
import sys

from PIL import Image, ImageDraw, ImageFont

FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
NAMES = "/usr/share/unicode/emoji/emoji-test.txt"
FONT_SIZE = 109  # the only one that the font's bitmaps have
SIDE = 128

# Their words all occur in other names.
HELD_OUT = {
    "green apple", "blue heart", "black heart", "orange circle",
    "yellow circle", "purple square", "cat face",
    "smiling face with sunglasses",
}


def single_characters():
    """Yields (character, name) of each emoji that is one character."""
    line = re.compile(r"^([0-9A-F]+)( FE0F)? *; fully-qualified +# \S+ E\S+ (.*)$")
    with open(NAMES, encoding="utf-8") as names:
        for match in filter(None, map(line.match, names)):
            yield chr(int(match[1], 16)), match[3]


def draw(character, font):
    """The emoji in the middle of a white square."""
    image = Image.new("RGB", (2 * SIDE, 2 * SIDE), "white")
    ImageDraw.Draw(image).text(
        (SIDE, SIDE), character, font=font, anchor="mm", embedded_color=True)
    inside = Image.eval(image.convert("L"), lambda value: 255 - value).getbbox()
    if inside is None:
        return None
    left, top, right, bottom = inside
    side = max(right - left, bottom - top) + 8
    x, y = (left + right - side) // 2, (top + bottom - side) // 2
    return image.crop((x, y, x + side, y + side)).resize(
        (SIDE, SIDE), Image.LANCZOS)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__.strip())
    font = ImageFont.truetype(FONT, FONT_SIZE)
    counts = {"train": 0, "held_out": 0}
    for character, name in single_characters():
        part = "held_out" if name in HELD_OUT else "train"
        folder = pathlib.Path(sys.argv[1], part)
        folder.mkdir(parents=True, exist_ok=True)
        picture = draw(character, font)
        if picture is None:
            continue
        stem = f"{ord(character):05x}"
        picture.save(folder / f"{stem}.png")
        (folder / f"{stem}.txt").write_text(name, encoding="utf-8")
        counts[part] += 1
    print(f"{counts['train']} emoji to train on, {counts['held_out']} held out")


if __name__ == "__main__":
    main()
