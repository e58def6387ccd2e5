"""Evaluate checkpoints by BLEU and chrF: one line of JSON for each.

python -m experiments.evaluate --workdir=DIR --split=test --checkpoint=last,best,average:5,ema
python -m experiments.evaluate --workdir=DIR --source=FILE --reference=FILE
"""

import time
from pathlib import Path

from absl import flags

from data.text import read_parallel
from experiments import cli, model_flags, search_flags
from experiments.console import print_json, progress_bar
from model import ConfigError

flags.adopt_module_key_flags(search_flags)  # so that --help shows them too
SPLIT = flags.DEFINE_enum("split", None, ("train", "valid", "test"), "A split of the run's data.")
SOURCE = flags.DEFINE_string("source", None, "A file to translate, one sentence per line.")
REFERENCE = flags.DEFINE_string("reference", None, "Its reference translation, line by line.")


def main() -> None:
    """Translate and score the text of the flags with each checkpoint."""
    from decode.bleu import corpus_scores
    from experiments.translation_data import open_split, sources_and_references
    from experiments.translation_task import warn_unknown_language

    files = SOURCE.value, REFERENCE.value
    if (SPLIT.value is None) == (files == (None, None)) or (None in files and any(files)):
        raise ConfigError("give either --split=test, or both --source=FILE and --reference=FILE")
    if (search_flags.N_BEST.value or 1) > 1:
        raise ConfigError("--n_best has no meaning here: only the best translation is scored")
    samples = search_flags.SAMPLES.value or 1
    if search_flags.METHOD.value == "sample" and samples > 1:
        raise ConfigError(
            f"--num_samples={samples} has no meaning here with --method=sample: only one "
            "translation is scored; use --method=mbr, or --num_samples=1"
        )
    names = model_flags.CHECKPOINT.value.split(",")
    model_flags.check_checkpoints(names)
    trained = model_flags.load(names[0])
    experiment = trained.experiment
    if SPLIT.value:
        pairs = open_split(experiment, SPLIT.value)
    else:
        source, reference = (Path(file) for file in files if file is not None)
        pairs = read_parallel(source, reference, pipes=True)
    sources, references = sources_and_references(pairs)
    language = experiment.data.target_language
    warn_unknown_language(language)
    translator = search_flags.translator_from_flags(trained)
    for checkpoint in names:
        if checkpoint != names[0]:
            trained = model_flags.load(checkpoint)
            translator = translator.with_params(trained.params)
        start = time.monotonic()
        with progress_bar(f"translating with {checkpoint}", len(sources)) as progress:
            hypotheses = [best for best, *_ in translator.hypotheses(sources, progress)]
        seconds = time.monotonic() - start
        scores = corpus_scores([h.text for h in hypotheses], references, language)
        print_json(
            {name: scores[name] for name in ("bleu", "chrf", "signature", "chrf_signature")}
            | {
                "sentences": len(sources),
                "seconds": round(seconds, 3),
                "tokens_per_second": round(sum(len(h.tokens) for h in hypotheses) / seconds, 1),
                "checkpoint": checkpoint,
                "steps": list(trained.steps),
            }
        )


if __name__ == "__main__":
    cli.run(main)
