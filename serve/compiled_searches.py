"""Searches compiled ahead, one per beam size, over one set of weights."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from decode.batching import precompiled_shapes
from decode.options import InputError
from decode.teacher_forcing import precompile_teacher_forcing
from decode.translate import Translator
from experiments.json_output import hypotheses_to_json
from experiments.workdir import LoadedModel
from serve.request import TranslateRequest


class CompiledSearches:
    """`translator`'s search, with other `beams` too; each keeps all its hypotheses.

    `n_best` only chooses among what was found, so requests that differ in it go together.
    """

    def __init__(self, trained: LoadedModel, translator: Translator, beams: Sequence[int] = ()):
        self.trained, options = trained, translator.options
        if beams and options.method != "beam":
            raise InputError(f"--beam_sizes is for --method=beam, not {options.method}")
        max_batch_size = translator.policy.size
        devices, longest = translator.mesh.size, translator.max_output
        shapes = precompiled_shapes(max_batch_size, translator.tokens_per_batch, devices, longest)
        searches = [replace(options, beam_size=beam) for beam in beams] or [options]
        self._translators = {
            search.beam_size: translator.with_options(replace(search, n_best=search.width), shapes)
            for search in searches
        }
        # An output may be longer than its source.
        output = options.limit(max_batch_size, longest)
        self._forced = precompiled_shapes(
            output, translator.tokens_per_batch, 1, trained.model.config.max_positions
        )
        self.beams = {beam: t.options.width for beam, t in self._translators.items()}
        self.max_batch_size = max(rows for rows, _ in shapes)  # sentences of one batch

    def precompile(
        self, progress: Callable[[int], None] = lambda _: None, go_on=lambda: True
    ) -> None:
        """Compile all shapes, several at a time; stops early where `go_on` says so."""
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            for one in [pool.submit(self._one, step, go_on) for step in self.steps()]:
                one.result()
                progress(1)

    def steps(self) -> list[Callable[[], None]]:
        """What `prepare` does, one by one."""
        of = self.trained.model, self.trained.params
        searches: list[Callable[[], None]] = [
            partial(translator.precompile, *shape)
            for translator in self._translators.values()
            for shape in translator.precompiled_shapes
        ]
        return searches + [
            partial(precompile_teacher_forcing, *of, *shape) for shape in self._forced
        ]

    def answer(self, beam_size: int, asked: Sequence[TranslateRequest]) -> list[list[dict]]:
        """The translations of each request's texts, found in one search."""
        texts = [text for each in asked for text in each.texts]
        counts = [each.n_best for each in asked for _ in each.texts]
        found = iter(self._translators[beam_size].hypotheses(texts, counts=counts))
        own = [[next(found) for _ in each.texts] for each in asked]
        told: dict[int, list[dict]] = {}
        for wanted in True, False:
            rows = [n for n, each in enumerate(asked) if each.alignment == wanted]
            flat = hypotheses_to_json(
                [one for n in rows for one in own[n]],
                self.trained,
                alignment=wanted,
                precompiled_shapes=self._forced,
            )
            every = iter(flat)
            told |= {n: [next(every) for _ in own[n]] for n in rows}
        return [told[n] for n in range(len(asked))]

    @staticmethod
    def _one(step: Callable[[], None], go_on: Callable[[], bool]) -> None:
        if go_on():
            step()
