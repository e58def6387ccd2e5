"""Import a model of Hugging Face, Marian or fairseq as a run.

    python -m experiments.import_model --from=DIR --workdir=DIR

--from is a folder, or package:NAME/PATH for a folder in an installed Python package:

Hugging Face  config.json, generation_config.json, tokenizer_config.json, and model.safetensors or
              pytorch_model.bin; with source.spm, target.spm and vocab.json for Marian models
              (OPUS-MT), with tokenizer.json for BART, mBART-50 and NLLB, and with spiece.model for
              T5 models (T5, T5 1.1, Flan-T5, mT5)
Marian        a .npz or .bin (float32, or 8 and 16 bits of intgemm), its vocabulary (an .spm, or a
              .yml with source.spm and target.spm), and the YAML file that names these
fairseq       a .pt, or checkpoints/ with .pt files, dict.SOURCE.txt and dict.TARGET.txt, and the
              merges of subword-nmt, if any; --from=FILE selects one of several .pt files

The new --workdir works like that of a trained run: translate, evaluate, score and attention load
it, with the model's search settings as their defaults, and --config.init_from=DIR trains from its
weights. The last line of the output is JSON.
"""

import os
from collections.abc import Callable
from pathlib import Path

from absl import flags

from data.errors import DataError
from experiments import cli
from experiments.console import print_json, progress_bar

FROM = flags.DEFINE_string(
    "from", None, "Folder of the model, or package:NAME/PATH.", required=True
)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the new run.", required=True)
SOURCE_LANGUAGE = flags.DEFINE_string("source_language", "", "Language code; default: the model's.")
TARGET_LANGUAGE = flags.DEFINE_string("target_language", "", "Language code; default: the model's.")


def main() -> None:
    """Import the model of the flags."""
    from experiments.write_run import check_free, write_run
    from interop.fairseq.files import is_fairseq
    from interop.fairseq.model import read_fairseq
    from interop.imported_model import ImportedModel
    from interop.locate import locate_folder
    from interop.marian.files import is_native
    from interop.marian.model import read_native
    from interop.registry import read_folder

    workdir = Path(WORKDIR.value)
    check_free(workdir)
    folder = locate_folder(FROM.value)
    read: Callable[[Path, str, str], ImportedModel]
    if os.path.lexists(folder / "config.json"):
        read = read_folder
    elif is_native(folder):
        read = read_native
    elif is_fairseq(folder):
        read = read_fairseq
    else:
        hint = ": unpack its .gz files first" if any(folder.glob("*.gz")) else ""
        raise DataError(
            f"--from={FROM.value}: found no config.json of Hugging Face, no .npz or .bin of "
            f"Marian, and no .pt of fairseq{hint}"
        )
    with progress_bar("importing", None):
        imported = read(folder, SOURCE_LANGUAGE.value, TARGET_LANGUAGE.value)
        summary = write_run(workdir, imported)
    print_json(summary)


if __name__ == "__main__":
    cli.run(main)
