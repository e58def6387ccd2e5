"""Export a trained run's model to the format of another system.

    python -m experiments.export_model --workdir=DIR --to=huggingface --output=DIR

huggingface   a folder for MarianMTModel, MarianTokenizer and import_model
ctranslate2   a folder for ctranslate2.Translator; needs the extra [bench]
safetensors   the parameters unchanged, with a table of their names and axes
stablehlo     greedy and beam search as programs that need only JAX (interop/export_stablehlo.py)

The Marian formats (huggingface, ctranslate2) are post-norm with sinusoids: other settings are
rejected by name.
"""

from pathlib import Path

from absl import flags

from experiments import cli, model_flags
from experiments.console import log, progress_bar

FORMATS = ("huggingface", "ctranslate2", "safetensors", "stablehlo")
flags.adopt_module_key_flags(model_flags)  # so that --help shows them too
TO = flags.DEFINE_enum("to", None, FORMATS, "Target system.", required=True)
OUTPUT = flags.DEFINE_string("output", None, "Output folder, new or empty.", required=True)


def main() -> None:
    """Export the model of the flags."""
    from decode import shortlist
    from experiments.temporary_folders import remove_on_error
    from experiments.workdir import check_folder
    from interop.export_ctranslate2 import write_ctranslate2
    from interop.export_hf_marian import write_marian
    from interop.export_safetensors import write_tensors
    from interop.export_stablehlo import write_programs
    from model import ConfigError

    output = Path(OUTPUT.value)
    check_folder(output, "output")
    if output.exists() and any(output.iterdir()):
        raise ConfigError(f"--output={output} is not empty: choose another folder")
    trained = model_flags.load()
    if shortlist.load(Path(model_flags.WORKDIR.value)) is not None:
        log("the shortlist is not exported: the exported model decodes over the full vocabulary")
    with remove_on_error(output), progress_bar("exporting", None):
        if TO.value == "huggingface":
            write_marian(trained, output, log)
        elif TO.value == "ctranslate2":
            write_ctranslate2(trained, output, log)
        elif TO.value == "stablehlo":
            write_programs(trained, output)
        else:
            write_tensors(trained, output)


if __name__ == "__main__":
    cli.run(main)
