"""Draw what every head attends to while a sentence is translated.

python -m experiments.attention --workdir=DIR --text="I am a student." --output=DIR
"""

from pathlib import Path

from absl import flags

from experiments import cli, decoding, loading

flags.adopt_module_key_flags(decoding)  # so that --help tells them too
TEXT = flags.DEFINE_string("text", None, "The sentence to translate.")
OUTPUT = flags.DEFINE_string("output", None, "The folder for encoder, decoder and cross .png.")
flags.mark_flags_as_required(["text", "output"])


def main() -> None:
    """Translate the text and draw the three kinds of attention."""
    import jax
    import jax.numpy as jnp

    from data.batch import BOS, EOS
    from data.corpus import DataError
    from decode.attention import attention_maps
    from decode.translate import InputError

    trained = loading.load()
    vocabulary = trained.vocabulary
    if not TEXT.value.strip():
        raise DataError("--text is empty: give it a sentence")
    translator = decoding.make_translator(trained)
    src = [*vocabulary.source.encode([TEXT.value])[0], EOS]
    if len(src) - 1 > translator.policy.size:
        advice = "" if translator.policy.full else ", or raise --max_input"
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
    output.mkdir(parents=True, exist_ok=True)
    axes = {"encoder": (sources, sources), "decoder": (read, read), "cross": (written, sources)}
    for kind, (rows, columns) in axes.items():
        draw(maps[kind], rows, columns, output / f"{kind}.png")
    print(best.text)


def draw(weights, rows: list[str], columns: list[str], file: Path) -> None:
    """A picture of [layers, heads, rows, columns] weights: one small map a head, named axes."""
    from matplotlib.figure import Figure

    layers, heads = weights.shape[:2]
    size = 0.7 + 0.19 * max(len(rows), len(columns))
    figure = Figure(figsize=(heads * size, layers * size), layout="constrained")
    grid = figure.subplots(layers, heads, squeeze=False)
    for layer in range(layers):
        for head in range(heads):
            cell = grid[layer][head]
            cell.imshow(weights[layer, head], cmap="Blues", vmin=0, vmax=1, aspect="auto")
            cell.set_title(f"layer {layer + 1}, head {head + 1}", fontsize=8)
            cell.set_xticks(range(len(columns)), columns, rotation=90, fontsize=6)
            cell.set_yticks(range(len(rows)), rows if head == 0 else [""] * len(rows), fontsize=6)
            cell.tick_params(length=0)
    figure.savefig(file, dpi=150)


if __name__ == "__main__":
    cli.run(main)
