"""Draw what every head attends to while a sentence is translated.

    python -m experiments.attention --workdir=DIR --text="I am a student." --output=DIR

Writes encoder, decoder and cross, each as .png and .svg (a recurrent decoder has no
self-attention), and attention.html: a page that opens from disk and shows what a word attends to in
the selected layer and head.
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
    "The folder for encoder, decoder and cross, .png and .svg, and attention.html.",
    required=True,
)


def main() -> None:
    """Translate the text and draw the attention of all kinds that the model has."""
    import jax
    import jax.numpy as jnp

    from data.atomic_write import write_atomic
    from data.batch import BOS, EOS
    from data.errors import DataError
    from data.printable import text_line
    from decode.attention_maps import attention_maps
    from decode.options import InputError
    from experiments.console import log, progress_bar
    from experiments.report.plots.attention import draw, without_glyphs
    from experiments.temporary_folders import removed_unless_done

    trained = model_flags.load()
    vocabulary = trained.vocabulary
    if not TEXT.value.strip():
        raise DataError("--text is empty: give it a sentence")
    translator = search_flags.build_translator(trained)
    src = [*vocabulary.source.encode([TEXT.value])[0], EOS]
    if len(src) - 1 > translator.policy.size:
        advice = "" if translator.policy.full else ", or raise --long_input"
        raise InputError(
            f"--text has {len(src) - 1} tokens, more than the {translator.policy.size} that are "
            f"translated at once: shorten it{advice}"
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
    read, written = vocabulary.target.pieces(tgt_in), vocabulary.target.pieces(best.tokens)
    output = Path(OUTPUT.value)
    axes = {"encoder": (sources, sources), "decoder": (read, read), "cross": (written, sources)}
    axes = {kind: axes[kind] for kind in maps}  # a recurrent decoder has no self-attention
    with removed_unless_done(output):
        write_atomic(
            output / "attention.html", interactive(TEXT.value, best.text, maps, axes).encode()
        )
        if missing := without_glyphs([*sources, *read, *written]):
            log(f"the PNGs have boxes for {missing[:20]}: the SVGs and the page show them")
        with progress_bar("drawing", len(axes)) as progress:
            for kind, (rows, columns) in axes.items():
                draw(maps[kind], rows, columns, output / kind)
                progress(1)
    print(text_line(best.text, sys.stdout))


def interactive(
    source: str, target: str, maps: dict, axes: dict[str, tuple[list[str], list[str]]]
) -> str:
    """HTML page of the maps [layers, heads, rows, columns] by kind, with the pieces of their axes.

    A weight is stored in one byte, with an error below 0.2 percent.
    """
    import numpy as np

    from experiments.report.templates import filled

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
    return filled("attention", {"source": source, "target": target, "kinds": kinds})


if __name__ == "__main__":
    cli.run(main)
