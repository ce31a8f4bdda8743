"""A bar chart as PNG, from the standard library alone: a machine with a GPU need not have anything to draw with."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Letters of 3 × 5 dots, five rows of three bits each as one octal digit. Small letters are drawn as capitals.
GLYPHS = {
    " ": "00000", "!": "22202", "%": "51245", "(": "12221", ")": "42224", "+": "02720", ",": "00024", "-": "00700",
    ".": "00002", "/": "11244", ":": "02020", "0": "75557", "1": "26227", "2": "61247", "3": "61216", "4": "55711",
    "5": "74616", "6": "34757", "7": "71122", "8": "75757", "9": "75716", "=": "07070", "A": "25755", "B": "65656",
    "C": "34443", "D": "65556", "E": "74647", "F": "74644", "G": "34553", "H": "55755", "I": "72227", "J": "11152",
    "K": "55655", "L": "44447", "M": "57755", "N": "65555", "O": "25552", "P": "65644", "Q": "25563", "R": "65655",
    "S": "34216", "T": "72222", "U": "55557", "V": "55552", "W": "55775", "X": "55255", "Y": "55222", "Z": "71247",
    "_": "00007",
}  # fmt: skip
SCALE = 2  # pixels per dot
LETTER = 4 * SCALE
LINE = 9 * SCALE
WHITE, BLACK, BLUE, RED = (255, 255, 255), (30, 30, 30), (70, 120, 180), (200, 60, 50)
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Bar:
    """value and goal as shares of 1; goal is drawn as a line across the bar."""

    label: str
    value: float
    goal: float | None


class Canvas:
    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._pixels = bytearray(bytes(WHITE) * (width * height))

    def fill(self, x: int, y: int, width: int, height: int, colour: Colour) -> None:
        x_end, y_end = min(x + width, self.width), min(y + height, self.height)
        for row in range(max(y, 0), y_end):
            start = (row * self.width + x) * 3
            self._pixels[start : start + 3 * max(0, x_end - x)] = bytes(colour) * max(0, x_end - x)

    def write(self, x: int, y: int, text: str, colour: Colour = BLACK) -> None:
        for number, letter in enumerate(text.upper()):
            for row, bits in enumerate(GLYPHS.get(letter, GLYPHS["_"])):
                for column in range(3):
                    if int(bits, 8) >> (2 - column) & 1:
                        at = x + number * LETTER + column * SCALE
                        self.fill(at, y + row * SCALE, SCALE, SCALE, colour)

    def png(self) -> bytes:
        stride = self.width * 3
        lines = (self._pixels[start : start + stride] for start in range(0, len(self._pixels), stride))
        header = struct.pack(">IIBBBBB", self.width, self.height, 8, 2, 0, 0, 0)  # 8 bits, RGB
        body = zlib.compress(b"".join(b"\0" + line for line in lines), 9)
        return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def draw(path: Path, title: str, bars: Sequence[Bar], full: float = 1.0) -> None:
    """One line per bar: its label, the bar on a scale from 0 to full, its value in percent."""
    left = LETTER * (max((len(bar.label) for bar in bars), default=0) + 2)
    across = 400
    canvas = Canvas(left + across + 8 * LETTER, LINE * (len(bars) + 3))
    canvas.write(LETTER, LINE // 2, title)
    for number, bar in enumerate(bars):
        y = LINE * (number + 2)
        canvas.write(LETTER, y + SCALE, bar.label)
        length = round(across * min(bar.value / full, 1.0))
        canvas.fill(left, y, length, LINE - 2 * SCALE, BLUE)
        if bar.goal is not None:
            canvas.fill(left + round(across * bar.goal / full), y - SCALE, SCALE, LINE, RED)
        canvas.write(left + length + LETTER, y + SCALE, f"{100 * bar.value:.0f}%")
    path.write_bytes(canvas.png())
