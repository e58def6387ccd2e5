"""Mutations of files: bytes, and the structure of their content.

Each function takes a `random.Random` and a file's content and returns other content.
"""

import gzip
import io
import json
import pickletools
import struct
import warnings
import zipfile
from copy import deepcopy
from random import Random
from typing import Any

HUGE = (-1, 0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**64 - 1)


class Raw(str):
    """Raw JSON text."""


VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 7, 0.5, 1e308, 2**31, 2**63, 2**64, 10**12, "", "a", "\0"),
    *([], {}, [1], [[]], {"": None}, {"a": [1, {"b": 2}]}, "x" * 3000, "\n", "\u2028", "<unk>"),
    *("../x", "/dev/zero", "a\0b", "-1", "1e400", "nan", "\ue000", "\U0001f600", "</s>"),
    *map(Raw, ("NaN", "Infinity", "-Infinity", "1e400", "9" * 400, "-0", '"\\ud800"', "1.0")),
    *map(Raw, ("[" * 1500 + "]" * 1500, '{"a":' * 1500 + "1" + "}" * 1500, "tru", "'a'")),
)
YAML = (
    *("!!int ''", "!!bool foo", "!!timestamp 1", "2001-99-99", "&x [*x]", "*x", "!!python/name:os"),
    *("~", "''", "[]", "{}", "[[[[]]]]", "{? [1] : 2}", "!!set {a}", "!!binary '=='", "-.inf"),
    *("0x10", "1_000", "1e999", "9" * 400, '"\\x00"', '"\\ud800"', "|", ">", "%", "'", "---"),
    *("999999999999", "-1", "yes", "1:30", "<<: {a: b}", "[" * 1200),
)
_PICKLE = (
    *(b"r\xff\xff\xff\xff", b"\x96" + struct.pack("<Q", 1 << 40), b"\x8b\xff\xff\xff\x7f"),
    *(b"cos\nsystem\n", b"ctorch\nFloatStorage\n", b"cargparse\nNamespace\n", b")R", b")\x81"),
    *(b"}b", b"h\x00h\x00\x86q\x00" * 40, b"(", b"0", b"1", b"2", b"N", b"]", b"}", b")", b"K\x00"),
    *(b"h\x00", b"Q", b"P0\n", b"a", b"e", b"s", b"u", b"d", b"l", b"t", b"\x85", b"o", b"I9\n"),
    *(b"\x8a\x08" + b"\xff" * 7 + b"\x7f", b"X\xff\xff\xff\xff", b"M\xff\xff"),
    b"J\xff\xff\xff\xff",
)  # fmt: skip


def some_bytes(random: Random, data: bytes) -> bytes:
    """Mutates bytes: flips, truncates, repeats, moves, inserts, or writes a huge number."""
    mutated = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 4, 16))):
        size = len(mutated)
        start, target = random.randint(0, size), random.randint(0, size)
        length = min(random.choice((1, 4, 8, 64, 4096)), size - start)
        match random.randrange(9):
            case 0 if start < size:
                mutated[start] ^= 1 << random.randrange(8)
            case 1 if start < size:
                mutated[start] = random.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 2:
                del mutated[start:]
            case 3:
                del mutated[start : start + length]
            case 4:
                mutated[target:target] = mutated[start : start + length]
            case 5:
                mutated[target : target + length] = mutated[start : start + length]
            case 6:
                mutated[start:start] = random.randbytes(random.choice((1, 8, 200)))
            case 7:
                width = random.choice((2, 4, 8))
                start -= start % random.choice((1, width))
                number = random.choice(HUGE) % (1 << 8 * width)
                mutated[start : start + width] = number.to_bytes(
                    width, random.choice(("little", "big"))
                )
            case 8:
                mutated[start : start + length] = bytes(length)
    return bytes(mutated)


def json_text(random: Random, data: bytes) -> bytes:
    """Mutates JSON values, types, keys or the encoding."""
    tree = [json.loads(data)]
    for _ in range(random.choice((1, 1, 2, 3))):
        _change(random, tree)
    text = _dump(tree[0])
    if not random.randrange(30):
        return text.encode(random.choice(("utf-16", "utf-8-sig", "utf-32")), "surrogatepass")
    return text.encode("utf-8", "surrogatepass")


def _dump(value: Any) -> str:
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        items = (f"{json.dumps(key)}: {_dump(item)}" for key, item in value.items())
        return "{" + ", ".join(items) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_dump, value)) + "]"
    return json.dumps(value)


