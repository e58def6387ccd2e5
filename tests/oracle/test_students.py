"""Firefox's English-Portuguese students say what their own engine has them say, in real text."""

import pytest

from decode.options import SearchOptions
from decode.translate import Translator
from interop.locate import folder_of
from interop.marian.model import read_native
from model import Transformer
from tests.experiments.commands import heed
from tests.oracle.students import MODELS, STUDENTS, engine, sentences


@pytest.mark.parametrize("language", STUDENTS)
def test_strings_are_those_of_the_engine(language):
    folder = folder_of(MODELS + STUDENTS[language])
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
    texts, say = sentences(language), engine(folder)
    assert len(texts) == 200
    expected = [say(text) for text in texts]
    found = translator.translate(texts)
    different = [n for n in range(200) if found[n] != expected[n]]
    assert len(different) <= 2, [(texts[n], found[n], expected[n]) for n in different]
    assert len(set(expected)) > 190


def test_two_commands_translate(tmp_path):
    """As README has it, from the installed package to what the engine says."""
    workdir = tmp_path / "enpt"
    code, _, err = heed("import_model", f"--from={MODELS}{STUDENTS['en']}", f"--workdir={workdir}")
    assert code == 0, err
    code, out, err = heed("translate", f"--workdir={workdir}", stdin="Where is the bus stop?\n")
    assert (code, out) == (0, "Onde está a paragem de autocarro?\n"), err
