"""The mark that says a file is synthetic: an uncompressed XMP packet with IPTC's digital source type.

The EU's AI Act, Article 50(2), asks for a machine-readable mark. Standards: IPTC Photo Metadata ("Digital Source Type")
and part 3 of the XMP specification for the place of the packet in each file format. Equal marks are equal bytes.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias

from ohlora.errors import ImageError
from ohlora.io.colors import SRGB_PROFILE

SourceType: TypeAlias = Literal["trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia"]
_VOCABULARY = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_PACKET = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\n'
    '<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/"\n'
    ' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"\n'
    ' xmp:CreatorTool="{tool}"\n'
    ' Iptc4xmpExt:DigitalSourceType="{vocabulary}{source_type}"/>\n'
    '</rdf:RDF></x:xmpmeta>\n<?xpacket end="r"?>'
)
_FIELD = r"%s\s*(?:=\s*[\"']([^\"']*)[\"']|>([^<]*)<)"
_SOURCE_TYPE = re.compile(_FIELD % "Iptc4xmpExt:DigitalSourceType")
_TOOL = re.compile(_FIELD % "xmp:CreatorTool")

_JPEG_HEADER = b"http://ns.adobe.com/xap/1.0/\0"
_PNG_KEYWORD = b"XML:com.adobe.xmp"
_GIF_HEADER = b"\x21\xff\x0bXMP DataXMP"
# A decoder that skips the packet as if it were sub-blocks lands somewhere in this run and walks to its end.
_GIF_TRAILER = bytes([1, *range(255, -1, -1), 0])
_EBML, _SEGMENT, _TAGS = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67", b"\x12\x54\xc3\x67"
_BOX_ID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
# Our packets are below 1 kB; a stranger's larger one is not looked at.
_MAX_PACKET = 1 << 20


@dataclass(frozen=True)
class Mark:
    """What a file says about its origin.

    Attributes:
        source_type: "trainedAlgorithmicMedia" for a rendered portrait, "compositeWithTrainedAlgorithmicMedia" for a
            photograph that was changed; any other URI as it is, when read from a stranger's file.
        tool: the program, as `xmp:CreatorTool`. Ours has no version: files stay equal from release to release, and a
            job that a newer one resumes.
    """

    source_type: SourceType | str
    tool: str = "ohlora"

    @property
    def uri(self) -> str:
        """The full URI of the source type."""
        return self.source_type if "/" in self.source_type else _VOCABULARY + self.source_type

    def packet(self) -> bytes:
        """The XMP packet, UTF-8, the same bytes for the same mark."""
        return _PACKET.format(tool=self.tool, vocabulary=_VOCABULARY, source_type=self.source_type).encode()


RENDERED = Mark("trainedAlgorithmicMedia")
RECOLORED = Mark("compositeWithTrainedAlgorithmicMedia")


def mark_image(data: bytes, mark: Mark) -> bytes:
    """An encoded JPEG, PNG, WebP or GIF with the mark added; its pixels' bytes stay as they are.

    Raises ImageError for bytes of another format.
    """
    for start, insert in _INSERTERS.items():
        if data.startswith(start):
            return insert(data, mark.packet())
    raise ImageError("cannot mark an image that is not a JPEG, PNG, WebP or GIF")


def mark_movie(path: Path, mark: Mark) -> None:
    """Append the mark to a finished MP4, M4V, MOV, Matroska or WebM file; nothing in it moves, its index stays true.

    Raises ImageError for a file of another kind.
    """
    packet = mark.packet()
    with path.open("r+b") as file:
        start = file.read(8)
        if start[4:8] == b"ftyp":
            file.seek(0, 2)
            file.write(struct.pack(">I4s", 24 + len(packet), b"uuid") + _BOX_ID + packet)
            return
        body = _segment(file) if start.startswith(_EBML) else None
        if body is None:
            raise ImageError("cannot mark a video that is not MP4, MOV, Matroska or WebM, or that is not complete")
        # The last element of the segment, which is the last of the file.
        tag = _element(b"\x45\xa3", b"XMP") + _element(b"\x44\x87", packet)
        tags = _element(_TAGS, _element(b"\x73\x73", _element(b"\x63\xc0", b"") + _element(b"\x67\xc8", tag)))
        size = file.seek(0, 2) - body + len(tags)
        file.write(tags)
        file.seek(body - 8)
        file.write((1 << 56 | size).to_bytes(8, "big"))


def mark_file(path: Path, mark: Mark) -> None:
    """Add the mark to a finished image or video, in place. Raises ImageError as `mark_image` and `mark_movie`."""
    with path.open("rb") as file:
        start = file.read(8)
    if start.startswith(tuple(_INSERTERS)):
        path.write_bytes(mark_image(path.read_bytes(), mark))
    else:
        mark_movie(path, mark)


def read_mark(path: Path | str) -> Mark | None:
    """The mark of an image or video file, ours or another program's; None when it has none.

    Knows JPEG, PNG, WebP, GIF, MP4, M4V, MOV, Matroska and WebM.
    Reads the parts that may hold one, not the pixels. Raises OSError when the file cannot be read.
    """
    with Path(path).open("rb") as file:
        start = file.read(12)
        for magic, packets in _READERS.items():
            if start.startswith(magic) or (magic == b"ftyp" and start[4:8] == magic):
                for packet in packets(file):
                    if (mark := _parsed(packet)) is not None:
                        return mark
    return None


def _parsed(packet: bytes) -> Mark | None:
    text = packet.decode("utf-8", "replace")
    found = _SOURCE_TYPE.search(text)
    if found is None:
        return None
    tool = _TOOL.search(text)
    uri = (found[1] or found[2] or "").strip()
    return Mark(uri.removeprefix(_VOCABULARY), (tool[1] or tool[2] or "").strip() if tool else "")


def say_srgb(data: bytes) -> bytes:
    """An encoded JPEG, PNG or WebP that names no colors, with the statement that they are sRGB.

    A small profile, in PNG the format's own chunk; always the same bytes. Raises ImageError for another format.
    """
    if data.startswith(b"\xff\xd8"):
        return _with_segment(data, 0xFFE2, b"ICC_PROFILE\0\1\1" + SRGB_PROFILE)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _with_chunk(data, b"sRGB\0")
    if data.startswith(b"RIFF"):
        header, chunks = _extended(data, 0x20)
        return _riff(header + _webp_chunk(b"ICCP", SRGB_PROFILE) + chunks)
    raise ImageError("cannot name the colors of an image that is not a JPEG, PNG or WebP")


def _insert_jpeg(data: bytes, packet: bytes) -> bytes:
    return _with_segment(data, 0xFFE1, _JPEG_HEADER + packet)


def _with_segment(data: bytes, kind: int, body: bytes) -> bytes:
    place = 2
    # JFIF and EXIF come first by their own standards.
    while data[place : place + 2] == b"\xff\xe0" or (
        data[place : place + 2] == b"\xff\xe1" and data[place + 4 : place + 10] == b"Exif\0\0"
    ):
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return data[:place] + struct.pack(">HH", kind, len(body) + 2) + body + data[place:]


def _insert_png(data: bytes, packet: bytes) -> bytes:
    return _with_chunk(data, b"iTXt" + _PNG_KEYWORD + b"\0\0\0\0\0" + packet)


def _with_chunk(data: bytes, body: bytes) -> bytes:
    """A PNG file with another chunk; body: its kind and content."""
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    end = 8 + 12 + 13  # signature, then IHDR, which must be the first chunk
    return data[:end] + chunk + data[end:]


def _insert_webp(data: bytes, packet: bytes) -> bytes:
    header, chunks = _extended(data, 0x04)
    return _riff(header + chunks + _webp_chunk(b"XMP ", packet))


def _webp_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack("<4sI", kind, len(content)) + content + b"\0" * (len(content) % 2)


def _riff(chunks: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def _extended(data: bytes, flag: int) -> tuple[bytes, bytes]:
    """Of a WebP file: the header chunk of the extended format with `flag` set, and all other chunks."""
    chunks = data[12 : 8 + int.from_bytes(data[4:8], "little")]
    if chunks[:4] == b"VP8X":
        return chunks[:8] + bytes([chunks[8] | flag]) + chunks[9:18], chunks[18:]
    if chunks[:4] == b"VP8L":
        bits = int.from_bytes(chunks[9:13], "little")
        width, height, alpha = bits & 0x3FFF, bits >> 14 & 0x3FFF, bits >> 28 & 1  # the first two less one
    else:
        width, height = (int.from_bytes(chunks[i : i + 2], "little") - 1 & 0x3FFF for i in (14, 16))
        alpha = 0
    sizes = width.to_bytes(3, "little") + height.to_bytes(3, "little")
    return struct.pack("<4sII", b"VP8X", 10, flag | alpha << 4) + sizes, chunks


def _insert_gif(data: bytes, packet: bytes) -> bytes:
    flags = data[10]
    end = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)  # behind the global color table
    return b"GIF89a" + data[6:end] + _GIF_HEADER + packet + _GIF_TRAILER + data[end:]


_INSERTERS: dict[bytes, Callable[[bytes, bytes], bytes]] = {
    b"\xff\xd8": _insert_jpeg,
    b"\x89PNG\r\n\x1a\n": _insert_png,
    b"RIFF": _insert_webp,
    b"GIF8": _insert_gif,
}


def _jpeg_packets(file: BinaryIO) -> Iterator[bytes]:
    file.seek(2)
    while len(head := file.read(4)) == 4 and head[0] == 0xFF and head[1] not in (0xD9, 0xDA):
        size = int.from_bytes(head[2:], "big") - 2
        body = file.read(max(size, 0))
        if head[1] == 0xE1 and body.startswith(_JPEG_HEADER):
            yield body[len(_JPEG_HEADER) :]


def _png_packets(file: BinaryIO) -> Iterator[bytes]:
    file.seek(8)
    while len(head := file.read(8)) == 8:
        size, kind = int.from_bytes(head[:4], "big"), head[4:]
        if kind == b"iTXt" and size <= _MAX_PACKET:
            keyword, _, rest = file.read(size).partition(b"\0")
            if keyword == _PNG_KEYWORD and rest[:1] == b"\0":  # not compressed
                yield rest[2:].split(b"\0", 2)[-1]
            file.seek(4, 1)
        else:
            file.seek(size + 4, 1)


def _webp_packets(file: BinaryIO) -> Iterator[bytes]:
    while len(head := file.read(8)) == 8:
        size = int.from_bytes(head[4:], "little")
        if head[:4] == b"XMP " and size <= _MAX_PACKET:
            yield file.read(size)
            size = 0
        file.seek(size + size % 2, 1)


def _gif_packets(file: BinaryIO) -> Iterator[bytes]:
    # Written before the first frame by us, anywhere by others; a GIF is read in blocks for it, not decoded.
    held = b""
    file.seek(0)
    while block := file.read(_MAX_PACKET):
        held += block
        if (start := held.find(_GIF_HEADER)) >= 0:
            held = held[start + len(_GIF_HEADER) :] + file.read(_MAX_PACKET)
            yield held.split(b"<?xpacket end", 1)[0]
            return
        held = held[-len(_GIF_HEADER) :]


def _movie_packets(file: BinaryIO) -> Iterator[bytes]:
    place = 0
    while True:
        file.seek(place)
        head = file.read(32)
        if len(head) < 8:
            return
        size, kind, header = int.from_bytes(head[:4], "big"), head[4:8], 8
        if size == 1:  # a 64-bit size follows
            size, header = int.from_bytes(head[8:16], "big"), 16
        if kind == b"uuid" and head[header : header + 16] == _BOX_ID and size <= _MAX_PACKET:
            file.seek(place + header + 16)
            yield file.read(size - header - 16)
        if size < header:  # 0: to the end of the file
            return
        place += size


def _number(file: BinaryIO, *, marker: bool) -> tuple[int, int]:
    """An EBML number of 1 to 8 bytes and its length; length 0 at the end of the file. marker: with its length's bit."""
    first = file.read(1)
    if not first or not first[0]:
        return 0, 0
    length = 9 - first[0].bit_length()
    value = int.from_bytes(first + file.read(length - 1), "big")
    return value if marker else value & (1 << 7 * length) - 1, length


