"""Draw the attention maps of all layers and heads for a translated sentence.

    python -m experiments.attention --workdir=DIR --text="I am a student." --output=DIR

Writes encoder, decoder and cross, each as .png and .svg (a recurrent decoder has no
self-attention), and attention.html: a page that opens from disk and shows the attention of each
word in the selected layer and head.
"""

import base64
import sys
from pathlib import Path

from absl import flags

from experiments import cli, model_flags, search_flags

flags.adopt_module_key_flags(search_flags)  # so that --help shows them too
TEXT = flags.DEFINE_string("text", None, "The sentence to translate.", required=True)
OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "Folder for the maps encoder, decoder and cross (.png and .svg), and attention.html.",
    required=True,
)


def main() -> None:
    """Translate the text and draw its encoder, decoder and cross-attention."""
    import jax
    import jax.numpy as jnp

    from data.atomic_write import write_atomic
    from data.batch import BOS, EOS
    from data.errors import DataError
    from data.printable import text_line
    from decode.attention_maps import attention_maps
    from decode.options import InputError
    from experiments.console import log, progress_bar
    from experiments.report.plots.attention import missing_glyphs, plot_attention
    from experiments.temporary_folders import remove_on_error
    from experiments.workdir import check_folder

    output = Path(OUTPUT.value)
    check_folder(output, "output")
    trained = model_flags.load()
    vocabulary = trained.vocabulary
    if not TEXT.value.strip():
        raise DataError("--text is empty: give it a sentence")
    translator = search_flags.translator_from_flags(trained)
    src = [*vocabulary.source.encode([TEXT.value])[0], EOS]
    if len(src) - 1 > translator.policy.size:
        advice = "" if translator.policy.at_maximum else ", or raise --long_input"
        raise InputError(
            f"--text has {len(src) - 1} tokens, more than the limit of {translator.policy.size}: "
            f"shorten it{advice}"
        )
    ((best, *_),) = translator.hypotheses([TEXT.value])
    tgt_in = [BOS, *best.tokens[:-1]]
    maps = attention_maps(
        trained.model,
        jax.device_get(trained.params),  # one sentence needs one device
        jnp.array([src], jnp.int32),
        jnp.array([tgt_in], jnp.int32),
    )
    sources = vocabulary.source.pieces(src)
    inputs, outputs = (vocabulary.target.pieces(ids) for ids in (tgt_in, best.tokens))
    axes = {"encoder": (sources, sources), "decoder": (inputs, inputs), "cross": (outputs, sources)}
    axes = {kind: axes[kind] for kind in maps}  # a recurrent decoder has no self-attention
    with remove_on_error(output):
        write_atomic(
            output / "attention.html", interactive(TEXT.value, best.text, maps, axes).encode()
        )
        if missing := missing_glyphs([*sources, *inputs, *outputs]):
            log(f"the PNGs show boxes for {missing[:20]}: use the SVGs or the page")
        with progress_bar("drawing", len(axes)) as progress:
            for kind, (rows, columns) in axes.items():
                plot_attention(maps[kind], rows, columns, output / kind)
                progress(1)
    print(text_line(best.text, sys.stdout))


def interactive(
    source: str, target: str, maps: dict, axes: dict[str, tuple[list[str], list[str]]]
) -> str:
    """HTML page of maps [layers, heads, rows, columns] by kind; `axes` has the pieces of both axes.

    A weight is stored in one byte, with an error below 0.2 percent.
    """
    import numpy as np

    from experiments.report.templates import render

    kinds = {
        kind: {
            "rows": rows,
            "columns": columns,
            "layers": maps[kind].shape[0],
            "heads": maps[kind].shape[1],
            "weights": base64.b64encode(
                np.rint(np.asarray(maps[kind], float) * 255).astype(np.uint8).tobytes()
            ).decode(),
        }
        for kind, (rows, columns) in axes.items()
    }
    return render("attention", {"source": source, "target": target, "kinds": kinds})


if __name__ == "__main__":
    cli.run(main)