def _change(random: Random, tree: list) -> None:
    """Changes a random value within the only item of `tree`."""
    node: Any = tree
    key: Any = 0
    while isinstance(node[key], dict | list) and node[key] and random.randrange(5):
        node = node[key]
        key = random.choice([*node]) if isinstance(node, dict) else random.randrange(len(node))
    value = deepcopy(random.choice(VALUES))  # a later change may modify it
    match random.randrange(6):
        case 0 if node is not tree:
            del node[key]
        case 1 if isinstance(node, dict):
            node[str(random.choice(("", "-1", "a", "\0", "9" * 30, "\u00e4")))] = node.pop(key)
        case 2:
            node[key] = [node[key]]
        case 3 if type(node[key]) is int:
            node[key] += random.choice((-1, 1, 2**31, 10**9))
        case _:
            node[key] = value


def json_lines(random: Random, data: bytes) -> bytes:
    """Mutates the JSON of one line."""
    lines = data.split(b"\n")
    index = random.randrange(len(lines))
    lines[index] = json_text(random, lines[index] or b"{}")
    return b"\n".join(lines)


def yaml_text(random: Random, data: bytes) -> bytes:
    """Mutates a YAML scalar or key."""
    lines = data.decode().split("\n")
    index = random.randrange(len(lines))
    key, colon, value = lines[index].rpartition(random.choice((":", "-", " ")))
    scalar = random.choice(YAML)
    lines[index] = scalar + colon + value if not random.randrange(4) else f"{key}{colon} {scalar}"
    return "\n".join(lines).encode()


def pickled(random: Random, data: bytes) -> bytes:
    """Removes, repeats, swaps or replaces pickle instructions."""
    offsets = [index for *_, index in pickletools.genops(data)] + [len(data)]
    parts = [data[a:b] for a, b in zip(offsets, offsets[1:], strict=False)]
    for _ in range(random.choice((1, 1, 2, 4))):
        index, target = random.randrange(len(parts)), random.randrange(len(parts))
        match random.randrange(5):
            case 0 if len(parts) > 1:
                del parts[index]
            case 1:
                parts.insert(target, parts[index])
            case 2:
                parts[index], parts[target] = parts[target], parts[index]
            case 3:
                parts[index] = some_bytes(random, parts[index])
            case _:
                parts.insert(index, random.choice(_PICKLE))
    return b"".join(parts)


def pickles(random: Random, data: bytes) -> bytes:
    """Mutates one of the pickles of a legacy PyTorch archive."""
    stream, ends = io.BytesIO(data), [0]
    for _ in range(5):
        for _ in pickletools.genops(stream):
            pass
        ends.append(stream.tell())
    index = random.choice((0, 1, 2, 3, 3, 3, 3, 4))
    start, end = ends[index], ends[index + 1]
    return data[:start] + pickled(random, data[start:end]) + data[end:]


def zipped(random: Random, data: bytes) -> bytes:
    """Mutates content, names, number or compression of ZIP members; checksums stay valid."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    index = random.randrange(len(members))
    pickles = [n for n, (name, _) in enumerate(members) if name.endswith(".pkl")]
    if pickles and random.randrange(3):
        index = pickles[0]
    name, content = members[index]
    match random.randrange(6):
        case 0:
            del members[index]
        case 1:
            members.append((random.choice((name, "x", "../x", "a/data.pkl")), content))
        case 2:
            members[index] = (name + "\u00e4", content)
        case 3:
            head = content[:128]
            members[index] = name, some_bytes(random, head) + content[128:]
        case _ if name.endswith(".pkl"):
            members[index] = name, pickled(random, content)
        case _:
            members[index] = name, some_bytes(random, content)
    out = io.BytesIO()
    method = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w", method) as archive:
        warnings.simplefilter("ignore")  # about duplicate names
        for name, content in members:
            archive.writestr(name, content)
    return out.getvalue()


def gzipped(random: Random, data: bytes) -> bytes:
    """Mutates the text of a gzip file."""
    return gzip.compress(some_bytes(random, gzip.decompress(data)), 1, mtime=0)


def after_header(random: Random, data: bytes) -> bytes:
    """Mutates the JSON header of a safetensors file; its length stays valid."""
    size = int.from_bytes(data[:8], "little")
    header = json_text(random, data[8 : 8 + size])
    return len(header).to_bytes(8, "little") + header + data[8 + size :]