def _elements(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """ID, size and size's length of the EBML elements from here on; the file stands at the content of each."""
    while True:
        identity, id_length = _number(file, marker=True)
        size, length = _number(file, marker=False)
        if not id_length or not length:
            return
        place = file.tell()
        yield identity.to_bytes(id_length, "big"), size, length
        file.seek(place + size)


def _segment(file: BinaryIO) -> int | None:
    """Where the content of a Matroska segment begins that fills the file, with a size of 8 bytes; None without."""
    file.seek(0)
    for identity, size, length in _elements(file):
        if identity == _SEGMENT:
            body = file.tell()
            return body if length == 8 and body + size == file.seek(0, 2) else None
    return None


def _matroska_packets(file: BinaryIO) -> Iterator[bytes]:
    if (body := _segment(file)) is None:
        return
    file.seek(body)
    for identity, size, _ in _elements(file):
        if identity == _TAGS and size <= _MAX_PACKET:
            yield file.read(size)


def _element(identity: bytes, content: bytes) -> bytes:
    return identity + (1 << 28 | len(content)).to_bytes(4, "big") + content


_READERS: dict[bytes, Callable[[BinaryIO], Iterator[bytes]]] = {
    b"\xff\xd8": _jpeg_packets,
    b"\x89PNG\r\n\x1a\n": _png_packets,
    b"RIFF": _webp_packets,
    b"GIF8": _gif_packets,
    b"ftyp": _movie_packets,
    _EBML: _matroska_packets,
}
