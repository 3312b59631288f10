"""Mutations of whole files: bytes, archives, pickles, safetensors; each chosen by the file's content."""

import io
import json
import pickle
import pickletools
import random
import struct
import zipfile
import zlib
from collections.abc import Callable

from fuzzing.hostile import CANARY, TEXTS, spoil_json, spoil_lines, spoil_toml

Spoil = Callable[[random.Random, bytes], bytes]
INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
PICKLES = (
    b"cos\nsystem\n(S'touch fuzz_canary'\ntR.",
    f"c{CANARY}\nmake\n(tR.".encode(),
    b"cbuiltins\nexec\n(S'import fuzz_canary'\ntR.",
    b"csubprocess\ncall\n(S'true'\ntR.",
    b"\x80\x02}q\x00X\x04\x00\x00\x00selfh\x00s.",
    b"\x80\x02]q\x00h\x00a.",
    b"\x80\x02" + b"(" * 50_000 + b"t" * 50_000 + b".",
    b"\x80\x02" + b"]" * 20_000 + b"a" * 19_999 + b".",
    b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
    b"ctorch\nload\n(S'/etc/passwd'\ntR.",
    b"\x80\x02ctorch\nzeros\n(J\xff\xff\xff\x7ftR.",
    b"\x80\x02\x8a\xff" + b"\xff" * 255 + b".",
    pickle.dumps({"a": [1] * 3, 5: None, ("t",): {1, 2}}, 2),
)


OTHER_FORMATS = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(touch fuzz_canary) run\n%%EOF\n",
    b"\xd7\xcd\xc6\x9a" + bytes(18) + b"\x01\x00\t\x00" + bytes(40),
    b"%PDF-1.4\n",
    b"<svg xmlns='http://www.w3.org/2000/svg'><script>fuzz_canary</script></svg>",
    b"P5\n99999 99999\n255\n",
    b"GIF89a\xff\xff\xff\xff\x00\x00\x00;",
)
"""What an image file may be beside an image: some of it is handed to other programs by those who are not careful."""


def spoil_image(chance: random.Random, content: bytes) -> bytes:
    """Something else in place of an image, or its bytes spoilt."""
    return chance.choice(OTHER_FORMATS) if chance.random() < 0.2 else spoil_bytes(chance, content)


def spoil_bytes(chance: random.Random, content: bytes) -> bytes:
    """Flip, cut, insert, repeat or overwrite bytes in one to four places."""
    found = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4))):
        place = chance.randrange(len(found) + 1)
        way = chance.randrange(7)
        if way == 0 and found:
            found[place % len(found)] ^= 1 << chance.randrange(8)
        elif way == 1:
            del found[place:]
        elif way == 2:
            found[place:place] = chance.randbytes(chance.choice((1, 4, 100)))
        elif way == 3:
            other = chance.randrange(len(found) + 1)
            found[place:place] = found[other : other + chance.choice((4, 64, 1000))]
        elif way == 4:
            del found[place : place + chance.choice((1, 4, 64))]
        elif way == 5:
            size, number = chance.choice((1, 2, 4, 8)), chance.choice(INTERESTING)
            found[place : place + size] = (number & (256**size - 1)).to_bytes(size, chance.choice(("little", "big")))
        else:
            found[place : place + 8] = chance.choice(TEXTS).encode("utf-8", "replace")[:200]
    return bytes(found)


