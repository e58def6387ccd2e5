"""PyTorch's legacy archive format (before 2020), written without PyTorch."""

import io
import pickle
from pathlib import Path
from typing import Any

from tests.experiments.fairseq_folders import PickleWriter


def save_legacy(file: Path, content: Any) -> None:
    """Writes `content` like torch.save before 2020."""
    out = io.BytesIO()
    for part in 0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}:
        pickle.dump(part, out, 2)
    writer = PickleWriter(out)
    writer.dump(content)
    pickle.dump([str(key) for key in range(len(writer.storages))], out, 2)
    for numbers in writer.storages:
        out.write(numbers.size.to_bytes(8, "little") + numbers.tobytes())
    file.write_bytes(out.getvalue())
