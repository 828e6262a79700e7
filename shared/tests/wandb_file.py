"""Reads W&B's log of a run: a header of 7 bytes, then LevelDB's log format (32 KiB blocks, records in parts)."""

from __future__ import annotations

import struct
from pathlib import Path

from wandb.proto.wandb_internal_pb2 import Record

BLOCK = 32768
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(file: Path) -> list[Record]:
    content, found, parts = file.read_bytes(), [], b""
    assert content[:4] == b":W&B"
    at = 7
    while at + 7 <= len(content):
        if BLOCK - at % BLOCK < 7:  # too little of the block left for a part: zeros
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        if at + 7 + length > len(content):  # still being written
            break
        parts = (parts if kind in (MIDDLE, LAST) else b"") + content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (FULL, LAST):
            found.append(Record.FromString(parts))
    return found