def spoil_zip(chance: random.Random, content: bytes) -> bytes:
    """Write an archive again with a member spoilt, renamed, twice there, compressed otherwise, or of another size."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(each.filename, archive.read(each)) for each in archive.infolist()]
    number = chance.randrange(len(members))
    # Half of the time what says how the rest is read, if there is such a member.
    telling = [n for n, (name, _) in enumerate(members) if name.endswith((".pkl", ".json"))]
    if telling and chance.random() < 0.6:
        number = chance.choice(telling)
    name, inner = members[number]
    way = chance.randrange(10)
    compression = zipfile.ZIP_STORED
    if way < 5:
        members[number] = (name, spoil(name, chance, inner))
    elif way == 5:
        members[number] = (chance.choice((*TEXTS, "../" + name, "/" + name, name + "\x00x"))[:5000], inner)
    elif way == 6:
        members.insert(chance.randrange(len(members) + 1), (name, spoil(name, chance, inner)))
    elif way == 7:
        del members[number]
    elif way == 8:
        compression = chance.choice(COMPRESSIONS)
    else:
        members[number] = (name, bytes(4_000_000))
        compression = zipfile.ZIP_DEFLATED
    written = _archive(members, compression)
    return _lying(chance, written) if chance.random() < 0.15 else written


def _archive(members: list[tuple[str, bytes]], compression: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, inner in members:
            # With a time of its own, so that a mutation is the same whenever it is made.
            entry = zipfile.ZipInfo("x")
            entry.filename = name.encode("utf-8", "replace").decode()
            entry.compress_type = compression
            entry.flag_bits = 0
            archive.writestr(entry, inner)
    return buffer.getvalue()


def _lying(chance: random.Random, content: bytes) -> bytes:
    """An archive whose directory says something untrue: a size, a method, that a member is encrypted, an offset."""
    found = bytearray(content)
    entry = found.find(b"PK\x01\x02")
    for _ in range(chance.randrange(8)):
        following = found.find(b"PK\x01\x02", entry + 4)
        entry = following if following >= 0 else entry
    place, size = chance.choice(((8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (38, 4), (42, 4)))
    number = chance.choice((*INTERESTING, 8, 12, 14, 93, 99))
    found[entry + place : entry + place + size] = (number & (256**size - 1)).to_bytes(size, "little")
    return bytes(found)


def spoil_pickle(chance: random.Random, content: bytes) -> bytes:
    """A hostile pickle, a good one with an opcode changed, or a hostile piece within a good one."""
    way = chance.random()
    if way < 0.3:
        return chance.choice(PICKLES)
    try:
        codes = [(code, place or 0) for code, _, place in pickletools.genops(content)]
    except ValueError:
        return spoil_bytes(chance, content)
    _, place = chance.choice(codes)
    found = bytearray(content)
    if way < 0.5:
        found[place:place] = chance.choice(PICKLES)[:-1]
    elif way < 0.7:
        found[place : place + 1] = chance.choice(pickletools.opcodes).code.encode("latin-1")
    else:
        following = next((other for _, other in codes if other > place), len(content))
        piece = content[place:following]
        found[place:following] = chance.choice((b"", piece * 2, spoil_bytes(chance, piece), b"N", b"K\x05", b"]"))
    return bytes(found)


def spoil_safetensors(chance: random.Random, content: bytes) -> bytes:
    """A header that says something else than the data that follow it."""
    (size,) = struct.unpack("<Q", content[:8])
    header, data = content[8 : 8 + size], content[8 + size :]
    spoilt = spoil_json(chance, header)
    claimed = len(spoilt) if chance.random() < 0.8 else chance.choice((*INTERESTING, size + 1, len(content)))
    return struct.pack("<Q", claimed) + spoilt + data


def spoil(name: str, chance: random.Random, content: bytes) -> bytes:
    """Spoil a file by what it is; one time in four just its bytes, whatever it is."""
    if chance.random() < 0.25 or not content:
        return spoil_bytes(chance, content)
    try:
        return spoiler_of(name, content)(chance, content)
    except (ValueError, LookupError, RuntimeError, zipfile.BadZipFile, zlib.error):
        # It was spoilt before, or has lost all that could be spoilt: RuntimeError is what zipfile says of members
        # that are encrypted or packed in a way that it does not know.
        return spoil_bytes(chance, content)


def spoiler_of(name: str, content: bytes) -> Spoil:
    """What knows the form of a file."""
    if content.startswith(b"PK\x03\x04"):
        return spoil_zip
    if content.startswith((b"\x89PNG", b"\xff\xd8\xff")):
        return spoil_image
    if content.startswith(b"\x80"):
        return spoil_pickle
    if name.endswith(".safetensors"):
        return spoil_safetensors
    if name.endswith(".jsonl"):
        return spoil_lines
    if name.endswith(".toml"):
        return spoil_toml
    if content.lstrip()[:1] in (b"{", b"[") and _is_json(content):
        return spoil_json
    return spoil_bytes


def _is_json(content: bytes) -> bool:
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        return False
    return True
