"""Import another system's model as a run.

    python -m experiments.import_model --from=DIR --workdir=DIR

DIR is a Hugging Face folder of a Marian model (OPUS-MT): config.json, generation_config.json,
model.safetensors or pytorch_model.bin, source.spm, target.spm, vocab.json, tokenizer_config.json;
or of BART, mBART-50 or NLLB, with tokenizer.json in the place of the three before the last.
Or of a T5 model (T5, T5 1.1, Flan-T5, mT5), whose vocabulary is spiece.model.
Or it is one of Marian itself: a .npz or a .bin (float32, or 8 and 16 bits of intgemm), its
vocabulary, an .spm or a .yml with source.spm and target.spm, and the YAML file that names these.
Or it is one of fairseq: a .pt, or checkpoints/ with some, dict.SOURCE.txt and dict.TARGET.txt, and
the merges of subword-nmt if there are any; a .pt may be named itself, --from=FILE.
--from=package:NAME/PATH is a folder in an installed Python package.
The new --workdir is as if it had been trained here: translate, evaluate, score and attention take
it, with the model's own search settings as their defaults, and train goes on from its weights with
--config.init_from=DIR. Last is a line of JSON.
"""

import os
from collections.abc import Callable
from pathlib import Path

from absl import flags

from data.errors import DataError
from experiments import cli
from experiments.console import print_json, progress_bar

FROM = flags.DEFINE_string(
    "from", None, "The folder of the model, or package:NAME/PATH.", required=True
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "The folder of the run, which holds none yet.", required=True
)
SOURCE_LANGUAGE = flags.DEFINE_string("source_language", "", "Its code; default: the model's own.")
TARGET_LANGUAGE = flags.DEFINE_string("target_language", "", "Its code; default: the model's own.")


def main() -> None:
    """Import the model of the flags."""
    from interop.fairseq.files import is_fairseq
    from interop.fairseq.model import read_fairseq
    from interop.imported_model import ImportedModel
    from interop.locate import folder_of
    from interop.marian.files import is_native
    from interop.marian.model import read_native
    from interop.registry import read_folder
    from interop.write_run import check_free, write_run

    workdir = Path(WORKDIR.value)
    check_free(workdir)
    folder = folder_of(FROM.value)
    read: Callable[[Path, str, str], ImportedModel]
    if os.path.lexists(folder / "config.json"):
        read = read_folder
    elif is_native(folder):
        read = read_native
    elif is_fairseq(folder):
        read = read_fairseq
    else:
        packed = ": unpack its .gz files first" if any(folder.glob("*.gz")) else ""
        raise DataError(
            f"--from={FROM.value}: there is neither a config.json, as Hugging Face has it, nor a "
            f".npz or .bin of Marian's, nor a .pt of fairseq's{packed}"
        )
    with progress_bar("importing", None):
        imported = read(folder, SOURCE_LANGUAGE.value, TARGET_LANGUAGE.value)
        summary = write_run(workdir, imported)
    print_json(summary)


if __name__ == "__main__":
    cli.run(main)
