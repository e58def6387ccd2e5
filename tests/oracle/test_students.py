"""Firefox's English-Portuguese student models: same translations as their original engine."""

import pytest

from decode.options import SearchOptions
from decode.translate import Translator
from interop.locate import locate_folder
from interop.marian.model import read_native
from model import Transformer
from tests.experiments.commands import heed
from tests.oracle.students import MODELS, STUDENTS, engine, sentences


@pytest.mark.parametrize("language", STUDENTS)
def test_translations_equal_those_of_the_engine(language):
    folder = locate_folder(MODELS + STUDENTS[language])
    imported = read_native(folder)
    experiment = imported.experiment
    assert experiment.model.decoder_mixer == "ssru" and experiment.search.beam_size == 1
    translator = Translator(
        Transformer(experiment.model),
        imported.params,
        imported.vocabulary,
        options=SearchOptions(**vars(experiment.search)),
        shortlist=imported.shortlist,
    )
    texts, translate_with_engine = sentences(language), engine(folder)
    assert len(texts) == 200
    expected = [translate_with_engine(text) for text in texts]
    actual = translator.translate(texts)
    differences = [n for n in range(200) if actual[n] != expected[n]]
    assert len(differences) <= 2, [(texts[n], actual[n], expected[n]) for n in differences]
    assert len(set(expected)) > 190


def test_commands_import_and_translate(tmp_path):
    """The README example: the engine's translation, from the installed package."""
    workdir = tmp_path / "enpt"
    code, _, err = heed("import_model", f"--from={MODELS}{STUDENTS['en']}", f"--workdir={workdir}")
    assert code == 0, err
    code, out, err = heed("translate", f"--workdir={workdir}", stdin="Where is the bus stop?\n")
    assert (code, out) == (0, "Onde está a paragem de autocarro?\n"), err
